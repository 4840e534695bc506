"""Colours and modes of images of files."""

import typing

import numpy as np

from tff_fedsa.runs import errors

if typing.TYPE_CHECKING:
  import PIL.Image


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
