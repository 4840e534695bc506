"""Partition files: whose examples the indices count, and in which order.

A file holds arrays `train_i` and `test_i` for clients i = 0, 1, …, and perhaps
`global_test_<name>`: positions of examples, or text, their ids. `order`,
`labels_sha256` and `class_counts` say which data set the positions count.
"""

from collections.abc import Callable, Mapping, Sequence
import hashlib
from typing import Any, NamedTuple, Optional

import numpy as np

from tff_fedsa import files
from tff_fedsa.data import npz
from tff_fedsa.runs import errors

# Names of arrays.
_GLOBAL_TEST = 'global_test_'
_CLIENTS = ('train_', 'test_')
_ORDER, _CHECKSUM, _COUNTS = 'order', 'labels_sha256', 'class_counts'


class Origin(NamedTuple):
  """The data set whose examples indices count, and their order.

  Attributes:
    order: In words, for people, e.g. 'cifar10, as TFDS has it'.
    labels_sha256: SHA-256 of all labels as little-endian int32, in that order.
    class_counts: int64[num_classes], the examples of each class.
  """

  order: str
  labels_sha256: str
  class_counts: np.ndarray


def origin_of(labels: np.ndarray, order: str) -> Origin:
  """Returns the origin of indices into examples with these labels.

  Args:
    labels: int[num_examples], in `[0, num_classes)`.
    order: See `Origin`.
  """
  content = np.ascontiguousarray(labels, '<i4').tobytes()
  digest = hashlib.sha256(content).hexdigest()
  return Origin(order, digest, np.bincount(labels))


class Contents(NamedTuple):
  """Content of a partition file, as the arguments of `partition.Partition`.

  Attributes:
    train: One int64 array per client.
    test: The same; arrays that are equal are one.
    global_test: By name, int64 arrays.
    origin: Origin of the data, else of the file; None if neither is known.
    notices: Notices for the user.
  """

  train: tuple[np.ndarray, ...]
  test: tuple[np.ndarray, ...]
  global_test: Mapping[str, np.ndarray]
  origin: Optional[Origin]
  notices: tuple[str, ...]


def write(
  path: str,
  train: Sequence[np.ndarray],
  test: Sequence[np.ndarray],
  global_test: Mapping[str, np.ndarray],
  origin: Optional[Origin],
) -> None:
  """Writes a partition file atomically.

  Args:
    path: Path of the file.
    train: One int64 array per client.
    test: The same.
    global_test: By name, int64 arrays.
    origin: Whose examples the indices count.

  Raises:
    OSError: If writing fails; an old file stays as it was.
  """
  arrays: dict[str, Any] = {
    f'{_GLOBAL_TEST}{name}': own for name, own in global_test.items()
  }
  for prefix, parts in zip(_CLIENTS, (train, test)):
    for client, indices in enumerate(parts):
      arrays[f'{prefix}{client}'] = indices
  if origin is not None:
    arrays[_ORDER] = np.array(origin.order)
    arrays[_CHECKSUM] = np.array(origin.labels_sha256)
    arrays[_COUNTS] = origin.class_counts
  files.write_npz(path, arrays, compress=True)


def read(
  path: str,
  data: Optional[Origin] = None,
  *,
  ids_fn: Optional[Callable[[], np.ndarray]] = None,
) -> Contents:
  """Reads a partition file.

  Args:
    path: Path of the file. A file without an origin is read with a notice.
    data: Data to compare with the file's origin; None compares nothing.
    ids_fn: Reads the ids of these data, text[num_examples].

  Raises:
    FileNotFoundError: If there is no such file.
    ValueError: If it is not a partition file, or was made for other data or
      another order of them; file and array are named.
  """
  arrays, names = npz.read(path, _is_ours, what='partition file')
  num_clients = sum(name.startswith(_CLIENTS[0]) for name in names)
  wanted = [f'{p}{client}' for p in _CLIENTS for client in range(num_clients)]
  missing = [name for name in wanted if name not in arrays]
  if missing or not wanted:
    raise errors.UserError(
      f'{path!r} is not a partition file: expected arrays train_0, test_0, '
      f'train_1, …, and {(missing or ["train_0"])[0]!r} is missing.'
    )
  origin = _origin(path, arrays)
  # Ids say which examples they mean in any order.
  has_positions = any(arrays[name].dtype.kind not in 'SU' for name in wanted)
  notices: tuple[str, ...] = ()
  if data is not None and has_positions:
    if origin is None:
      notices = (
        f'{path!r} does not say which data set, in which order, its indices '
        f'count. They are taken as those of {data.order}.',
      )
    else:
      _compare(path, origin, data)
  indices = _indices(path, arrays, data, ids_fn)
  train, test = (
    tuple(indices[f'{prefix}{client}'] for client in range(num_clients))
    for prefix in _CLIENTS
  )
  global_test = {
    name.removeprefix(_GLOBAL_TEST): own
    for name, own in indices.items()
    if name.startswith(_GLOBAL_TEST)
  }
  return Contents(train, test, global_test, data or origin, notices)


def checked_indices(
  indices: Any, whose: str, what: str, advice: str = ''
) -> np.ndarray:
  """Returns indices as int64, checked as far as that takes no data.

  Args:
    indices: Whole numbers of any dtype `[n]`, n >= 1.
    whose: Begins messages, e.g. 'Client 3 has'.
    what: Name of the ids' meaning, e.g. 'train example'.
    advice: Ends the message where there are none.

  Raises:
    ValueError: If there is none, or they are of another shape, no whole numbers
      or negative.
  """
  indices = np.asarray(indices)
  if indices.ndim == 1 and not indices.size:
    raise errors.UserError(f'{whose} no {what}. {advice}'.rstrip())
  if indices.ndim != 1:
    raise errors.UserError(
      f'{whose} {what}s of shape {indices.shape}: expected one axis of indices.'
    )
  if indices.dtype.kind not in 'iu':
    raise errors.UserError(
      f'{whose} {what}s that are no indices: expected integers, found '
      f'{indices.dtype}, e.g. {indices[0]!r}.'
    )
  # An unsigned number that int64 does not hold becomes negative.
  indices = indices.astype(np.int64, copy=False)
  if indices.min() < 0:
    raise errors.UserError(f'{whose} a negative {what} index, {indices.min()}.')
  return indices


def _is_ours(name: str) -> bool:
  return name in (_ORDER, _CHECKSUM, _COUNTS) or name.startswith(
    (*_CLIENTS, _GLOBAL_TEST)
  )


def _indices(
  path: str,
  arrays: Mapping[str, np.ndarray],
  data: Optional[Origin],
  ids_fn: Optional[Callable[[], np.ndarray]],
) -> dict[str, np.ndarray]:
  """Returns the arrays of indices, checked one by one, ids looked up."""
  # A test set of many clients is one array again, and one copy of its images.
  known: dict[bytes, np.ndarray] = {}
  number_of: dict[str, int] = {}
  checked = {}
  for name, own in arrays.items():
    if not name.startswith((*_CLIENTS, _GLOBAL_TEST)):
      continue
    where = f'{path!r}: the array {name!r}'
    if own.dtype.kind in 'SU' and own.ndim == 1 and own.size:
      if ids_fn is None:
        raise errors.UserError(
          f'{where} holds text, but these data have no ids of examples: '
          'expected integers, their positions.'
        )
      number_of = number_of or _by_id(ids_fn())
      own = _looked_up(own, number_of, where)
    own = checked_indices(own, f'{where} has', 'example')
    if data is not None and own.max() >= data.class_counts.sum():
      raise errors.UserError(
        f'{where} has the index {own.max()}, but {data.order} has '
        f'{data.class_counts.sum()} examples: the file was made for other data.'
      )
    checked[name] = known.setdefault(own.tobytes(), own)
  return checked


def _by_id(ids: np.ndarray) -> dict[str, int]:
  number_of = {str(one): number for number, one in enumerate(ids)}
  if len(number_of) != len(ids):
    raise errors.UserError(
      f'The data have {len(ids)} examples and {len(number_of)} distinct ids: a '
      'partition file of ids cannot be used.'
    )
  return number_of


def _looked_up(
  ids: np.ndarray, number_of: Mapping[str, int], where: str
) -> np.ndarray:
  if ids.dtype.kind == 'S':
    ids = np.char.decode(ids, 'utf-8')
  unknown = [one for one in ids.tolist() if one not in number_of]
  if unknown:
    raise errors.UserError(
      f'{where} has {len(unknown)} unknown ids, e.g. {unknown[0]!r}; the data '
      f'have ids such as {next(iter(number_of), None)!r}.'
    )
  return np.array([number_of[one] for one in ids.tolist()], np.int64)


def _origin(path: str, arrays: Mapping[str, np.ndarray]) -> Optional[Origin]:
  if _CHECKSUM not in arrays:
    return None
  counts = arrays.get(_COUNTS, np.array([], np.int64))
  if (
    arrays[_CHECKSUM].shape
    or arrays[_CHECKSUM].dtype.kind != 'U'
    or counts.ndim != 1
    or counts.dtype.kind not in 'iu'
  ):
    raise errors.UserError(
      f'{path!r}: expected {_CHECKSUM!r} to be text and {_COUNTS!r} integers.'
    )
  order = str(arrays.get(_ORDER, 'an order that the file does not name'))
  return Origin(order, str(arrays[_CHECKSUM]), counts)


def _compare(path: str, origin: Origin, data: Origin) -> None:
  """Refuses a file whose positions count other examples than the data's."""
  if origin.labels_sha256 == data.labels_sha256:
    return
  same_counts = np.array_equal(origin.class_counts, data.class_counts)
  how = 'the same labels in another order' if same_counts else 'other labels'
  raise errors.UserError(
    f'{path!r} was made for other data, or for another order of them: its '
    f'indices count {origin.order} ({origin.class_counts.sum()} examples); the '
    f'data are {data.order} ({data.class_counts.sum()} examples), {how}.'
  )
