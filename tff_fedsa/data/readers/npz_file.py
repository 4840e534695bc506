"""A file of arrays."""

import os
from typing import Any

import numpy as np

from tff_fedsa.data import npz
from tff_fedsa.data import sources
from tff_fedsa.runs import errors

_NAMES = ('x', 'y', 'num_train')


def read(path: str) -> sources.Source:
  """Reads arrays `x` and `y` (and perhaps `num_train`) of an `.npz` file.

  Raises:
    FileNotFoundError: If there is no such file.
    ValueError: If it is no `.npz` file, or arrays are missing or unsuitable.
  """
  arrays, names = npz.read(path, _NAMES.__contains__, what='data file')
  if not {'x', 'y'} <= set(arrays):
    raise errors.UserError(
      f'{path!r}: expected arrays x (images) and y (labels), found {names}.'
    )
  num_train = arrays.get('num_train')
  try:
    return sources.from_arrays(
      arrays['x'],
      arrays['y'],
      num_train=None if num_train is None else _scalar(path, num_train),
      name=os.path.basename(path),
      sorted_as='as in the file',
    )
  except TypeError as error:
    # In a file, a wrong dtype is a wrong value.
    raise errors.UserError(str(error)) from error


def _scalar(path: str, array: np.ndarray) -> Any:
  if array.size != 1:
    raise errors.UserError(
      f'{path!r}: expected num_train to be one whole number, found an array of '
      f'shape {array.shape}.'
    )
  return array.item()
