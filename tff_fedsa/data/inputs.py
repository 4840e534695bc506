"""Checks inputs of every source: errors for illegal, notices for odd ones."""

from collections.abc import Iterable
import math
from typing import Any, NamedTuple, Optional

import numpy as np

from tff_fedsa.data import input_spec as input_spec_lib
from tff_fedsa.data import ragged
from tff_fedsa.runs import errors

# Bytes that are looked at together; so much of arrays on disk is read in all.
_CHUNK_BYTES = 2**22
_MAPPED_BYTES = 2**27

# What models see is about [-1, 1] or of unit variance: values beyond this make
# training diverge, and inputs within such a range look all alike.
_LARGE = 10.0
_FLAT = 0.125

# Rows of an embedding, a few gigabytes with its gradient and momentum.
MAX_VOCABULARY = 1_000_000

# Dtypes that are stored as another one, which holds their values.
STORED_AS = {
  'bool': 'float32',
  'float16': 'float32',
  'float64': 'float32',
  'int8': 'int32',
  'int16': 'int32',
  'uint16': 'int32',
  'uint32': 'int64',
}

_OF_TEXT = 'Map text to numbers, e.g. by tf.keras.layers.TextVectorization.'
_ADVICE = {
  'f': 'Convert them, e.g. x.astype(np.float32).',
  'b': 'Convert them, e.g. x.astype(np.float32).',
  'u': 'Scale them to 8 bits, e.g. (x >> 8).astype(np.uint8) for 16 bits.',
  'i': 'If they are in [0, 255], use x.astype(np.uint8).',
  'O': 'Pad inputs that differ in length, and map text to numbers.',
  'S': _OF_TEXT,
  'U': _OF_TEXT,
}

# Kinds of inputs that show nothing if all of their values are equal.
_WITHOUT_CONTRAST = ('image', 'series')


class Examined(NamedTuple):
  """Findings of a look at every number.

  Attributes:
    low: The smallest value.
    high: The largest value.
    num_constant: Inputs that have one value everywhere.
    first_constant: The index of the first of these; None where there is none.
    num_examined: Inputs that were looked at.
  """

  low: float
  high: float
  num_constant: int
  first_constant: Optional[int]
  num_examined: int


def stored(inputs: Any, what: str) -> np.ndarray:
  """Returns own inputs in a dtype in which inputs are stored.

  Floats and booleans become float32, integers of other sizes int32 or int64,
  and grey images of uint8 get an axis of one channel.

  Args:
    inputs: Array `[num_examples, …]`, or what NumPy makes one of.
    what: Whose inputs they are, for messages.

  Raises:
    ValueError: If some are masked, or they differ in length.
    TypeError: If they are text or objects.
  """
  if np.ma.is_masked(inputs):
    raise errors.UserError(f'{what}: some pixels are masked. Fill them.')
  try:
    inputs = np.asarray(inputs)
  except ValueError as error:
    raise errors.UserError(
      f'{what}: the inputs differ in shape. Pad them to one shape, e.g. by '
      'tf.keras.utils.pad_sequences(x, padding="post"), or give series and '
      'tokens to tff_fedsa.data.from_arrays, which pads them.'
    ) from error
  if inputs.dtype.kind in 'OSU':
    raise TypeError(
      f'{what}: expected numbers, found {inputs.dtype}. '
      f'{_ADVICE.get(inputs.dtype.kind, "")}'
    )
  # Integers of the rank of images are refused with advice.
  if inputs.ndim < 4 or inputs.dtype.kind in 'fb':
    dtype = STORED_AS.get(inputs.dtype.name, inputs.dtype)
    with np.errstate(over='ignore'):
      inputs = inputs.astype(dtype, copy=False)
  return with_channels(inputs)


def with_channels(inputs: Any, *, are_images: bool = False) -> Any:
  """Returns inputs, grey images with an axis of one channel.

  Args:
    inputs: Array or tensor `[num_examples, …]`.
    are_images: Whether inputs of three axes are images of any dtype; by default
      those of uint8 are, and others are series `[num_examples, steps,
      channels]`.
  """
  if len(inputs.shape) == 3 and (are_images or inputs.dtype == np.uint8):
    return inputs[..., np.newaxis]
  return inputs


def as_part(inputs: Any) -> Any:
  """Returns one of several inputs; numbers `[num_examples]` get an axis.

  Args:
    inputs: See `with_channels`; one number for each example is a column.
  """
  if len(inputs.shape) == 1:
    return inputs[:, np.newaxis]
  return with_channels(inputs)


def examine(inputs: np.ndarray, what: str, *, masked: bool = False) -> Examined:
  """Looks at inputs, and refuses those that no model can be trained on.

  Args:
    inputs: Array `[num_examples, …]` of a dtype of `input_spec.DTYPES`. In a
      large memory-mapped array of uint8, the check looks at every k-th input.
    what: Whose inputs they are, for messages.
    masked: Whether they are masked series; padding and mask do not count.

  Raises:
    ValueError: If they have no axis beside that of examples, hold NaN or
      infinity, or are negative integers; the first one is named.
    TypeError: For another dtype.
  """
  is_integer = inputs.dtype in (np.int32, np.int64)
  if inputs.dtype.name not in input_spec_lib.DTYPES or (
    is_integer and inputs.ndim > 3
  ):
    raise TypeError(
      f'{what}: expected inputs of dtype uint8 or float32 (or of integers '
      f'[num_examples, length]), found {inputs.dtype} of shape '
      f'{inputs.shape}. {_ADVICE.get(inputs.dtype.kind, "")}'.rstrip()
    )
  if inputs.ndim < 2 or not inputs.size:
    raise errors.UserError(
      f'{what}: expected inputs [num_examples, …], e.g. images '
      '[num_examples, height, width, channels], series [num_examples, steps, '
      f'channels] or a table [num_examples, columns], found shape '
      f'{inputs.shape}. A single column needs a last axis of 1.'
    )
  kind = input_spec_lib.kind_of(inputs.shape[1:], inputs.dtype.name)
  step = 1
  if isinstance(inputs, np.memmap) and inputs.dtype == np.uint8:
    step = max(math.ceil(inputs.nbytes / _MAPPED_BYTES), 1)
  looked_at = inputs[::step]
  lows, highs = (np.empty(len(looked_at), inputs.dtype) for _ in range(2))
  size = max(_CHUNK_BYTES // inputs[0].nbytes, 1)
  for start in range(0, len(looked_at), size):
    part = slice(start, start + size)
    numbers = looked_at[part]
    if masked:
      numbers = ragged.filled(numbers)
    numbers = numbers.reshape(len(lows[part]), -1)
    lows[part], highs[part] = numbers.min(axis=1), numbers.max(axis=1)
  name = 'images' if kind == 'image' else 'inputs'
  if inputs.dtype == np.float32:
    # NaN is the smallest and the largest value of its input.
    finite = np.isfinite(lows) & np.isfinite(highs)
    if not finite.all():
      raise errors.UserError(
        f'{what}: {np.sum(~finite)} of {len(inputs)} {name} hold NaN or '
        f'infinity; the first is example {finite.argmin()}.'
      )
  if is_integer and lows.min() < 0:
    raise errors.UserError(
      f'{what}: {np.sum(lows < 0)} of {len(inputs)} inputs hold negative '
      f'integers; the first is example {(lows < 0).argmax()}. Integers are '
      'tokens from 0 (padding) on. Numbers of a table are floats: '
      'x.astype(np.float32).'
    )
  is_constant = lows == highs
  constant = np.flatnonzero(is_constant & (kind in _WITHOUT_CONTRAST))
  return Examined(
    float(lows.min()),
    float(highs.max()),
    len(constant),
    int(constant[0]) * step if constant.size else None,
    len(lows),
  )


def joined(parts: Iterable[Examined]) -> Examined:
  """Returns the findings of several arrays as if they were one."""
  lows, highs, constants, firsts, sizes = zip(*parts)
  starts = np.cumsum((0, *sizes))
  known = [s + f for s, f in zip(starts, firsts) if f is not None]
  return Examined(
    min(lows),
    max(highs),
    sum(constants),
    int(known[0]) if known else None,
    sum(sizes),
  )


def vocabulary_size(
  dtype: Any, examined: Examined, given: Optional[int], what: str
) -> Optional[int]:
  """Returns the number of different integers of inputs; None of other inputs.

  Args:
    dtype: Dtype of the inputs.
    examined: Result of `examine`.
    given: The number, if it is known; by default the largest integer and one.
    what: Whose inputs they are.

  Raises:
    ValueError: If an integer is beyond it, or an embedding would be too large.
  """
  if np.dtype(dtype) not in (np.int32, np.int64):
    return given
  needed = int(examined.high) + 1
  if needed > MAX_VOCABULARY:
    raise errors.UserError(
      f'{what}: expected tokens below {MAX_VOCABULARY:,}, found '
      f'{needed - 1:,}. Numbers of a table are floats: x.astype(np.float32).'
    )
  if given is not None and needed > given:
    raise errors.UserError(
      f'{what}: expected tokens below vocabulary_size={given}, found '
      f'{needed - 1}.'
    )
  return given or needed


def notices(
  examined: Examined,
  shape: tuple[int, ...],
  what: str,
  *,
  masked: bool = False,
) -> tuple[str, ...]:
  """Returns notices about stored inputs.

  Args:
    examined: Result of `examine`.
    shape: Shape of one input.
    what: Whose inputs they are.
    masked: Whether they are masked series.
  """
  found = []
  if examined.num_constant:
    inputs, place = (
      ('images', 'pixel') if len(shape) == 3 else ('series', 'step')
    )
    found.append(
      f'{what}: {examined.num_constant} of {examined.num_examined} {inputs} '
      f'have the same value in every {place}; the first is example '
      f'{examined.first_constant}.'
    )
  if len(shape) == 3:
    height, width, channels = shape
    if height in (1, 3) and width == channels and width > 4:
      found.append(
        f'{what}: images of shape {shape} seem to have their channels first. '
        'Models expect them last: use images.transpose(0, 2, 3, 1).'
      )
  if len(shape) == 2 and shape[0] == shape[1] > 4 and not masked:
    found.append(
      f'{what}: inputs of shape {shape} are series of {shape[0]} steps and '
      f'{shape[1]} channels. If they are grey images, give them a last axis of '
      '1: x[..., np.newaxis].'
    )
  return tuple(found)


def range_notices(
  examined: Examined,
  spec: input_spec_lib.InputSpec,
  normalization: str,
  what: str,
) -> tuple[str, ...]:
  """Returns notices about the values that models get.

  Args:
    examined: Result of `examine`.
    spec: How models see these inputs.
    normalization: The name behind it; `dataset` is always right.
    what: Whose inputs they are.
  """
  if normalization == 'dataset' or spec.model_dtype != 'float32':
    return ()
  scale, offset = np.asarray(spec.scale), np.asarray(spec.offset)
  ends = np.stack(
    np.broadcast_arrays(
      examined.low * scale + offset, examined.high * scale + offset
    )
  )
  low, high = ends.min(), ends.max()
  is_image = spec.kind == 'image'
  stored_range = (
    f'{"pixels" if is_image else "values"} from {examined.low:g} to '
    f'{examined.high:g} ({spec.dtype})'
  )
  if max(-low, high) > _LARGE:
    advice = (
      'Divide them by 255'
      if is_image and 1.0 < examined.high <= 255.0
      else 'Scale them to [0, 1]'
    )
    return (
      f'{what}: {stored_range} are from {low:g} to {high:g} as models see '
      f'them, and training may diverge. {advice}, or use '
      '--normalization=dataset.',
    )
  if high - low < _FLAT:
    return (
      f'{what}: {stored_range} are from {low:g} to {high:g} as models see '
      f'them: the {"images" if is_image else "inputs"} look nearly alike. '
      'Scale them, or use --normalization=dataset.',
    )
  return ()
