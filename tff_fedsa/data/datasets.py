"""Data sets by name: which reader takes which."""

from collections.abc import Callable, Collection, Sequence
import inspect
from typing import NamedTuple, Optional

from tff_fedsa.data import generators
from tff_fedsa.data import sources
from tff_fedsa.data import texts
from tff_fedsa.data.readers import camelyon17
from tff_fedsa.data.readers import digits
from tff_fedsa.data.readers import domain_folder
from tff_fedsa.data.readers import ham10000
from tff_fedsa.data.readers import har
from tff_fedsa.data.readers import image_folder
from tff_fedsa.data.readers import news
from tff_fedsa.data.readers import npz_file
from tff_fedsa.data.readers import pamap2
from tff_fedsa.data.readers import shakespeare
from tff_fedsa.data.readers import sklearn_tables
from tff_fedsa.data.readers import tfds
from tff_fedsa.data.readers import tfds_by_key
from tff_fedsa.data.readers import tiny_imagenet
from tff_fedsa.runs import errors


class Folder(NamedTuple):
  """A data set of files in a folder.

  Attributes:
    read: A reader's `read`. It gets the folder, and those of the options of
      `load` that it takes (`takes`).
    image_size: Pixels square that images are decoded to by default; None where
      examples are no images.
    about: Source of the data and the layout of their folder.
    has_clients: Whether the data have clients of their own.
  """

  read: Callable[..., sources.Source]
  image_size: Optional[int]
  about: str
  has_clients: bool = False


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
  'camelyon17': Folder(
    camelyon17.read,
    32,
    'Camelyon17-WILDS (Koh et al., ICML 2021) is a data set of WILDS, whose '
    'package downloads it. Give the unpacked folder (camelyon17_v1.0) with '
    'metadata.csv and patches/patient_<p>_node_<n>/*.png.',
    has_clients=True,
  ),
  'har': Folder(
    har.read,
    None,
    'UCI HAR (Anguita et al., ESANN 2013) is "Human Activity Recognition Using '
    'Smartphones" of the UCI repository. Unpack it, and give the folder "UCI '
    'HAR Dataset" with train/Inertial Signals/*.txt, train/y_train.txt, '
    'train/subject_train.txt, and the same of test.',
    has_clients=True,
  ),
  'pamap2': Folder(
    pamap2.read,
    None,
    'PAMAP2 (Reiss and Stricker, ISWC 2012) is "PAMAP2 Physical Activity '
    'Monitoring" of the UCI repository. Unpack it, and give the folder '
    'PAMAP2_Dataset with Protocol/subject101.dat to subject109.dat.',
    has_clients=True,
  ),
  'ag_news': Folder(
    news.read_ag_news,
    None,
    'AG News is a data set of "Character-level Convolutional Networks for Text '
    'Classification" (Zhang et al., NeurIPS 2015; ag_news_csv). Give the '
    'folder with train.csv and test.csv: class, title, text, without a header.',
  ),
  'sogou_news': Folder(
    news.read_sogou_news,
    None,
    'Sogou News is a data set of "Character-level Convolutional Networks for '
    'Text Classification" (Zhang et al., NeurIPS 2015; sogou_news_csv). Give '
    'the folder with train.csv and test.csv: class, title, text, without a '
    'header.',
  ),
  'shakespeare': Folder(
    shakespeare.read,
    None,
    'Shakespeare is a data set of LEAF (Caldas et al., 2018), whose '
    'data/shakespeare/preprocess.sh makes it. Give the folder '
    'data/shakespeare/data, with all_data/*.json.',
    has_clients=True,
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

# Any data set of TFDS, by its name there.
TFDS = 'tfds'

NAMES = (*SHIPPED, *_TFDS_NAMES, TFDS, *FOLDERS, *FILES, *NATURAL_NAMES)


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


def takes(dataset: str, option: str) -> bool:
  """Returns whether the reader of a data set in a folder takes an option.

  Args:
    dataset: Any name.
    option: An argument of `load`, e.g. `cache_dir`.
  """
  folder = FOLDERS.get(dataset)
  return folder is not None and option in _options_of(folder.read)


def _options_of(read: Callable[..., sources.Source]) -> Collection[str]:
  return inspect.signature(read).parameters


def register(
  name: str,
  read: Callable[..., sources.Source],
  *,
  image_size: Optional[int] = 32,
  about: str = '',
  has_clients: bool = False,
) -> None:
  """Makes a data set of your own known by its name.

  Args:
    name: Name of the data set.
    read: `fn(data_dir, *, …) -> Source`. After the star it takes any of the
      options of `load`: `image_size`, `cache_dir`, `alpha_background` (images),
      `sequence_length` (texts), `series_length` (series of unequal length),
      `window_length` (recordings).
    image_size: Pixels square that images are decoded to by default.
    about: Source of the data and the layout of their folder.
    has_clients: Whether the source has `client_ids`.

  Raises:
    ValueError: If the name is taken.
  """
  if name in names():
    raise errors.UserError(f'A dataset {name!r} is registered already.')
  FOLDERS[name] = Folder(read, image_size, about, has_clients)


def load(
  dataset: str,
  *,
  data_dir: Optional[str] = None,
  download: bool = False,
  image_size: Optional[int] = None,
  cache_dir: Optional[str] = None,
  alpha_background: str = 'white',
  sequence_length: int = texts.SEQUENCE_LENGTH,
  series_length: Optional[int] = None,
  window_length: int = pamap2.WINDOW_LENGTH,
  tfds_name: Optional[str] = None,
  input_key: Sequence[str] = (),
  label_key: Optional[str] = None,
) -> sources.Source:
  """Returns a source by name.

  Args:
    dataset: One of `NAMES`; not of TFF, no made clients, no table.
    data_dir: The TFDS directory, the folder, or the `.npz` file.
    download: Whether TFDS may download what is missing.
    image_size: Pixels square, of image files and of TFDS data sets whose images
      differ in size; others are resized in the step.
    cache_dir: Directory of decoded images; None decodes them each time.
    alpha_background: The colour behind transparent images of files.
    sequence_length: Words of a text at most, see `texts.encoded`.
    series_length: Steps that series are padded or cut to, see `ragged.padded`.
    window_length: Steps of the windows that recordings are cut into.
    tfds_name: Name of a data set of TFDS, where `dataset` is `tfds`.
    input_key: See `tfds_by_key.read`.
    label_key: See `tfds_by_key.read`.

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
  if dataset == TFDS:
    if not tfds_name:
      raise errors.UserError(
        "The dataset 'tfds' needs tfds_name, e.g. imdb_reviews."
      )
    return tfds_by_key.read(
      tfds_name,
      input_keys=input_key,
      label_key=label_key,
      data_dir=data_dir,
      download=download,
      image_size=image_size,
      sequence_length=sequence_length,
      series_length=series_length,
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
  if alpha_background != 'white' and not takes(dataset, 'alpha_background'):
    raise errors.UserError(
      f'The reader of {dataset!r} does not take alpha_background, found '
      f'{alpha_background!r}.'
    )
  options = {
    'image_size': image_size or folder.image_size,
    'cache_dir': cache_dir,
    'alpha_background': alpha_background,
    'sequence_length': sequence_length,
    'series_length': series_length,
    'window_length': window_length,
  }
  try:
    return folder.read(
      data_dir,
      **{n: v for n, v in options.items() if takes(dataset, n)},
    )
  except FileNotFoundError as error:
    raise FileNotFoundError(f'{error} {folder.about}') from error
