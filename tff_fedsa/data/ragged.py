"""Series of unequal length as one array, with a mask.

A masked series has one more channel, the last one: 1 in the steps of the
series, and 0 in those that pad its end. The other channels of padding are 0. So
each example is still one tensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Optional

import numpy as np

from tff_fedsa.runs import errors


class Padded(NamedTuple):
  """Inputs of one length.

  Attributes:
    inputs: float32[num_examples, steps, channels + 1], masked series; or
      integers[num_examples, length], tokens, for which 0 is padding.
    masked: Whether the last channel is a mask.
    notice: What was done, for the user.
  """

  inputs: np.ndarray
  masked: bool
  notice: str


def is_ragged(inputs: Any) -> bool:
  """Returns whether inputs are arrays or lists that differ in length."""
  if isinstance(inputs, np.ndarray):
    if inputs.dtype != object:
      return False
  elif not isinstance(inputs, list | tuple):
    return False
  lengths = set()
  for value in inputs:
    if isinstance(value, np.ndarray):
      if not value.ndim:
        return False
    elif not isinstance(value, list | tuple):
      return False
    lengths.add(len(value))
  return len(lengths) > 1


def padded(
  inputs: Any,
  what: str,
  *,
  series_length: Optional[int] = None,
  sequence_length: Optional[int] = None,
) -> Optional[Padded]:
  """Returns inputs of unequal length as one array; None of other inputs.

  Args:
    inputs: For each example, a series [steps, channels], a series of one
      channel [steps], or tokens [length], which are integers.
    what: Whose inputs they are, for messages.
    series_length: Steps that series are padded or cut to. Series of equal
      length get a mask only if it is given. Default: the longest series.
    sequence_length: Tokens of an example at most.

  Raises:
    ValueError: If an example has no step, or other axes or channels than the
      first; it is named.
    TypeError: If an example holds no numbers; it is named.
  """
  is_dense = getattr(inputs, 'ndim', 0) == 3 and inputs.dtype.kind == 'f'
  if not is_ragged(inputs) and not (is_dense and series_length is not None):
    return None
  arrays = [_numbers(value, what, i) for i, value in enumerate(inputs)]
  _check(arrays, what)
  lengths = np.array([len(array) for array in arrays])
  longest = int(lengths.max())
  dtype = np.result_type(*{array.dtype for array in arrays})
  if arrays[0].ndim == 1 and dtype.kind in 'iu' and dtype != np.uint8:
    length = min(longest, sequence_length or longest)
    tokens = np.zeros((len(arrays), length), dtype)
    for row, array in zip(tokens, arrays):
      row[: len(array)] = array[:length]
    notice = _notice(what, 'examples', 'tokens', lengths, length)
    return Padded(tokens, False, f'{notice}.')
  length = series_length or longest
  notice = _notice(what, 'series', 'steps', lengths, length)
  return Padded(
    pad_series(arrays, length), True, f'{notice}. Their last channel is a mask.'
  )


def pad_series(series: Sequence[Any], length: int) -> np.ndarray:
  """Returns masked series, e.g. for `predict` of a client's result.

  Args:
    series: For each example, numbers [steps, channels] or [steps].
    length: Steps of the result. Longer series are cut.

  Returns:
    float32[num_examples, length, channels + 1], the mask being last.
  """
  with np.errstate(over='ignore'):  # Infinity is refused later on.
    arrays = [np.asarray(one).astype(np.float32) for one in series]
  arrays = [one[:, None] if one.ndim == 1 else one for one in arrays]
  result = np.zeros((len(arrays), length, arrays[0].shape[1] + 1), np.float32)
  for row, array in zip(result, arrays):
    steps = min(len(array), length)
    row[:steps, :-1] = array[:steps]
    row[:steps, -1] = 1.0
  return result


def real_steps(series: np.ndarray) -> np.ndarray:
  """Returns the steps of masked series, without padding and mask.

  Args:
    series: float32[num_examples, steps, channels + 1].

  Returns:
    float32[num_steps, channels].
  """
  return series[..., :-1][series[..., -1] > 0]


def filled(series: np.ndarray) -> np.ndarray:
  """Returns masked series whose padding repeats the first step, unmasked.

  Args:
    series: float32[num_examples, steps, channels + 1].

  Returns:
    float32[num_examples, steps, channels]. Their values are those of the steps.
  """
  values, mask = series[..., :-1], series[..., -1:]
  return np.where(mask > 0, values, values[:, :1])


def as_array(value: Any) -> np.ndarray:
  """Returns lists of lists as an array; Parquet's are arrays of arrays.

  Raises:
    ValueError: If they differ in length.
  """
  if isinstance(value, np.ndarray) and value.dtype != object:
    return value
  return np.array([as_array(v) if np.ndim(v) else v for v in value])


def _numbers(value: Any, what: str, index: int) -> np.ndarray:
  """Returns an example as an array of numbers."""
  if np.ma.is_masked(value):
    raise errors.UserError(
      f'{what}: some numbers of example {index} are masked. Fill them.'
    )
  try:
    array = as_array(value)
  except ValueError as error:
    raise errors.UserError(
      f'{what}: the steps of example {index} differ in their number of '
      'channels.'
    ) from error
  if array.size and array.dtype.kind not in 'fiub':
    raise TypeError(
      f'{what}: expected numbers, found {array.dtype} in example {index}.'
    )
  return array


def _check(arrays: Sequence[np.ndarray], what: str) -> None:
  """Raises an error if examples are empty or do not fit each other."""
  empty = [index for index, array in enumerate(arrays) if not array.size]
  if empty:
    raise errors.UserError(
      f'{what}: {len(empty)} of {len(arrays)} examples have no step; the first '
      f'is example {empty[0]}. Leave them out.'
    )
  first = arrays[0]
  for index, array in enumerate(arrays):
    if array.shape[1:] != first.shape[1:] or array.ndim != first.ndim:
      raise errors.UserError(
        f'{what}: expected series of as many channels each, found shape '
        f'{first.shape} of example 0 and {array.shape} of example {index}.'
      )
  if first.ndim > 2:
    raise errors.UserError(
      f'{what}: only series [steps, channels] and tokens may differ in length, '
      f'found inputs of {first.ndim} axes, e.g. {first.shape}. Bring images to '
      'one size.'
    )
  if first.ndim == 2 and first.dtype == np.uint8:
    raise errors.UserError(
      f'{what}: inputs of uint8 with two axes are grey images, which cannot '
      f'differ in size; found {first.shape}. Series are floats: '
      'x.astype(np.float32).'
    )


def _notice(
  what: str, examples: str, unit: str, lengths: np.ndarray, length: int
) -> str:
  shorter, longer = np.sum(lengths < length), np.sum(lengths > length)
  return (
    f'{what}: {len(lengths)} {examples} of {lengths.min()} to {lengths.max()} '
    f'{unit} have {length} now: {shorter} are padded at their end, {longer} '
    'were cut'
  )
