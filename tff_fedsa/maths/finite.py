"""Checks whether an update is finite, and replaces it if not."""

from typing import Any

import tensorflow as tf

# No feature, logit or weight of a working model comes near this value. Squares
# of larger float32 values soon overflow.
LARGEST = 1e8


def all_finite(structure: Any) -> tf.Tensor:
  """Returns whether all floating values are finite, a bool scalar."""
  return tf.reduce_all(
    [
      tf.reduce_all(tf.math.is_finite(leaf))
      for leaf in tf.nest.flatten(structure)
      if leaf.dtype.is_floating
    ]
  )


def all_usable(structure: Any) -> tf.Tensor:
  """Returns whether all floating values are finite and at most LARGEST.

  Args:
    structure: Tensors of any shapes.

  Returns:
    A bool scalar.
  """
  # Comparisons with NaN are false.
  return tf.reduce_all(
    [
      tf.reduce_all(tf.abs(leaf) <= LARGEST)
      for leaf in tf.nest.flatten(structure)
      if leaf.dtype.is_floating
    ]
  )


def choose(condition: tf.Tensor, if_true: Any, if_false: Any) -> Any:
  """Returns one of two structures, chosen by a scalar."""
  return tf.cond(condition, lambda: if_true, lambda: if_false)
