"""Image files as one array: decoded, resized, and cached."""

from collections.abc import Sequence
import concurrent.futures
import hashlib
import os
from typing import Optional

import numpy as np

from tff_fedsa.data import array_cache


def read(
  files: Sequence[str], image_size: int, *, cache_dir: Optional[str] = None
) -> np.ndarray:
  """Decodes image files, as RGB.

  Args:
    files: Paths, in the order of the result.
    image_size: Images are resized to this many pixels square (bilinear, with
      antialiasing; their proportions are not kept).
    cache_dir: See `array_cache.load_or_build`.

  Returns:
    uint8[len(files), image_size, image_size, 3].

  Raises:
    ValueError: If a file is not a readable image; it is named.
  """
  shape = (len(files), image_size, image_size, 3)

  def build(allocate):
    images = allocate('images', shape, np.uint8)

    def decode(index):
      images[index] = _decode(files[index], image_size)

    # Decoding releases Python's lock.
    with concurrent.futures.ThreadPoolExecutor() as pool:
      futures = [pool.submit(decode, index) for index in range(len(files))]
      try:
        for future in futures:
          future.result()
      except BaseException:
        pool.shutdown(cancel_futures=True)
        raise

  root = os.path.commonpath([os.path.abspath(file) for file in files])
  where = hashlib.sha256(root.encode()).hexdigest()[:8]
  return array_cache.load_or_build(
    build,
    name=f'{os.path.basename(root)}-{image_size}px-{where}',
    files=files,
    cache_dir=cache_dir,
  )['images']


def _decode(file: str, image_size: int) -> np.ndarray:
  import PIL.Image  # Only needed here.

  try:
    with PIL.Image.open(file) as image:
      return np.asarray(
        image.convert('RGB').resize(
          (image_size, image_size), PIL.Image.Resampling.BILINEAR
        )
      )
  # What Pillow's formats raise for a broken file.
  except (
    OSError,
    SyntaxError,
    ValueError,
    PIL.Image.DecompressionBombError,
  ) as error:
    raise ValueError(
      f'{file!r} is not a readable image: {error}. Remove or replace it.'
    ) from error
