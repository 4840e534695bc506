"""Sources: where images and labels come from, before any partition."""

import dataclasses
import os
from typing import Optional
import zipfile

import numpy as np

from tff_fedsa.data import input_spec

# TFDS names that are known to be image classification with `image`, `label`.
_TFDS_NAMES = ('cifar10', 'cifar100', 'fashion_mnist', 'mnist')
_IMAGE_ENDINGS = ('.bmp', '.gif', '.jpeg', '.jpg', '.png', '.webp')


@dataclasses.dataclass(frozen=True)
class Source:
  """All examples of a data set, train first.

  Attributes:
    name: For messages and file names.
    images: uint8 or float32[num_examples, height, width, channels].
    labels: int32[num_examples], in `[0, num_classes)`.
    class_names: One per class.
    num_train: How many of the first examples are the original train set; the
      rest is the original test set. None where the data set has no such split.
    scale: Models see `images * scale + offset`.
    offset: See `scale`.

  Raises (when constructed):
    ValueError: If arrays do not fit, labels are out of range, or images hold
      NaN or infinity; the first bad example is named.
    TypeError: For images or labels of another dtype.
  """

  name: str
  images: np.ndarray
  labels: np.ndarray
  class_names: tuple[str, ...]
  num_train: Optional[int] = None
  scale: float = 1.0 / 127.5
  offset: float = -1.0

  def __post_init__(self):
    _check_images(self.name, self.images)
    labels = _checked_labels(
      self.name, self.labels, len(self.images), self.num_classes
    )
    object.__setattr__(self, 'labels', labels)

  @property
  def num_classes(self) -> int:
    return len(self.class_names)

  @property
  def input_spec(self) -> input_spec.InputSpec:
    """How a model sees the images, without resizing."""
    _, height, width, channels = self.images.shape
    return input_spec.InputSpec(
      shape=(height, width, channels),
      dtype=self.images.dtype.name,
      scale=self.scale,
      offset=self.offset,
    )


def _check_images(name: str, images: np.ndarray) -> None:
  if images.dtype not in (np.uint8, np.float32):
    raise TypeError(
      f'{name}: expected images of dtype uint8 or float32, found '
      f'{images.dtype}. Convert them, e.g. images.astype(np.float32).'
    )
  if images.ndim != 4 or not images.size:
    raise ValueError(
      f'{name}: expected images [num_examples, height, width, channels], found '
      f'shape {images.shape}. Grey images need a last axis of 1.'
    )
  if images.dtype == np.float32:
    finite = np.isfinite(images).all(axis=(1, 2, 3))
    if not finite.all():
      raise ValueError(
        f'{name}: {np.sum(~finite)} of {len(images)} images hold NaN or '
        f'infinity; the first is example {finite.argmin()}.'
      )


def _checked_labels(
  name: str, labels: np.ndarray, num_images: int, num_classes: int
) -> np.ndarray:
  labels = np.asarray(labels)
  if not np.issubdtype(labels.dtype, np.integer):
    raise TypeError(f'{name}: expected integer labels, found {labels.dtype}.')
  if labels.shape != (num_images,):
    raise ValueError(
      f'{name}: expected one label for each of {num_images} images, found '
      f'labels of shape {labels.shape}.'
    )
  bad = (labels < 0) | (labels >= num_classes)
  if bad.any():
    first = bad.argmax()
    raise ValueError(
      f'{name}: expected labels in [0, {num_classes}), found '
      f'{labels[first]} at example {first} ({bad.sum()} such labels).'
    )
  return labels.astype(np.int32)


def digits() -> Source:
  """Returns scikit-learn's 1797 handwritten digits, 8x8, in their order.

  They come with scikit-learn: no file and no network. Pixels are 0..16;
  models see (x / 16 - 0.5) / 0.5.
  """
  from sklearn import datasets  # Slow to import, and only needed here.

  images, labels = datasets.load_digits(return_X_y=True)
  return Source(
    name='digits',
    images=images.reshape(-1, 8, 8, 1).astype(np.uint8),
    labels=labels,
    class_names=tuple(map(str, range(10))),
    scale=1.0 / 8.0,
  )


def from_arrays(
  images: np.ndarray,
  labels: np.ndarray,
  *,
  num_classes: Optional[int] = None,
  num_train: Optional[int] = None,
  name: str = 'arrays',
  scale: Optional[float] = None,
  offset: Optional[float] = None,
) -> Source:
  """Makes a source of own arrays.

  Args:
    images: uint8 or float32[num_examples, height, width(, channels)].
    labels: int[num_examples].
    num_classes: By default the largest label + 1.
    num_train: See `Source`.
    name: See `Source`.
    scale: See `Source`; by default 1 / 127.5 for uint8 and 1 for float32.
    offset: By default -1 for uint8 and 0 for float32.

  Raises:
    ValueError, TypeError: See `Source`.
  """
  images, labels = np.asarray(images), np.asarray(labels)
  if images.ndim == 3:
    images = images[..., np.newaxis]
  if num_classes is None:
    num_classes = int(labels.max(initial=-1)) + 1
  is_uint8 = images.dtype == np.uint8
  if scale is None:
    scale = 1.0 / 127.5 if is_uint8 else 1.0
  if offset is None:
    offset = -1.0 if is_uint8 else 0.0
  return Source(
    name=name,
    images=images,
    labels=labels,
    class_names=tuple(map(str, range(num_classes))),
    num_train=num_train,
    scale=scale,
    offset=offset,
  )


def npz_file(path: str) -> Source:
  """Reads arrays `x` and `y` (and perhaps `num_train`) of an `.npz` file.

  Raises:
    FileNotFoundError: If there is no such file.
    ValueError: If it is no `.npz` file, or arrays are missing or unsuitable.
  """
  if not os.path.isfile(path):
    raise FileNotFoundError(f'No data file at {path!r}.')
  if not zipfile.is_zipfile(path):
    raise ValueError(
      f'{path!r} is not an .npz file; np.savez(path, x=images, y=labels) '
      'writes one.'
    )
  with np.load(path) as arrays:
    missing = {'x', 'y'} - set(arrays.files)
    if missing:
      raise ValueError(
        f'{path!r}: expected arrays x (images) and y (labels), found '
        f'{arrays.files}.'
      )
    num_train = (
      int(arrays['num_train']) if 'num_train' in arrays.files else None
    )
    try:
      return from_arrays(
        arrays['x'],
        arrays['y'],
        num_train=num_train,
        name=os.path.basename(path),
      )
    except TypeError as error:
      # Of a file, a wrong dtype is a wrong value.
      raise ValueError(str(error)) from error


def tfds(
  name: str, *, data_dir: Optional[str] = None, download: bool = False
) -> Source:
  """Reads a TensorFlow data set, train and test split merged in this order.

  Args:
    name: A TFDS image classification data set with splits `train` and `test`.
    data_dir: Where TFDS keeps its data; by default TFDS's own choice
      (`$TFDS_DATA_DIR` or `~/tensorflow_datasets`).
    download: Whether to download and prepare what is missing.

  Raises:
    FileNotFoundError: If the data are not there and `download` is False.
  """
  import tensorflow_datasets  # Slow to import, and only needed here.

  if data_dir is not None and not download and not os.path.isdir(data_dir):
    raise FileNotFoundError(
      f'No data directory at {data_dir!r} (--data_dir), looked for '
      f'{name!r} there.'
    )
  builder = tensorflow_datasets.builder(name, data_dir=data_dir)
  if download:
    builder.download_and_prepare()
  elif not os.path.exists(
    os.path.join(str(builder.data_path), 'dataset_info.json')
  ):
    raise FileNotFoundError(
      f'The data set {name!r} is not prepared at {str(builder.data_path)!r}. '
      'Point --data_dir (or $TFDS_DATA_DIR) at a directory that holds '
      f'{name}/<version>/, or let TFDS download it with --download.'
    )
  images, labels, num_train = [], [], 0
  for split in ('train', 'test'):
    # In batches: TFDS's own "everything at once" needs several times the
    # memory of the result.
    dataset = builder.as_dataset(split=split, shuffle_files=False)
    for batch in dataset.batch(1024).as_numpy_iterator():
      images.append(batch['image'])
      labels.append(batch['label'])
      num_train += len(batch['label']) if split == 'train' else 0
  return Source(
    name=name,
    images=np.concatenate(images),
    labels=np.concatenate(labels),
    class_names=tuple(builder.info.features['label'].names),
    num_train=num_train,
  )


def image_folder(path: str, *, image_size: int = 32) -> Source:
  """Reads a tree `class/image.png`, classes and files in sorted order.

  Args:
    path: A folder with one folder per class.
    image_size: All images are resized to this many pixels square, in RGB.

  Raises:
    FileNotFoundError: If there is no such folder.
    ValueError: If it holds fewer than two classes, a class has no image, or a
      file is not a readable image.
  """
  import PIL.Image  # Only needed here.

  if not os.path.isdir(path):
    raise FileNotFoundError(f'No image folder at {path!r} (--data_dir).')
  class_names = sorted(
    entry.name
    for entry in os.scandir(path)
    if entry.is_dir() and not entry.name.startswith('.')
  )
  if len(class_names) < 2:
    raise ValueError(
      f'{path!r}: expected one folder per class, at least two, found '
      f'{class_names}.'
    )
  images, labels = [], []
  for label, class_name in enumerate(class_names):
    folder = os.path.join(path, class_name)
    files = sorted(
      file
      for file in os.listdir(folder)
      if file.lower().endswith(_IMAGE_ENDINGS)
    )
    if not files:
      raise ValueError(
        f'The class folder {folder!r} has no image '
        f'({", ".join(_IMAGE_ENDINGS)}). Remove it, or add some.'
      )
    for file in files:
      try:
        with PIL.Image.open(os.path.join(folder, file)) as image:
          image = image.convert('RGB').resize(
            (image_size, image_size), PIL.Image.Resampling.BILINEAR
          )
      except OSError as error:
        raise ValueError(
          f'{os.path.join(folder, file)!r} is not a readable image: {error}. '
          'Remove or replace it.'
        ) from error
      images.append(np.asarray(image))
      labels.append(label)
  return Source(
    name=os.path.basename(os.path.normpath(path)),
    images=np.stack(images),
    labels=np.array(labels, np.int32),
    class_names=tuple(class_names),
  )


DATASETS = ('digits', *_TFDS_NAMES, 'image_folder', 'npz')


def load(
  dataset: str,
  *,
  data_dir: Optional[str] = None,
  download: bool = False,
  image_size: Optional[int] = None,
) -> Source:
  """Returns a source by name.

  Args:
    dataset: One of `DATASETS`.
    data_dir: The TFDS directory, the image folder, or the `.npz` file.
    download: Whether TFDS may download what is missing.
    image_size: Of `image_folder`, pixels square.

  Raises:
    ValueError: For an unknown name, or if `data_dir` is needed and missing.
    FileNotFoundError: If the data are not there.
  """
  if dataset == 'digits':
    return digits()
  if dataset in _TFDS_NAMES:
    return tfds(dataset, data_dir=data_dir, download=download)
  if dataset not in DATASETS:
    raise ValueError(
      f'Unknown dataset {dataset!r}; known: {", ".join(DATASETS)}.'
    )
  if not data_dir:
    raise ValueError(
      f'The dataset {dataset!r} needs data_dir, the path of the '
      f'{"folder" if dataset == "image_folder" else "file"}.'
    )
  if dataset == 'npz':
    return npz_file(data_dir)
  return image_folder(data_dir, image_size=image_size or 32)
