"""Gradients with the shapes of their weights, for loops."""

from typing import Any

import tensorflow as tf

from tff_fedsa.runs import errors


def gradients(tape: tf.GradientTape, loss: tf.Tensor, weights: Any) -> Any:
  """Returns the gradient of each weight, dense and with a static shape.

  TensorFlow's gradients are sparse for embeddings. For weights of
  `tf.tensordot` (Dense on rank 3 or more) their size is unknown. A weight of
  one row minus such a gradient has an unknown shape, and loops refuse it.

  Args:
    tape: The tape that recorded `loss`.
    loss: float32 scalar.
    weights: Structure of tensors that the tape watches. A weight without effect
      on the loss has the gradient zero.

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
