"""Checks images of every source: errors for illegal, notices for odd ones."""

from collections.abc import Iterable
import math
import typing
from typing import NamedTuple, Optional

import numpy as np

from tff_fedsa.data import input_spec as input_spec_lib
from tff_fedsa.runs import errors

if typing.TYPE_CHECKING:
  import PIL.Image

# Bytes that are looked at together; so much of arrays on disk is read in all.
_CHUNK_BYTES = 2**22
_MAPPED_BYTES = 2**27

# What models see is about [-1, 1] or of unit variance: values beyond this make
# training diverge, and images within such a range look all alike.
_LARGE = 10.0
_FLAT = 0.125

_ADVICE = {
  'f': 'Convert them, e.g. images.astype(np.float32).',
  'b': 'Convert them, e.g. images.astype(np.float32).',
  'u': 'Scale them to 8 bits, e.g. (images >> 8).astype(np.uint8) for 16 bits.',
  'i': 'If they are in [0, 255], use images.astype(np.uint8).',
}


class Examined(NamedTuple):
  """Findings of a look at every pixel.

  Attributes:
    low: The smallest value.
    high: The largest value.
    num_constant: Images that have one value everywhere.
    first_constant: The index of the first of these; None where there is none.
    num_examined: Images that were looked at.
  """

  low: float
  high: float
  num_constant: int
  first_constant: Optional[int]
  num_examined: int


def examine(images: np.ndarray, what: str) -> Examined:
  """Looks at images, and refuses those that no model can be trained on.

  Args:
    images: uint8 or float32[num_examples, height, width, channels]. In a large
      memory-mapped array of uint8, the check looks at every k-th image.
    what: Whose images they are, for messages.

  Raises:
    ValueError: If the shape is another one, or images hold NaN or infinity; the
      first one is named.
    TypeError: For another dtype.
  """
  if images.dtype not in (np.uint8, np.float32):
    raise TypeError(
      f'{what}: expected images of dtype uint8 or float32, found '
      f'{images.dtype}. {_ADVICE.get(images.dtype.kind, "")}'.rstrip()
    )
  if images.ndim != 4 or not images.size:
    raise errors.UserError(
      f'{what}: expected images [num_examples, height, width, channels], found '
      f'shape {images.shape}. Grey images need a last axis of 1.'
    )
  is_float = images.dtype == np.float32
  step = 1
  if isinstance(images, np.memmap) and not is_float:
    step = max(math.ceil(images.nbytes / _MAPPED_BYTES), 1)
  looked_at = images[::step]
  lows, highs = (np.empty(len(looked_at), images.dtype) for _ in range(2))
  size = max(_CHUNK_BYTES // images[0].nbytes, 1)
  for start in range(0, len(looked_at), size):
    part = slice(start, start + size)
    pixels = looked_at[part].reshape(len(lows[part]), -1)
    lows[part], highs[part] = pixels.min(axis=1), pixels.max(axis=1)
  if is_float:
    # NaN is the smallest and the largest value of its image.
    finite = np.isfinite(lows) & np.isfinite(highs)
    if not finite.all():
      raise errors.UserError(
        f'{what}: {np.sum(~finite)} of {len(images)} images hold NaN or '
        f'infinity; the first is example {finite.argmin()}.'
      )
  constant = np.flatnonzero(lows == highs)
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


def notices(
  examined: Examined, shape: tuple[int, ...], what: str
) -> tuple[str, ...]:
  """Returns notices about stored images.

  Args:
    examined: Result of `examine`.
    shape: (height, width, channels).
    what: Whose images they are.
  """
  found = []
  if examined.num_constant:
    found.append(
      f'{what}: {examined.num_constant} of {examined.num_examined} images have '
      'the same value in every pixel; the first is example '
      f'{examined.first_constant}.'
    )
  height, width, channels = shape
  if height in (1, 3) and width == channels and width > 4:
    found.append(
      f'{what}: images of shape {shape} seem to have their channels first. '
      'Models expect them last: use images.transpose(0, 2, 3, 1).'
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
    spec: How models see these images.
    normalization: The name behind it; `dataset` is always right.
    what: Whose images they are.
  """
  if normalization == 'dataset':
    return ()
  scale, offset = np.asarray(spec.scale), np.asarray(spec.offset)
  ends = np.stack(
    np.broadcast_arrays(
      examined.low * scale + offset, examined.high * scale + offset
    )
  )
  low, high = ends.min(), ends.max()
  stored = f'pixels from {examined.low:g} to {examined.high:g} ({spec.dtype})'
  if max(-low, high) > _LARGE:
    advice = (
      'Divide them by 255'
      if 1.0 < examined.high <= 255.0
      else 'Scale them to [0, 1]'
    )
    return (
      f'{what}: {stored} are from {low:g} to {high:g} as models see them, and '
      f'training may diverge. {advice}, or use --normalization=dataset.',
    )
  if high - low < _FLAT:
    return (
      f'{what}: {stored} are from {low:g} to {high:g} as models see them: the '
      'images look nearly alike. Scale them, or use --normalization=dataset.',
    )
  return ()


def colour(name: str) -> tuple[int, int, int]:
  """Returns red, green and blue, 0 to 255, of a colour.

  Args:
    name: As in CSS: `white`, `#ffffff`, `rgb(255, 255, 255)`.

  Raises:
    ValueError: For an unknown name.
  """
  import PIL.ImageColor  # Only needed for files.

  try:
    return PIL.ImageColor.getrgb(name)[:3]
  except ValueError as error:
    raise errors.UserError(
      f'Unknown colour {name!r}; expected a name, e.g. white, or #rrggbb.'
    ) from error


def to_rgb(
  image: 'PIL.Image.Image', background: tuple[int, int, int]
) -> 'PIL.Image.Image':
  """Returns an image of any mode as RGB of 8 bits.

  Pixels of 16 bits become v >> 8; real ones are expected in [0, 1].

  Args:
    image: Image of a file.
    background: Color behind transparent pixels.

  Raises:
    ValueError: If pixels are out of the range of their mode.
  """
  import PIL.Image  # Only needed for files.

  mode = image.mode
  if mode == 'I' or mode.startswith('I;16'):
    pixels = np.asarray(image)
    _check_range(pixels, 65535, 'whole numbers')
    return PIL.Image.fromarray((pixels >> 8).astype(np.uint8)).convert('RGB')
  if mode == 'F':
    pixels = np.asarray(image)
    _check_range(pixels, 1, 'real numbers')
    pixels = np.rint(pixels * 255).astype(np.uint8)
    return PIL.Image.fromarray(pixels).convert('RGB')
  if mode in ('RGBA', 'LA', 'PA', 'RGBa', 'La') or 'transparency' in image.info:
    if mode == 'La':  # It has no way to RGBA.
      image = image.convert('LA')
    image = image.convert('RGBA')
    if np.asarray(image.getchannel('A')).min() < 255:
      behind = PIL.Image.new('RGBA', image.size, (*background, 255))
      image = PIL.Image.alpha_composite(behind, image)
  return image.convert('RGB')


def _check_range(pixels: np.ndarray, high: int, what: str) -> None:
  # False for NaN, too.
  if not (pixels.min() >= 0 and pixels.max() <= high):
    raise errors.UserError(
      f'its pixels are {what} from {pixels.min():g} to {pixels.max():g}, '
      f'expected 0 to {high}; scale them'
    )
