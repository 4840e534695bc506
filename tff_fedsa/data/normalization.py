"""Named ways of scaling inputs for a model."""

from collections.abc import Iterable
import dataclasses

import numpy as np

from tff_fedsa.data import input_spec as input_spec_lib
from tff_fedsa.data import ragged
from tff_fedsa.runs import errors

NAMES = ('half', 'unit', 'imagenet', 'dataset', 'none')

# Kinds of inputs whose floats are of any unit: `half` standardizes them.
_OF_ANY_UNIT = ('table', 'series')

# Of the red, green and blue of ImageNet's training images in [0, 1], as
# models trained on it expect (torchvision).
_IMAGENET_MEAN = np.array([0.485, 0.456, 0.406])
_IMAGENET_STD = np.array([0.229, 0.224, 0.225])

# Deviations below this share of the mean are rounding errors.
_SMALLEST = 1e-7

# Inputs at a time: as float64, they should fit into a processor's cache.
_CHUNK = 64


def resolved(spec: input_spec_lib.InputSpec, name: str) -> str:
  """Returns the name behind the default `half`, which depends on the kind.

  Args:
    spec: As a source has it.
    name: See `normalized`.

  Returns:
    `dataset` for `half` of tables and series of floats that the source has not
    scaled; otherwise `name`.
  """
  as_they_come = (spec.scale, spec.offset) == (1.0, 0.0)
  is_float = spec.dtype == 'float32' and spec.kind in _OF_ANY_UNIT
  return 'dataset' if name == 'half' and is_float and as_they_come else name


def normalized(
  spec: input_spec_lib.InputSpec, name: str, inputs: Iterable[np.ndarray]
) -> input_spec_lib.InputSpec:
  """Returns an input spec with scale and offset by name.

  Integers are looked up, not scaled, whatever the name. Padding and mask of
  masked series are neither counted nor scaled.

  Args:
    spec: As a source has it: [0, largest pixel value] becomes [-1, 1].
    name: `half`: uint8 becomes (x / 255 - 0.5) / 0.5 (reference), float images
      stay, tables and series of floats are standardized as by `dataset`;
      `unit`: [0, 1]; `imagenet`: less the mean of ImageNet, by its standard
      deviation, per channel; `dataset`: less the mean of `inputs`, by their
      standard deviation, per channel or column; `none`: as stored.
    inputs: Arrays `[num_examples, …]` of train inputs as stored.

  Raises:
    ValueError: For an unknown name, or one that does not fit the inputs.
  """
  if name not in NAMES:
    raise errors.UserError(
      f'Unknown normalization {name!r}; known: {", ".join(NAMES)}.'
    )
  name = resolved(spec, name)
  if name == 'half' or spec.model_dtype != 'float32':
    return spec
  if name == 'none':
    return dataclasses.replace(spec, scale=1.0, offset=0.0)
  if name == 'dataset':
    if spec.masked:
      inputs = map(ragged.real_steps, inputs)
    mean, std = mean_and_std(inputs)
    if spec.kind in _OF_ANY_UNIT:
      # A column of one value says nothing, and becomes 0.
      std = np.where(std > _SMALLEST * np.abs(mean), std, 1.0)
    if not std.all():
      raise errors.UserError(
        "normalization='dataset' divides by the standard deviation of pixels, "
        f'which is {std} per channel. Use another one.'
      )
    return _replace(spec, 1.0 / std, -mean / std)
  if spec.offset != -1.0:
    raise errors.UserError(
      f'normalization={name!r} needs to know the range of pixels, but these '
      f"inputs are float32 that models see as they are. Use 'half' or "
      "'dataset'."
    )
  # From [0, largest] to [0, 1], as half of the way to [-1, 1].
  scale = np.full(spec.shape[-1], np.divide(spec.scale, 2.0))
  if name == 'unit':
    return dataclasses.replace(spec, scale=float(scale[0]), offset=0.0)
  if spec.kind != 'image' or spec.shape[2] != 3:
    raise errors.UserError(
      "normalization='imagenet' is for images of 3 channels, found "
      f"{spec.shape[-1]} {spec.last_axis}. Use 'half' or 'dataset'."
    )
  return _replace(spec, scale / _IMAGENET_STD, -_IMAGENET_MEAN / _IMAGENET_STD)


def mean_and_std(
  inputs: Iterable[np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
  """Returns mean and standard deviation of all pixels, steps or rows.

  Args:
    inputs: Arrays `[num_examples, …, channels]`, read once, piece by piece.

  Returns:
    Two float64[channels].
  """
  total, total_square, count = 0.0, 0.0, 0
  for array in inputs:
    for start in range(0, len(array), _CHUNK):
      pixels = array[start : start + _CHUNK].astype(np.float64)
      pixels = pixels.reshape(-1, pixels.shape[-1])
      total = total + pixels.sum(axis=0)
      total_square = total_square + np.einsum('nc,nc->c', pixels, pixels)
      count += len(pixels)
  mean, mean_square = np.divide([total, total_square], count)
  return mean, np.sqrt(np.maximum(mean_square - np.square(mean), 0.0))


def _replace(spec, scale, offset):
  return dataclasses.replace(
    spec,
    scale=tuple(map(float, scale)),
    offset=tuple(map(float, offset)),
  )
