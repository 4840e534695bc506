"""Checks whether an update is finite, and replaces it if not."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

# No feature, logit or weight of a working model comes near this value. Squares
# of larger float32 values soon overflow.
LARGEST = 1e8


def all_finite(structure: Any) -> tf.Tensor:
  """Returns whether all floating values are finite, a bool scalar."""
  return _all(structure, tf.math.is_finite)


def all_usable(structure: Any) -> tf.Tensor:
  """Returns whether all floating values are finite and at most LARGEST.

  Args:
    structure: Tensors of any shapes.

  Returns:
    A bool scalar.
  """
  # Comparisons with NaN are false.
  return _all(structure, lambda leaf: tf.abs(leaf) <= LARGEST)


def choose(condition: tf.Tensor, if_true: Any, if_false: Any) -> Any:
  """Returns one of two structures, chosen by a scalar.

  Args:
    condition: bool scalar.
    if_true: Structure of tensors.
    if_false: Structure of tensors. A vector of unknown length may have another
      length than the one in `if_true`.
  """
  pairs = list(zip(tf.nest.flatten(if_true), tf.nest.flatten(if_false)))
  chosen = [
    first
    if first is second
    else tf.where(condition, first, second)
    if _have_one_shape(first, second)
    else None
    for first, second in pairs
  ]
  # A condition takes long to trace and to compile, but copies no weights.
  rest = [pair for pair, done in zip(pairs, chosen) if done is None]
  if rest:
    found = iter(
      tf.cond(
        condition,
        lambda: [first for first, _ in rest],
        lambda: [second for _, second in rest],
      )
    )
    chosen = [next(found) if done is None else done for done in chosen]
  return tf.nest.pack_sequence_as(if_true, chosen)


def _have_one_shape(first: tf.Tensor, second: tf.Tensor) -> bool:
  return first.shape.is_fully_defined() and first.shape == second.shape


def _all(structure: Any, condition_fn: Callable[..., tf.Tensor]) -> tf.Tensor:
  """Returns whether a condition holds for all floating values."""
  # Each once: Grappler may take another tensor in place of equal ones that are
  # stacked.
  leaves = {id(leaf): leaf for leaf in tf.nest.flatten(structure)}
  # Scalars of a type together: each operation takes time to trace.
  scalars: dict[tf.DType, list[tf.Tensor]] = {}
  conditions = []
  for leaf in leaves.values():
    if not leaf.dtype.is_floating:
      continue
    if leaf.shape.rank == 0:
      scalars.setdefault(leaf.dtype, []).append(leaf)
    else:
      conditions.append(tf.reduce_all(condition_fn(leaf)))
  conditions += [
    tf.reduce_all(condition_fn(tf.stack(of_type)))
    for of_type in scalars.values()
  ]
  return tf.reduce_all(conditions) if conditions else tf.constant(True)
