"""Camelyon17 as WILDS has it: patches of lymph nodes, from five hospitals.

Source: "WILDS: A Benchmark of in-the-Wild Distribution Shifts" (Koh et al.,
ICML 2021).
"""

import os
from typing import Optional

import numpy as np

from tff_fedsa.data import image_files
from tff_fedsa.data import sources
from tff_fedsa.data.readers import folders
from tff_fedsa.data.readers import number_files
from tff_fedsa.runs import errors

CLASS_NAMES = ('no tumor', 'tumor')
# The hospital whose patches are WILDS's test set.
TEST_HOSPITAL = 2
_COLUMNS = ('patient', 'node', 'x_coord', 'y_coord', 'tumor', 'center')


def read(
  path: str,
  *,
  image_size: int = 32,
  cache_dir: Optional[str] = None,
  alpha_background: str = 'white',
) -> sources.Source:
  """Reads the patches; each hospital is a client.

  The original test set has the patches of hospital 2, as in WILDS. Hospital 1,
  by which WILDS chooses models, is a client like others.

  Args:
    path: The unpacked folder, with `metadata.csv` and `patches/`.
    image_size: See `image_files.read`; the original is 96.
    cache_dir: See `image_files.read`.
    alpha_background: See `image_files.read`.

  Raises:
    FileNotFoundError: If table or patches are missing.
    ValueError: If the table has other columns or values, or a file is not a
      readable image.
  """
  import pandas as pd  # Slow to import.

  folders.check_is_folder(path)
  table = number_files.required(path, 'metadata.csv')
  try:
    frame = pd.read_csv(table, dtype=str, keep_default_na=False)
  except ValueError as error:  # Errors of pandas's parser are of this type.
    raise errors.UserError(f'{table!r} is no table: {error}') from error
  missing = [column for column in _COLUMNS if column not in frame.columns]
  if missing or not len(frame):
    raise errors.UserError(
      f'{table!r}: expected rows with the columns {", ".join(_COLUMNS)}, found '
      f'{len(frame)} rows with {", ".join(frame.columns)}.'
    )
  for column, allowed in (('tumor', {'0', '1'}), ('center', {*'01234'})):
    strange = ~frame[column].isin(allowed).to_numpy()
    if strange.any():
      raise errors.UserError(
        f'{table!r}, line {strange.argmax() + 2}: expected {column} to be one '
        f'of {sorted(allowed)}, found {frame[column][strange.argmax()]!r}.'
      )
  hospitals = frame['center'].astype(int).to_numpy()
  order = np.argsort(hospitals == TEST_HOSPITAL, kind='stable')
  files = [
    _file(path, *row) for row in frame[[*_COLUMNS[:4]]].to_numpy()[order]
  ]
  absent = [file for file in files if not os.path.isfile(file)]
  if absent:
    raise FileNotFoundError(
      f'{len(absent)} patches of {table!r} are not there, e.g. {absent[0]!r}.'
    )
  decoded = image_files.read(
    files, image_size, cache_dir=cache_dir, alpha_background=alpha_background
  )
  num_train = int(np.sum(hospitals != TEST_HOSPITAL))
  return sources.Source(
    name='camelyon17',
    images=decoded.images,
    labels=frame['tumor'].astype(int).to_numpy()[order],
    class_names=CLASS_NAMES,
    num_train=num_train if 0 < num_train < len(files) else None,
    client_ids=np.array([f'hospital {h}' for h in hospitals[order]]),
    sorted_as='as in its table, the test hospital last',
    notices=decoded.notices,
  )


def _file(path: str, patient: str, node: str, x: str, y: str) -> str:
  of_node = f'patient_{patient.zfill(3)}_node_{node}'
  return os.path.join(
    path, 'patches', of_node, f'patch_{of_node}_x_{x}_y_{y}.png'
  )
