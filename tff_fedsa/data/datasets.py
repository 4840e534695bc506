"""Data sets by name: which reader takes which."""

from collections.abc import Callable
import inspect
from typing import NamedTuple, Optional

from tff_fedsa.data import generators
from tff_fedsa.data import sources
from tff_fedsa.data.readers import digits
from tff_fedsa.data.readers import domain_folder
from tff_fedsa.data.readers import ham10000
from tff_fedsa.data.readers import image_folder
from tff_fedsa.data.readers import npz_file
from tff_fedsa.data.readers import sklearn_tables
from tff_fedsa.data.readers import tfds
from tff_fedsa.data.readers import tiny_imagenet
from tff_fedsa.runs import errors


class Folder(NamedTuple):
  """A data set of image files.

  Attributes:
    read: A reader's `read`.
    image_size: Pixels square that images are decoded to by default.
    about: Source of the data and the layout of their folder.
  """

  read: Callable[..., sources.Source]
  image_size: int
  about: str


_TFDS_NAMES = (
  'cifar10',
  'cifar100',
  'fashion_mnist',
  'mnist',
  'emnist',
  'emnist/balanced',
  'emnist/byclass',
  'emnist/bymerge',
  'emnist/digits',
  'emnist/letters',
  'emnist/mnist',
  'svhn_cropped',
  'sun397',
)

FOLDERS = {
  'image_folder': Folder(
    image_folder.read, 32, 'Lay it out as <class>/<image>.'
  ),
  'domain_folder': Folder(
    domain_folder.read,
    32,
    'Lay it out as <domain>/<class>/<image>, the same classes in each domain.',
  ),
  'office_caltech10': Folder(
    domain_folder.read,
    64,
    'Office-Caltech10 is the data set of "Geodesic flow kernel for '
    'unsupervised domain adaptation" (Gong et al., CVPR 2012); see its '
    "authors' page. Lay it out as <domain>/<class>/<image>, the domains "
    'amazon, caltech10, dslr and webcam with the same 10 classes each.',
  ),
  'digits5': Folder(
    domain_folder.read,
    32,
    'Digits-5 is a data set of "Moment matching for multi-source domain '
    'adaptation" (Peng et al., ICCV 2019); see its authors\' page. Write its '
    'images as <domain>/<class>/<image>, the domains mnist, mnist_m, svhn, '
    'syn and usps with the classes 0 to 9 each.',
  ),
  'tiny_imagenet': Folder(
    tiny_imagenet.read,
    64,
    'Tiny-ImageNet-200 is the data set of the Stanford course CS231n '
    '(tiny-imagenet-200.zip). Unpack it, and give the folder with '
    'train/<wnid>/images/*.JPEG, val/images/*.JPEG and '
    'val/val_annotations.txt.',
  ),
  'ham10000': Folder(
    ham10000.read,
    64,
    'HAM10000 (Tschandl et al., Scientific Data 2018) is in the Harvard '
    'Dataverse. Put HAM10000_metadata.csv and the unpacked images '
    '(<image_id>.jpg, together or in HAM10000_images_part_1 and '
    'HAM10000_images_part_2) into one folder.',
  ),
}

# Names of `natural`, which has partitions, too.
NATURAL_NAMES = (
  'tff_emnist',
  'tff_emnist_digits',
  'tff_cifar100',
  'tff_gldv2',
  'tff_gldv2_160k',
)
# Data sets that need no file.
SHIPPED = ('digits', *sklearn_tables.NAMES, *generators.NAMES)

# A file of the user's.
TABLES = ('csv', 'parquet')
FILES = ('npz', *TABLES)

NAMES = (*SHIPPED, *_TFDS_NAMES, *FOLDERS, *FILES, *NATURAL_NAMES)


def names() -> tuple[str, ...]:
  """Returns the names of all data sets, registered ones too."""
  return (*NAMES, *(name for name in FOLDERS if name not in NAMES))


def required(path: Optional[str], dataset: str) -> str:
  """Returns the path of a data set that is one file.

  Raises:
    ValueError: If it is missing.
  """
  if not path:
    raise errors.UserError(
      f'The dataset {dataset!r} needs data_dir, the path of the file.'
    )
  return path


def register(
  name: str,
  read: Callable[..., sources.Source],
  *,
  image_size: int = 32,
  about: str = '',
) -> None:
  """Makes a data set of your own known by its name.

  Args:
    name: Name of the data set.
    read: `fn(data_dir, *, image_size, cache_dir) -> Source`; one that reads
      transparent images also takes `alpha_background`.
    image_size: Pixels square that images are decoded to by default.
    about: Source of the data and the layout of their folder.

  Raises:
    ValueError: If the name is taken.
  """
  if name in names():
    raise errors.UserError(f'A dataset {name!r} is registered already.')
  FOLDERS[name] = Folder(read, image_size, about)


def load(
  dataset: str,
  *,
  data_dir: Optional[str] = None,
  download: bool = False,
  image_size: Optional[int] = None,
  cache_dir: Optional[str] = None,
  alpha_background: str = 'white',
) -> sources.Source:
  """Returns a source by name.

  Args:
    dataset: One of `NAMES` that has no clients of its own.
    data_dir: The TFDS directory, the folder, or the `.npz` file.
    download: Whether TFDS may download what is missing.
    image_size: Pixels square, of image files and of TFDS data sets whose images
      differ in size; others are resized in the step.
    cache_dir: Directory of decoded images; None decodes them each time.
    alpha_background: The colour behind transparent images of files.

  Raises:
    ValueError: For an unknown name, or if `data_dir` is needed and missing.
    FileNotFoundError: If the data are not there; the message says where to get
      them and how to lay them out.
  """
  if dataset == 'digits':
    return digits.read()
  if dataset in sklearn_tables.NAMES:
    return sklearn_tables.read(dataset)
  if dataset in _TFDS_NAMES:
    return tfds.read(
      dataset,
      data_dir=data_dir,
      download=download,
      image_size=image_size,
      cache_dir=cache_dir,
    )
  if dataset not in names():
    raise errors.UserError(
      f'Unknown dataset {dataset!r}; known: {", ".join(names())}.'
    )
  if dataset in (*NATURAL_NAMES, *generators.NAMES, *TABLES):
    raise errors.UserError(
      f'The dataset {dataset!r} has clients of its own, or columns that say '
      'so: `dealing.load` returns them.'
    )
  if dataset == 'npz':
    return npz_file.read(required(data_dir, dataset))
  folder = FOLDERS[dataset]
  if not data_dir:
    raise errors.UserError(
      f'The dataset {dataset!r} needs data_dir, the path of the folder. '
      f'{folder.about}'
    )
  options = {}
  if 'alpha_background' in inspect.signature(folder.read).parameters:
    options['alpha_background'] = alpha_background
  elif alpha_background != 'white':
    raise errors.UserError(
      f'The reader of {dataset!r} does not take alpha_background, found '
      f'{alpha_background!r}.'
    )
  try:
    return folder.read(
      data_dir,
      image_size=image_size or folder.image_size,
      cache_dir=cache_dir,
      **options,
    )
  except FileNotFoundError as error:
    raise FileNotFoundError(f'{error} {folder.about}') from error
