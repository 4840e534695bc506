"""A file of arrays."""

import os
import zipfile

import numpy as np

from tff_fedsa.data import sources


def read(path: str) -> sources.Source:
  """Reads arrays `x` and `y` (and perhaps `num_train`) of an `.npz` file.

  Raises:
    FileNotFoundError: If there is no such file.
    ValueError: If it is no `.npz` file, or arrays are missing or unsuitable.
  """
  if not os.path.isfile(path):
    raise FileNotFoundError(f'No data file at {path!r}.')
  if not zipfile.is_zipfile(path):
    raise ValueError(
      f'{path!r} is not an .npz file; np.savez(path, x=images, y=labels) '
      'writes one.'
    )
  with np.load(path) as arrays:
    missing = {'x', 'y'} - set(arrays.files)
    if missing:
      raise ValueError(
        f'{path!r}: expected arrays x (images) and y (labels), found '
        f'{arrays.files}.'
      )
    num_train = (
      int(arrays['num_train']) if 'num_train' in arrays.files else None
    )
    try:
      return sources.from_arrays(
        arrays['x'],
        arrays['y'],
        num_train=num_train,
        name=os.path.basename(path),
      )
    except TypeError as error:
      # Of a file, a wrong dtype is a wrong value.
      raise ValueError(str(error)) from error
