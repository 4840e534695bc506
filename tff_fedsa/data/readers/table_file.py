"""A file of a table: CSV or Parquet."""

from __future__ import annotations

import os
import typing

from tff_fedsa.runs import errors

if typing.TYPE_CHECKING:
  import pandas as pd


def read(path: str, form: str) -> pd.DataFrame:
  """Reads a table.

  Args:
    path: Path of the file. A file of CSV may be compressed (`.csv.gz`), or
      separated by tabs (`.tsv`).
    form: `csv` or `parquet`.

  Raises:
    FileNotFoundError: If there is no such file.
    ValueError: If it is no table, or empty; the file is named.
  """
  import pandas as pd  # Slow to import.

  if not os.path.isfile(path):
    raise FileNotFoundError(f'No file at {path!r} (--data_dir).')
  try:
    if form == 'parquet':
      frame = pd.read_parquet(path)
    else:
      tabs = '.tsv' in os.path.basename(path).lower()
      frame = pd.read_csv(path, sep='\t' if tabs else ',')
  except Exception as error:  # pandas and pyarrow raise nearly anything.
    reason = ' '.join(str(error).split()) or type(error).__name__
    raise errors.UserError(
      f'{path!r} is no table of the form {form}, or it is damaged: {reason}'
    ) from error
  if not len(frame):
    raise errors.UserError(f'{path!r}: expected rows, found none.')
  return frame
