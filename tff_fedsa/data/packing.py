"""Inputs of several parts, e.g. an image and its row of a table.

The parts of an example are stored as one row of bytes. So tasks, TFF types and
evaluation see one tensor of uint8, and no number changes. The client's step
takes the row apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any, Optional

from etils import epy
import numpy as np

from tff_fedsa.data import input_spec as input_spec_lib
from tff_fedsa.runs import errors

with epy.lazy_imports():
  import tensorflow as tf

KIND = 'parts'


@dataclasses.dataclass(frozen=True)
class PackedSpec:
  """Inputs of several parts; the counterpart of an `InputSpec`.

  Attributes:
    parts: Pairs of a name and the `InputSpec` of that part, in the order of the
      bytes.

  Raises (when constructed):
    ValueError: If there is no part, or two have one name.
  """

  parts: tuple[tuple[str, input_spec_lib.InputSpec], ...]

  def __post_init__(self):
    names = [name for name, _ in self.parts]
    if not names or len(set(names)) < len(names):
      raise errors.UserError(
        f'Expected parts with different names, found {names}.'
      )

  @property
  def shape(self) -> tuple[int, ...]:
    """Shape of one row, (bytes,)."""
    return (sum(_num_bytes(spec) for _, spec in self.parts),)

  @property
  def dtype(self) -> str:
    """Dtype of rows."""
    return 'uint8'

  @property
  def kind(self) -> str:
    """What the inputs are."""
    return KIND

  @property
  def vocabulary_size(self) -> dict[str, int]:
    """Sizes of the vocabularies of parts that are tokens, by name."""
    return {
      name: spec.vocabulary_size
      for name, spec in self.parts
      if spec.vocabulary_size is not None
    }

  @property
  def masked(self) -> tuple[str, ...]:
    """Names of the parts that are masked series."""
    return tuple(name for name, spec in self.parts if spec.masked)

  @property
  def model_shape(self) -> dict[str, tuple[int, ...]]:
    """Shapes of one input that a model gets, by name."""
    return {name: spec.model_shape for name, spec in self.parts}

  def describe(self) -> str:
    """Says in words what the inputs are and what models see of them."""
    return '; '.join(f'{name}: {spec.describe()}' for name, spec in self.parts)

  def having(self, **options: Any) -> PackedSpec:
    """Returns the spec with options of the parts that can have them.

    Args:
      **options: Fields of `InputSpec`.

    Raises:
      ValueError: If no part can have an option.
    """
    found = dict(self.parts)
    for name, value in options.items():
      able = [part for part, spec in self.parts if spec.may_have(name)]
      if value and not able:
        raise errors.UserError(
          f'No part of the inputs can have {name}: {self.describe()}.'
        )
      for part in able:
        found[part] = found[part].having(**{name: value})
    return PackedSpec(tuple(found.items()))

  def with_part(self, name: str, **options: Any) -> PackedSpec:
    """Returns the spec with other fields of one part.

    Args:
      name: Name of the part.
      **options: Fields of `InputSpec`.
    """
    return PackedSpec(
      tuple(
        (part, spec.having(**options) if part == name else spec)
        for part, spec in self.parts
      )
    )

  def preprocess(
    self, inputs: tf.Tensor, training_seed: Optional[tf.Tensor] = None
  ) -> dict[str, tf.Tensor]:
    """Returns the parts as a model sees them, by name.

    Args:
      inputs: uint8[batch, bytes].
      training_seed: See `InputSpec.preprocess`; each part has its own draws.
    """
    sizes = [_num_bytes(spec) for _, spec in self.parts]
    found = {}
    rows = tf.split(inputs, sizes, axis=1)
    for index, ((name, spec), row) in enumerate(zip(self.parts, rows)):
      dtype = tf.as_dtype(spec.dtype)
      if dtype.size > 1:
        row = tf.bitcast(tf.reshape(row, [-1, *spec.shape, dtype.size]), dtype)
      else:
        row = tf.reshape(row, [-1, *spec.shape])
      seed = None
      if training_seed is not None and spec.is_augmented:
        seed = tf.random.experimental.stateless_fold_in(training_seed, index)
      found[name] = spec.preprocess(row, seed)
    return found

  def pack(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """Returns the parts as rows, uint8[num_examples, bytes].

    Args:
      inputs: By name, arrays as stored, see `InputSpec`.

    Raises:
      ValueError: If parts are missing, or have another shape or dtype.
    """
    names = [name for name, _ in self.parts]
    if set(inputs) != set(names):
      raise errors.UserError(
        f'Expected inputs of the parts {names}, found {[*inputs]}.'
      )
    rows = []
    for name, spec in self.parts:
      array = np.asarray(inputs[name])
      if (array.shape[1:], array.dtype.name) != (spec.shape, spec.dtype):
        raise errors.UserError(
          f'{name}: expected {spec.dtype}[num_examples, '
          f'{", ".join(map(str, spec.shape))}], found {array.dtype}'
          f'{list(array.shape)}.'
        )
      flat = np.ascontiguousarray(array).reshape(len(array), -1)
      rows.append(flat.view(np.uint8))
    lengths = dict(zip(names, map(len, rows)))
    if len(set(lengths.values())) > 1:
      raise errors.UserError(
        f'Expected parts of as many examples each, found {lengths}.'
      )
    return np.concatenate(rows, axis=1)

  def unpack(self, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the parts of rows as stored, by name; undoes `pack`.

    Args:
      rows: uint8[num_examples, bytes].
    """
    cuts = np.cumsum([_num_bytes(spec) for _, spec in self.parts])[:-1]
    return {
      name: np.ascontiguousarray(part)
      .view(spec.dtype)
      .reshape(len(rows), *spec.shape)
      for (name, spec), part in zip(self.parts, np.split(rows, cuts, axis=1))
    }


def rows_of(parts: Sequence[tf.Tensor]) -> tf.Tensor:
  """Returns parts as rows of bytes; `PackedSpec.pack` within TensorFlow.

  Args:
    parts: Tensors `[n, …]` of known shapes beside n, as stored, in the order of
      the spec.
  """
  rows = []
  for part in parts:
    size = part.dtype.size * part.shape[1:].num_elements()
    rows.append(tf.reshape(tf.bitcast(part, tf.uint8), [-1, size]))
  return tf.concat(rows, axis=1)


def _num_bytes(spec: input_spec_lib.InputSpec) -> int:
  return int(np.prod(spec.shape)) * np.dtype(spec.dtype).itemsize
