"""Data sets with their own clients: `tff.simulation.datasets`."""

import collections
from collections.abc import Callable, Sequence
import hashlib
import os
import sqlite3
from typing import Any, NamedTuple, Optional

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_fedsa.data import array_cache
from tff_fedsa.data import elements
from tff_fedsa.data import partition as partition_lib
from tff_fedsa.data import sources
from tff_fedsa.data import task_spec
from tff_fedsa.runs import errors

# Directory of TFF's downloads.
_DEFAULT_DIR = '~/.tff'

_LANDMARKS_SIZE = 64


class _Natural(NamedTuple):
  """A data set of TFF.

  Attributes:
    load_fn: `fn(folder, image_size)` returns train and test data like TFF: two
      `ClientData`, or a `ClientData` and a data set for all clients.
    files: Required files in the folder.
    loader: TFF's function that downloads the files.
    may_download: Whether we may call this function for a download.
    class_names: One per class.
    clients_have_tests: Whether train and test clients are the same.
  """

  load_fn: Callable[[str, Optional[int]], tuple[Any, Any]]
  files: tuple[str, ...]
  loader: str
  may_download: bool
  class_names: Sequence[str]
  clients_have_tests: bool = False


def load(
  spec: task_spec.TaskSpec,
) -> tuple[sources.Source, partition_lib.Partition]:
  """Loads `num_clients` of a data set's clients, drawn by `seed`.

  With `split`, test examples are the client's own: its test examples in the
  data set (EMNIST), or the rest of its examples after `train_fraction`. With
  `original`, all clients have the whole test set of the data set (for EMNIST,
  that of the drawn clients).

  Args:
    spec: `data_dir` is the `cache_dir` of `tff.simulation.datasets`, by default
      `~/.tff`. `partition` and its settings have no effect.

  Raises:
    FileNotFoundError: If the data are missing. The message names the download.
    ValueError: If the data are damaged, there are too few clients, or the test
      set is `per_domain`.
  """
  if spec.test_set == 'per_domain':
    raise errors.UserError(
      f"The dataset {spec.dataset!r} has no domains. Use test_set='split' or "
      "'original'."
    )
  natural = _DATASETS[spec.dataset]
  folder = os.path.expanduser(spec.data_dir or _DEFAULT_DIR)
  _check_files(spec, natural, folder)
  try:
    train, test = natural.load_fn(folder, spec.image_size)
  except OSError as error:
    raise FileNotFoundError(
      f'{natural.loader} could not download {spec.dataset!r}: {error}.'
    ) from error
  except (sqlite3.DatabaseError, tf.errors.OpError) as error:
    raise errors.UserError(
      f'{natural.files[0]} in {folder!r} is damaged: {error}. Delete it and '
      'download it again.'
    ) from error
  client_ids = _drawn(train.client_ids, spec)
  share_test = spec.test_set == 'original'
  if natural.clients_have_tests:
    tests = [test.create_tf_dataset_for_client(i) for i in client_ids]
  elif share_test:
    tests = [_whole(test)]
  else:
    tests = []
  datasets = [train.create_tf_dataset_for_client(i) for i in client_ids]

  def build(allocate):
    parts = [elements.stack(dataset) for dataset in (*datasets, *tests)]
    sizes = [len(part['y']) for part in parts]
    allocate('sizes', (len(sizes),), np.int64)[:] = sizes
    images = [part['x'].numpy() for part in parts]
    shape = (sum(sizes), *images[0].shape[1:])
    np.concatenate(images, out=allocate('images', shape, images[0].dtype))
    labels = [part['y'].numpy() for part in parts]
    np.concatenate(labels, out=allocate('labels', shape[:1], np.int32))

  what = repr((spec.dataset, folder, spec.image_size, client_ids, share_test))
  arrays = array_cache.load_or_build(
    build,
    name=f'{spec.dataset}-{hashlib.sha256(what.encode()).hexdigest()[:8]}',
    files=_listed(folder, natural.files),
    cache_dir=spec.cache_directory(),
  )
  is_uint8 = arrays['images'].dtype == np.uint8
  source = sources.from_arrays(
    arrays['images'],
    arrays['labels'],
    num_classes=len(natural.class_names),
    name=spec.dataset,
    # Floats are in [0, 1].
    scale=None if is_uint8 else 2.0,
    offset=-1.0,
    sorted_as=f'those of {len(client_ids)} clients drawn by seed {spec.seed}',
  )
  return source, _partition(spec, arrays['sizes'], len(client_ids))


def _drawn(client_ids: Sequence[str], spec: task_spec.TaskSpec) -> list[str]:
  if spec.num_clients > len(client_ids):
    raise errors.UserError(
      f'Expected num_clients <= {len(client_ids)}, the clients of '
      f'{spec.dataset!r}, found {spec.num_clients}.'
    )
  rng = np.random.RandomState(spec.seed)
  return sorted(rng.choice(sorted(client_ids), spec.num_clients, replace=False))


def _partition(
  spec: task_spec.TaskSpec, sizes: np.ndarray, num_clients: int
) -> partition_lib.Partition:
  """Returns indices into the clients' examples, train before test."""
  parts = np.split(np.arange(sizes.sum()), np.cumsum(sizes)[:-1])
  train, tests = parts[:num_clients], parts[num_clients:]
  if spec.test_set == 'original':
    whole = np.concatenate(tests)
    return partition_lib.Partition(
      tuple(train), (whole,) * num_clients, global_test={'test': whole}
    )
  if not tests:
    rng = np.random.RandomState(spec.seed)
    shuffled = [rng.permutation(part) for part in train]
    cuts = [int(np.ceil(spec.train_fraction * len(part))) for part in train]
    train = [part[:cut] for part, cut in zip(shuffled, cuts)]
    tests = [part[cut:] for part, cut in zip(shuffled, cuts)]
  return partition_lib.Partition(tuple(train), tuple(tests))


def _check_files(
  spec: task_spec.TaskSpec, natural: _Natural, folder: str
) -> None:
  missing = [
    file
    for file in natural.files
    if not os.path.exists(os.path.join(folder, file))
  ]
  if not missing or (spec.download and natural.may_download):
    return
  how = ' (or --download here)' if natural.may_download else ''
  raise FileNotFoundError(
    f'The dataset {spec.dataset!r} needs {" and ".join(missing)} in {folder!r} '
    f'(--data_dir). {natural.loader} downloads and puts it there{how}.'
  )


def _listed(folder: str, names: Sequence[str]) -> list[str]:
  """Returns files, and files in folders, sorted."""
  found = []
  for name in names:
    path = os.path.join(folder, name)
    if os.path.isdir(path):
      found += [os.path.join(path, file) for file in sorted(os.listdir(path))]
    else:
      found.append(path)
  return found


def _whole(test: Any) -> tf.data.Dataset:
  if isinstance(test, tf.data.Dataset):
    return test
  return test.create_tf_dataset_from_all_clients(seed=0)


def _landmarks(
  folder: str, image_size: Optional[int]
) -> tuple[tff.simulation.datasets.ClientData, tf.data.Dataset]:
  """Reads the files of landmarks that `gldv2.load_data` wrote.

  That function itself downloads half a terabyte if a file is missing.
  """
  size = [image_size or _LANDMARKS_SIZE] * 2
  features = {
    'image/encoded_jpeg': tf.io.FixedLenFeature([], tf.string),
    'class': tf.io.FixedLenFeature([], tf.int64),
  }

  def parse(record):
    example = tf.io.parse_single_example(record, features)
    image = tf.io.decode_jpeg(example['image/encoded_jpeg'], channels=3)
    image = tf.image.resize(image, size, antialias=True)
    return collections.OrderedDict(
      x=tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8),
      y=example['class'],
    )

  def read(path):
    return tf.data.TFRecordDataset(path).map(parse)

  train = tff.simulation.datasets.FilePerUserClientData.create_from_dir(
    os.path.join(folder, 'train'), read
  )
  return train, read(os.path.join(folder, 'test.tfRecord'))


_DIGITS = tuple('0123456789')
_LETTERS = tuple('ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz')
_SIMULATION = 'tff.simulation.datasets'
_EMNIST = 'emnist_all.sqlite'

_DATASETS = {
  'tff_emnist': _Natural(
    lambda folder, _: tff.simulation.datasets.emnist.load_data(
      only_digits=False, cache_dir=folder
    ),
    (_EMNIST,),
    f'{_SIMULATION}.emnist.load_data',
    True,
    _DIGITS + _LETTERS,
    clients_have_tests=True,
  ),
  'tff_emnist_digits': _Natural(
    lambda folder, _: tff.simulation.datasets.emnist.load_data(
      only_digits=True, cache_dir=folder
    ),
    (_EMNIST,),
    f'{_SIMULATION}.emnist.load_data',
    True,
    _DIGITS,
    clients_have_tests=True,
  ),
  'tff_cifar100': _Natural(
    lambda folder, _: tff.simulation.datasets.cifar100.load_data(
      cache_dir=folder
    ),
    ('cifar100.sqlite',),
    f'{_SIMULATION}.cifar100.load_data',
    True,
    tuple(map(str, range(100))),
  ),
  'tff_gldv2': _Natural(
    lambda folder, size: _landmarks(os.path.join(folder, 'gld23k'), size),
    ('gld23k/train', 'gld23k/test.tfRecord'),
    f'{_SIMULATION}.gldv2.load_data(gld23k=True)',
    False,
    tuple(map(str, range(203))),
  ),
  'tff_gldv2_160k': _Natural(
    lambda folder, size: _landmarks(os.path.join(folder, 'gld160k'), size),
    ('gld160k/train', 'gld160k/test.tfRecord'),
    f'{_SIMULATION}.gldv2.load_data()',
    False,
    tuple(map(str, range(2028))),
  ),
}
NAMES = tuple(_DATASETS)
