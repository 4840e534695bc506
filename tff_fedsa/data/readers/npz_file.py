"""A file of arrays."""

from collections.abc import Sequence
import os
from typing import Any

import numpy as np

from tff_fedsa.data import npz
from tff_fedsa.data import sources
from tff_fedsa.runs import errors

_WHAT = 'data file'
# Keras's data sets, e.g. mnist.npz.
_OF_KERAS = ('x_train', 'y_train', 'x_test', 'y_test')
_AS_PARTS = ('train_images', 'train_labels', 'test_images', 'test_labels')
# One of several inputs is x_<name>.
_SEVERAL = 'x_'
_PARTS = ('train', 'val', 'test')
_OF_PART = ('images', 'labels')


def read(path: str) -> sources.Source:
  """Reads the arrays of an `.npz` file.

  They are `x` and `y` (and perhaps `num_train`), or, as in MedMNIST's files,
  `train_images`, `train_labels`, `val_images`, … and `test_images`, …; the
  validation examples are part of the train set. Keras's files have `x_train`,
  `y_train`, `x_test` and `y_test`. Several inputs of an example are arrays
  `x_<name>` beside `y`.

  Raises:
    FileNotFoundError: If there is no such file.
    ValueError: If it is no `.npz` file, or arrays are missing or unsuitable.
  """
  _, names = npz.read(path, lambda _: False, what=_WHAT)
  wanted = _wanted(names)
  found, _ = npz.read(path, {*wanted, 'num_train'}.__contains__, what=_WHAT)
  arrays: dict[str, Any] = found
  if wanted == _OF_KERAS:
    arrays = _joined(path, dict(zip(_AS_PARTS, (found[n] for n in wanted))))
  elif 'train_images' in found:
    arrays = _joined(path, found)
  elif 'x' not in found and len(wanted) > 1:
    inputs = {name.removeprefix(_SEVERAL): found[name] for name in wanted[1:]}
    arrays = {**found, 'x': inputs}
  if not {'x', 'y'} <= set(arrays):
    raise errors.UserError(
      f'{path!r}: expected arrays x (inputs) and y (labels); or x_<name> for '
      'several inputs, and y; or train_images, train_labels, test_images and '
      f'test_labels; or {", ".join(_OF_KERAS)}; found {names}.'
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


def _wanted(names: Sequence[str]) -> tuple[str, ...]:
  """Returns the arrays of a layout, of those that a file has."""
  if {'x', 'y'} <= {*names}:
    return ('x', 'y')
  if {*_OF_KERAS} <= {*names}:
    return _OF_KERAS
  if 'train_images' in names:
    parts = (f'{part}_{what}' for part in _PARTS for what in _OF_PART)
    return tuple(name for name in parts if name in names)
  several = [name for name in names if name.startswith(_SEVERAL)]
  return ('y', *several) if 'y' in names else ()


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
