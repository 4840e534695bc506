"""Checks whether a client's update is finite and replaces it if not."""

from typing import Any

import tensorflow as tf


def all_finite(structure: Any) -> tf.Tensor:
  """Returns whether all its floating values are finite, bool scalar."""
  return tf.reduce_all(
    [
      tf.reduce_all(tf.math.is_finite(leaf))
      for leaf in tf.nest.flatten(structure)
      if leaf.dtype.is_floating
    ]
  )


def choose(condition: tf.Tensor, if_true: Any, if_false: Any) -> Any:
  """Returns one of two structures: `tf.where` of a scalar."""
  return tf.cond(condition, lambda: if_true, lambda: if_false)
