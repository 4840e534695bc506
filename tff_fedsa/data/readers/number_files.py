"""Text files of numbers between white space, as of sensors."""

import os

import numpy as np

from tff_fedsa.runs import errors


def required(folder: str, *parts: str) -> str:
  """Returns the path of a file in a folder.

  Raises:
    FileNotFoundError: If it is not there; the message names it.
  """
  path = os.path.join(folder, *parts)
  if not os.path.isfile(path):
    raise FileNotFoundError(f'No file {os.path.join(*parts)!r} in {folder!r}.')
  return path


def read(path: str, num_columns: int) -> np.ndarray:
  """Reads a table of numbers without a header; NaN is a number, too.

  Args:
    path: Path of the file.
    num_columns: How many numbers a line has.

  Returns:
    float32[num_lines, num_columns].

  Raises:
    ValueError: If the file is empty, has other columns or other text; it is
      named.
  """
  import pandas as pd  # Slow to import.

  try:
    frame = pd.read_csv(path, sep=r'\s+', header=None, dtype=np.float32)
  except ValueError as error:  # Errors of pandas's parser are of this type.
    raise errors.UserError(
      f'{path!r}: expected lines of {num_columns} numbers: {error}'
    ) from error
  if frame.shape[1] != num_columns:
    raise errors.UserError(
      f'{path!r}: expected {num_columns} numbers in each line, found '
      f'{frame.shape[1]}.'
    )
  return frame.to_numpy()
