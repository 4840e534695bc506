"""Image classification data sets of TensorFlow Datasets."""

from collections.abc import Callable
import hashlib
import os
from typing import Any, Optional

import numpy as np

from tff_fedsa.data import array_cache
from tff_fedsa.data import sources
from tff_fedsa.runs import errors

# The test set is the split `test`. Most data sets have one more split, `train`.
_TRAIN_SPLITS = {'sun397': ('train', 'validation')}

# Default size for data sets with images of different sizes.
DEFAULT_IMAGE_SIZE = 64


def read(
  name: str,
  *,
  data_dir: Optional[str] = None,
  download: bool = False,
  image_size: Optional[int] = None,
  cache_dir: Optional[str] = None,
) -> sources.Source:
  """Reads a TensorFlow data set, train and test split merged in this order.

  The validation split of SUN397 joins the train set. EMNIST is turned upright,
  because TFDS has it transposed. The labels 1..26 of `emnist/letters` become
  0..25.

  Args:
    name: A TFDS image classification data set with `image` and `label`, perhaps
      with a config: `name/config`.
    data_dir: TFDS's data directory. Default: `$TFDS_DATA_DIR` or
      `~/tensorflow_datasets`.
    download: Whether to download and prepare missing data.
    image_size: Height and width for data sets with images of different sizes
      (bilinear, with antialiasing). Other images keep their size.
    cache_dir: See `array_cache.load_or_build`.

  Raises:
    FileNotFoundError: If the data are missing and `download` is False.
    ValueError: If the data are damaged.
  """
  import tensorflow as tf  # Slow to import, and only needed here.

  builder = prepared(name, data_dir=data_dir, download=download)
  path = str(builder.data_path)
  image_size = _size_to_resize_to(builder, image_size)
  splits = _datasets(builder, image_size)
  num_examples = {s: int(d.cardinality()) for s, d in splits.items()}
  total = sum(num_examples.values())

  def build(allocate):
    shape = splits['test'].element_spec['image'].shape
    images = allocate('images', (total, *shape), np.uint8)
    labels = allocate('labels', (total,), np.int32)
    start = 0
    for dataset in splits.values():
      # Read in batches, because TFDS needs several times the memory of the
      # result to read everything at once.
      try:
        for batch in dataset.batch(256).as_numpy_iterator():
          end = start + len(batch['label'])
          images[start:end], labels[start:end] = batch['image'], batch['label']
          start = end
      except tf.errors.OpError as error:
        raise errors.UserError(
          f'The data set {name!r} at {path!r} is damaged after example '
          f'{start}: {error.message}. Delete it and prepare it again.'
        ) from error

  where = hashlib.sha256(path.encode()).hexdigest()[:8]
  size = '' if image_size is None else f'-{image_size}px'
  arrays = array_cache.load_or_build(
    build,
    name=f'{name.replace("/", "_")}{size}-{where}',
    files=_files(path) if cache_dir is not None else (),
    cache_dir=cache_dir,
  )
  labels = arrays['labels']
  class_names = tuple(builder.info.features['label'].names)
  if name == 'emnist/letters':
    labels, class_names = labels - 1, tuple('abcdefghijklmnopqrstuvwxyz')
  return sources.Source(
    name=name,
    images=arrays['images'],
    labels=labels,
    class_names=class_names,
    num_train=total - num_examples['test'],
    sorted_as='as TFDS has them, train before test',
    ids_fn=_ids_fn(builder),
  )


def prepared(
  name: str, *, data_dir: Optional[str] = None, download: bool = False
) -> Any:
  """Returns TFDS's builder of a data set that is prepared.

  Args:
    name: See `read`.
    data_dir: See `read`.
    download: See `read`.

  Raises:
    FileNotFoundError: If the data are missing and `download` is False.
    ValueError: If TFDS knows no such data set.
  """
  import tensorflow_datasets  # Slow to import, and only needed here.

  if data_dir is not None and not download and not os.path.isdir(data_dir):
    raise FileNotFoundError(
      f'No data directory at {data_dir!r} (--data_dir), looked for '
      f'{name!r} there.'
    )
  try:
    builder = tensorflow_datasets.builder(name, data_dir=data_dir)
  except (tensorflow_datasets.core.DatasetNotFoundError, ValueError) as error:
    raise errors.UserError(
      f'TFDS has no data set {name!r}: {str(error).strip().splitlines()[0]}'
    ) from error
  path = str(builder.data_path)
  if download:
    builder.download_and_prepare()
  elif not os.path.exists(os.path.join(path, 'dataset_info.json')):
    raise FileNotFoundError(
      f'The data set {name!r} is not prepared at {path!r}. '
      'Point --data_dir (or $TFDS_DATA_DIR) at a directory that holds '
      f'{name}/<version>/, or let TFDS download it with --download.'
    )
  return builder


def _ids_fn(builder: Any) -> Optional[Callable[[], np.ndarray]]:
  """Returns a function that reads TFDS's ids, e.g. 'train_00007', or None.

  CIFAR's ids count the examples in the original order.
  """
  import tensorflow_datasets

  if 'id' not in builder.info.features:
    return None

  def read_ids():
    splits = (*_TRAIN_SPLITS.get(builder.name, ('train',)), 'test')
    ids = []
    for split in splits:
      dataset = builder.as_dataset(
        split=split,
        shuffle_files=False,
        decoders={'image': tensorflow_datasets.decode.SkipDecoding()},
      )
      ids += dataset.map(lambda example: example['id']).as_numpy_iterator()
    return np.array([one.decode() for one in ids])

  return read_ids


def _size_to_resize_to(builder: Any, asked: Optional[int]) -> Optional[int]:
  shape = builder.info.features['image'].shape
  return (asked or DEFAULT_IMAGE_SIZE) if None in shape else None


def _datasets(builder: Any, image_size: Optional[int]) -> dict[str, Any]:
  """Returns the data set of each split, with images of one size."""
  import tensorflow as tf

  def prepare(example):
    image = example['image']
    if image_size is not None:
      image = tf.image.resize(image, [image_size] * 2, antialias=True)
      image = tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8)
    if builder.name == 'emnist':
      image = tf.transpose(image, [1, 0, 2])
    return {'image': image, 'label': example['label']}

  train = _TRAIN_SPLITS.get(builder.name, ('train',))
  return {
    split: builder.as_dataset(split=split, shuffle_files=False).map(
      prepare, num_parallel_calls=tf.data.AUTOTUNE
    )
    for split in (*train, 'test')
  }


def _files(path: str) -> list[str]:
  return sorted(entry.path for entry in os.scandir(path) if entry.is_file())
