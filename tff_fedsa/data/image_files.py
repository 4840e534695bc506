"""Reads image files into one array: decoded, resized and cached."""

from collections.abc import Sequence
import concurrent.futures
import hashlib
import os
from typing import NamedTuple, Optional

import numpy as np

from tff_fedsa.data import array_cache
from tff_fedsa.data import images as images_lib
from tff_fedsa.runs import errors

# Pixels square that images are decoded to by default.
IMAGE_SIZE = 32

# Version of `images.to_rgb` and `_decode`. Version 2 scales pixels of 16 bits,
# and lays transparent images on a background.
_VERSION = 2

# In files of these formats, further images could be further examples.
_STACKS = ('TIFF', 'GIF', 'WEBP')


class Decoded(NamedTuple):
  """Images, and notices about their files.

  Attributes:
    images: uint8[num_files, image_size, image_size, 3].
    notices: Often empty.
  """

  images: np.ndarray
  notices: tuple[str, ...]


def read(
  files: Sequence[str],
  image_size: int,
  *,
  cache_dir: Optional[str] = None,
  alpha_background: str = 'white',
) -> Decoded:
  """Decodes image files to RGB.

  Args:
    files: Paths, in the order of the result.
    image_size: Height and width of the result. Images are resized (bilinear,
      with antialiasing), and their proportions change.
    cache_dir: See `array_cache.load_or_build`.
    alpha_background: The colour behind transparent images, by name or as
      `#rrggbb`.

  Raises:
    ValueError: If a file is not a readable image (the message names it), or the
      colour is unknown.
  """
  background = images_lib.colour(alpha_background)
  shape = (len(files), image_size, image_size, 3)

  def build(allocate):
    images = allocate('images', shape, np.uint8)
    is_stack = allocate('is_stack', shape[:1], np.bool_)

    def decode(index):
      images[index], is_stack[index] = _decode(
        files[index], image_size, background
      )

    # Threads help, because decoding releases Python's lock.
    with concurrent.futures.ThreadPoolExecutor() as pool:
      futures = [pool.submit(decode, index) for index in range(len(files))]
      try:
        for future in futures:
          future.result()
      except BaseException:
        pool.shutdown(cancel_futures=True)
        raise

  root = os.path.commonpath([os.path.abspath(file) for file in files])
  where = hashlib.sha256(os.fsencode(root)).hexdigest()[:8]
  is_white = background == (255, 255, 255)
  on = '' if is_white else f'-on-{bytes(background).hex()}'
  arrays = array_cache.load_or_build(
    build,
    name=f'{os.path.basename(root)}-{image_size}px{on}-{where}',
    files=files,
    cache_dir=cache_dir,
    version=_VERSION,
  )
  stacks = np.flatnonzero(arrays['is_stack'])
  notices: tuple[str, ...] = ()
  if stacks.size:
    notices = (
      f'{stacks.size} files hold several images, of which the first is taken, '
      f'e.g. {files[stacks[0]]!r}.',
    )
  return Decoded(arrays['images'], notices)


def _decode(
  file: str, image_size: int, background: tuple[int, int, int]
) -> tuple[np.ndarray, bool]:
  import PIL.Image  # Imported only here.

  try:
    with PIL.Image.open(file) as image:
      is_stack = image.format in _STACKS and getattr(image, 'n_frames', 1) > 1
      pixels = np.asarray(
        images_lib.to_rgb(image, background).resize(
          (image_size, image_size), PIL.Image.Resampling.BILINEAR
        )
      )
      return pixels, is_stack
  # Pillow's exceptions for broken files.
  except (
    OSError,
    SyntaxError,
    ValueError,
    PIL.Image.DecompressionBombError,
  ) as error:
    raise errors.UserError(
      f'{file!r} is not a readable image: {error}. Remove or replace it.'
    ) from error
