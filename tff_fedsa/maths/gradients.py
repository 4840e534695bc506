"""Gradients that can take the place of their weights in a loop."""

from typing import Any

import tensorflow as tf

from tff_fedsa.runs import errors


def gradients(tape: tf.GradientTape, loss: tf.Tensor, weights: Any) -> Any:
  """Returns the gradient of each weight: dense, and of its static shape.

  TensorFlow's are sparse for embeddings, and of unknown size where a weight is
  used by `tf.tensordot` (Dense on rank 3 or more). There, a weight of one row
  minus its gradient would have an unknown shape, too, which no loop takes.

  Args:
    tape: Has recorded `loss`.
    loss: float32 scalar.
    weights: Structure of tensors that the tape watches. The gradient of one
      without part in the loss is zero.

  Raises:
    ValueError: If TensorFlow does not know the gradient of an operation.
  """
  try:
    found = tape.gradient(loss, weights, unconnected_gradients='zero')
  except LookupError as error:
    raise errors.UserError(
      f'TensorFlow has no gradient of an operation ({error}). Move its layer '
      'in front of all layers with weights, or put tf.stop_gradient there.'
    ) from error
  return tf.nest.map_structure(_like, weights, found)


def _like(weight, gradient):
  gradient = tf.convert_to_tensor(gradient)
  if gradient.shape.as_list() == weight.shape.as_list():
    return gradient
  return tf.ensure_shape(gradient, weight.shape)
