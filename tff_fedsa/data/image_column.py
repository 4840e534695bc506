"""A column of a table that names image files."""

from __future__ import annotations

import os
import typing
from typing import NamedTuple, Optional

from tff_fedsa.data import image_files
from tff_fedsa.runs import errors

if typing.TYPE_CHECKING:
  import pandas as pd


class ImageColumn(NamedTuple):
  """Which column names image files, and how they are decoded.

  Attributes:
    column: Name of the column.
    folder: Folder that the file names are relative to.
    image_size: See `image_files.read`; by default `image_files.IMAGE_SIZE`.
    cache_dir: See `image_files.read`.
    alpha_background: See `image_files.read`.
  """

  column: str
  folder: str = '.'
  image_size: Optional[int] = None
  cache_dir: Optional[str] = None
  alpha_background: str = 'white'

  def read(self, values: pd.Series, name: str) -> image_files.Decoded:
    """Decodes the images that a column names.

    Args:
      values: The column.
      name: Name of the table, for messages.

    Raises:
      ValueError: If values are no file names, or there is no such file (the
        first row is named); otherwise see `image_files.read`.
    """
    is_text = [isinstance(value, str) for value in values]
    if not all(is_text):
      row = is_text.index(False)
      raise errors.UserError(
        f'{name}: expected names of image files in the column '
        f'{self.column!r}, found {values.iloc[row]!r} in row {row}.'
      )
    files = [os.path.join(self.folder, value) for value in values]
    missing = [
      row for row, file in enumerate(files) if not os.path.isfile(file)
    ]
    if missing:
      raise errors.UserError(
        f'{name}: the column {self.column!r} names {len(missing)} files that '
        f'are not there; the first is {files[missing[0]]!r} in row '
        f'{missing[0]}. File names are relative to the folder of the table, or '
        'in Python to image_dir.'
      )
    return image_files.read(
      files,
      self.image_size or image_files.IMAGE_SIZE,
      cache_dir=self.cache_dir,
      alpha_background=self.alpha_background,
    )
