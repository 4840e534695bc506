"""A file of arrays."""

import os
from typing import Any

import numpy as np

from tff_fedsa.data import npz
from tff_fedsa.data import sources
from tff_fedsa.runs import errors

_NAMES = ('x', 'y', 'num_train')
_PARTS = ('train', 'val', 'test')
_OF_PART = ('images', 'labels')


def read(path: str) -> sources.Source:
  """Reads the arrays of an `.npz` file.

  They are `x` and `y` (and perhaps `num_train`), or, as in MedMNIST's files,
  `train_images`, `train_labels`, `val_images`, … and `test_images`, …; the
  validation examples are part of the train set.

  Raises:
    FileNotFoundError: If there is no such file.
    ValueError: If it is no `.npz` file, or arrays are missing or unsuitable.
  """
  wanted = {*_NAMES}
  wanted |= {f'{part}_{what}' for part in _PARTS for what in _OF_PART}
  arrays, names = npz.read(path, wanted.__contains__, what='data file')
  if 'x' not in arrays and 'train_images' in arrays:
    arrays = _joined(path, arrays)
  if not {'x', 'y'} <= set(arrays):
    raise errors.UserError(
      f'{path!r}: expected arrays x (inputs) and y (labels), or train_images, '
      f'train_labels, test_images and test_labels, found {names}.'
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


def _joined(path: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Returns the arrays of a file of parts as x, y and num_train."""
  parts = [part for part in _PARTS if f'{part}_images' in arrays]
  missing = [f'{part}_labels' for part in parts]
  missing = [name for name in missing if name not in arrays]
  if missing:
    raise errors.UserError(f'{path!r}: expected {missing}, found none.')
  sizes = {part: len(arrays[f'{part}_images']) for part in parts}
  try:
    x, y = (
      np.concatenate([arrays[f'{part}_{what}'] for part in parts])
      for what in _OF_PART
    )
  except ValueError as error:
    raise errors.UserError(
      f'{path!r}: the parts {parts} differ in shape: {error}.'
    ) from error
  joined = {'x': x, 'y': y}
  if 'test' in sizes:
    joined['num_train'] = np.array(len(x) - sizes['test'])
  return joined


def _scalar(path: str, array: np.ndarray) -> Any:
  if array.size != 1:
    raise errors.UserError(
      f'{path!r}: expected num_train to be one whole number, found an array of '
      f'shape {array.shape}.'
    )
  return array.item()
