"""Checks labels of every source, and maps them to classes."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Optional

import numpy as np

from tff_fedsa.runs import errors

# More classes than any data set of images has; heads, anchors and messages
# grow with them.
MAX_CLASSES = 100_000

# With more distinct values than this there must be two examples of each, on
# average, or the values number the examples.
_FEW = 100


class Classes(NamedTuple):
  """Labels as classes.

  Attributes:
    labels: int32[num_examples], in `[0, len(names))`.
    names: One per class.
    notices: Notices for the user; often empty.
  """

  labels: np.ndarray
  names: tuple[str, ...]
  notices: tuple[str, ...] = ()


def classes(
  values: Any, what: str, *, num_classes: Optional[int] = None
) -> Classes:
  """Makes classes of the distinct values of labels, in their order.

  Whole numbers 0 … C - 1 stay as they are. Other whole numbers (ids, gaps,
  negative ones) become classes by value, with a notice; text becomes class
  names.

  Args:
    values: Labels `[num_examples]` or `[num_examples, 1]`: whole numbers of any
      dtype, booleans, or text.
    what: Whose labels they are, for messages.
    num_classes: C, if it is known: numbers are in `[0, num_classes)` then, and
      text has that many distinct values.

  Raises:
    ValueError: If they have another shape, are fractional, missing or out of
      range, or have too many distinct values; an example is named.
    TypeError: For other dtypes.
  """
  values = _flat(values, what)
  if num_classes is not None:
    if not _is_text(values):
      labels = numbered(values, num_classes, what)
      return Classes(labels, _numbers(num_classes))
    found = classes(values, what)
    if len(found.names) != num_classes:
      raise errors.UserError(
        f'{what}: expected num_classes={num_classes} distinct labels, found '
        f'{len(found.names)}: {_few(found.names)}.'
      )
    return found
  if _is_text(values):
    distinct, labels = _distinct(values, what)
    names = [str(value) for value in distinct]
    if all(name.isdecimal() for name in names):
      # '10' comes after '9'.
      order = sorted(range(len(names)), key=lambda i: (int(names[i]), names[i]))
      rank = np.argsort(order)
      names, labels = [names[i] for i in order], rank[labels]
    return Classes(labels.astype(np.int32), tuple(names))
  if values.dtype == bool:
    return Classes(values.astype(np.int32), ('False', 'True'))
  values = _whole(values, what)
  if not values.size:
    return Classes(values.astype(np.int32), ())
  low, high = int(values.min()), int(values.max())
  if low == 0 and high < len(values):
    counts = np.bincount(values.astype(np.int64))
    if counts.all():
      _check_number(np.arange(len(counts)), len(values), what)
      return Classes(values.astype(np.int32), _numbers(len(counts)))
  distinct, labels = _distinct(values, what)
  names = [str(value) for value in distinct]
  notice = (
    f'{what}: the {len(names)} distinct labels are not 0 to {len(names) - 1}. '
    f'They became these classes, in this order: {_few(names)}.'
  )
  return Classes(labels.astype(np.int32), tuple(names), (notice,))


def numbered(
  values: Any, limit: int, what: str, *, kind: str = 'label'
) -> np.ndarray:
  """Returns labels that are class numbers already, checked.

  Args:
    values: Whole numbers of any dtype, `[num_examples]` or `[num_examples, 1]`.
    limit: The number of classes.
    what: Whose labels they are, for messages.
    kind: Name of the labels in messages.

  Returns:
    int32[num_examples], in `[0, limit)`.

  Raises:
    ValueError: If they have another shape, are fractional or out of range; the
      first bad example is named.
    TypeError: If they are not numbers.
  """
  if not 0 <= limit <= MAX_CLASSES:
    raise errors.UserError(
      f'{what}: expected at most {MAX_CLASSES:,} classes, found {limit:,}.'
    )
  values = _flat(values, what, kind)
  if _is_text(values):
    raise TypeError(
      f'{what}: expected integer {kind}s, found text, e.g. {str(values[0])!r}.'
    )
  values = _whole(values, what, kind)
  bad = (values < 0) | (values >= limit)
  if bad.any():
    first = bad.argmax()
    raise errors.UserError(
      f'{what}: expected {kind}s in [0, {limit}), found {values[first]} at '
      f'example {first} ({bad.sum()} such {kind}s).'
    )
  return values.astype(np.int32)


def checked(
  values: Any, what: str, num_classes: Optional[int] = None
) -> np.ndarray:
  """Returns some of the labels of a data set, to be joined for `classes`.

  Args:
    values: See `classes`.
    what: Whose labels they are, for messages.
    num_classes: See `classes`.

  Raises:
    ValueError, TypeError: See `classes`.
  """
  values = _flat(values, what)
  if _is_text(values) or values.dtype == bool:
    return values
  if num_classes is not None:
    return numbered(values, num_classes, what)
  return _whole(values, what)


def named(values: Any, names: Sequence[str], what: str) -> np.ndarray:
  """Returns labels that are numbers or names of known classes, as numbers.

  Args:
    values: See `numbered`; or text, each one of `names`.
    names: One per class.
    what: Whose labels they are, for messages.

  Raises:
    ValueError, TypeError: See `numbered`.
  """
  flat = _flat(values, what)
  if not _is_text(flat):
    return numbered(flat, len(names), what)
  number_of = {name: number for number, name in enumerate(names)}
  distinct, inverse = np.unique(flat, return_inverse=True)
  numbers = [number_of.get(str(value), -1) for value in distinct]
  if -1 in numbers:
    raise errors.UserError(
      f'{what}: unknown class {str(distinct[numbers.index(-1)])!r}; known: '
      f'{_few(names)}.'
    )
  return np.array(numbers, np.int32)[inverse]


def for_partition(values: Any) -> np.ndarray:
  """Returns labels as partitions take them: small whole numbers.

  Gaps stay, so that a class without examples has its draws, too.

  Raises:
    ValueError, TypeError: See `classes`.
  """
  what = 'partition'
  values = _flat(values, what)
  if not _is_text(values) and values.dtype != bool:
    values = _whole(values, what)
    if values.size and values.min() >= 0 and values.max() < MAX_CLASSES:
      return values.astype(np.int64)
  return classes(values, what).labels


def _flat(values: Any, what: str, kind: str = 'label') -> np.ndarray:
  """Returns labels as an array of numbers, booleans or text, of one axis."""
  if np.ma.is_masked(values):
    raise errors.UserError(
      f'{what}: {np.ma.count_masked(values)} {kind}s are masked. Leave these '
      'examples out.'
    )
  values = np.asarray(values)
  if values.ndim == 2 and values.shape[1] == 1:
    values = values[:, 0]
  if values.ndim != 1:
    advice = ''
    if values.ndim == 2 and values.size and values.dtype.kind in 'biuf':
      is_one_hot = (np.sort(values, axis=1)[:, :-1] == 0).all() and (
        values.max(axis=1) == 1
      ).all()
      advice = (
        ' They are one-hot: use labels.argmax(axis=1).' if is_one_hot else ''
      )
    raise errors.UserError(
      f'{what}: expected one {kind} for each example, found {kind}s of shape '
      f'{values.shape}.{advice}'
    )
  if values.dtype == object:
    values = _of_objects(values, what, kind)
  if values.dtype.kind == 'S':
    values = np.array([v.decode('utf-8', 'backslashreplace') for v in values])
  if values.dtype.kind not in 'biufU':
    raise TypeError(
      f'{what}: expected integer {kind}s or text, found {values.dtype}.'
    )
  return values


def _of_objects(values: np.ndarray, what: str, kind: str) -> np.ndarray:
  kinds = {type(value) for value in values}
  if all(issubclass(k, str) for k in kinds):
    return values.astype(str)
  if all(issubclass(k, bytes) for k in kinds):
    return np.array([v.decode('utf-8', 'backslashreplace') for v in values])
  if all(issubclass(k, int | np.integer) for k in kinds):
    # Integers that no dtype holds stay objects, and are refused.
    values = np.array(values.tolist())
    if values.dtype != object:
      return values
  names = ', '.join(sorted(k.__name__ for k in kinds))
  raise TypeError(
    f'{what}: expected integer {kind}s or text, found objects: {names}.'
  )


def _is_text(values: np.ndarray) -> bool:
  return values.dtype.kind == 'U'


def _whole(values: np.ndarray, what: str, kind: str = 'label') -> np.ndarray:
  """Returns whole numbers of a floating dtype as integers; refuses others."""
  if values.dtype.kind == 'b':
    return values.astype(np.int64)
  if values.dtype.kind != 'f':
    return values
  with np.errstate(invalid='ignore'):
    # Above 2 ** 53, floats skip whole numbers.
    bad = ~((np.floor(values) == values) & (np.abs(values) <= 2.0**53))
  if bad.any():
    first = bad.argmax()
    raise errors.UserError(
      f'{what}: expected integer {kind}s, found {values[first]} at example '
      f'{first} ({bad.sum()} such {kind}s).'
    )
  return values.astype(np.int64)


def _distinct(values: np.ndarray, what: str) -> tuple[np.ndarray, np.ndarray]:
  distinct, inverse = np.unique(values, return_inverse=True)
  _check_number(distinct, len(values), what)
  return distinct, inverse


def _check_number(distinct: np.ndarray, total: int, what: str) -> None:
  """Refuses values that number examples, files or measurements."""
  most = min(MAX_CLASSES, max(_FEW, total // 2))
  if len(distinct) > most:
    raise errors.UserError(
      f'{what}: expected labels of at most {most:,} classes for {total:,} '
      f'examples, found {len(distinct):,} distinct values: {_few(distinct)}. '
      'Are they labels?'
    )


def _numbers(count: int) -> tuple[str, ...]:
  return tuple(map(str, range(count)))


def _few(values: Any, most: int = 6) -> str:
  shown = [str(value) for value in values[:most]]
  return ', '.join(shown) + (', …' if len(values) > most else '')
