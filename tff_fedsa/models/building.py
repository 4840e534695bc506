"""Builds and copies the halves of a client's model."""

from collections.abc import Mapping, Sequence
from typing import Any, Optional

import numpy as np
import tensorflow as tf

from tff_fedsa.runs import errors


def build_half(
  half: tf.keras.Model, what: str, input_shape: Any
) -> tuple[Optional[int], ...]:
  """Builds the weights of a Keras model, and returns its output shape.

  Args:
    half: A feature extractor or a head.
    what: Name of the half, for error messages.
    input_shape: Shape of one example. Used only if the model does not know it.

  Raises:
    ValueError: If no shape is known, or there are several outputs.
  """
  if not _has_shapes(half):
    called_with = half.save_spec()
    if called_with is not None:
      (spec, *_), _ = called_with
      input_shape = tuple(spec.shape[1:])
    if input_shape is None or isinstance(input_shape, Mapping):
      raise errors.UserError(
        f'the {what} has no defined input shape. Use the functional API, start '
        'a Sequential model with an Input, or give `input_shape` to '
        'FunctionalModel.'
      )
    half(tf.keras.Input(input_shape))
  shapes = input_shape_of(half), half.output_shape
  if not isinstance(shapes[0], tuple | Mapping) or not isinstance(
    shapes[1], tuple
  ):
    raise errors.UserError(
      f'the {what} must have one input and one output (or a dict of inputs), '
      f'found input shape {shapes[0]} and output shape {shapes[1]}.'
    )
  return half.output_shape


def input_shape_of(half: tf.keras.Model) -> Any:
  """Returns the shape of a built model's input, a dict of several by name."""
  shape = half.input_shape
  if isinstance(shape, list):
    return dict(zip(half.input_names, shape))
  return shape


def copy_half(
  half: tf.keras.Model, weights: Sequence[np.ndarray]
) -> tf.keras.Model:
  """Returns a copy of a built Keras model with the given weights.

  Raises:
    ValueError: If the model cannot be copied.
  """
  try:
    if hasattr(half, '_is_graph_network') and half._is_graph_network:
      copy = tf.keras.models.clone_model(half)
    else:
      copy = type(half).from_config(half.get_config())
    if not copy.built:
      (spec, *_), _ = half.save_spec()
      copy(tf.keras.Input(spec.shape[1:]))
    if not half.trainable:
      copy.trainable = False
    copy.set_weights(weights)
  except (TypeError, ValueError, NotImplementedError) as error:
    raise errors.UserError(
      f'{half.name!r} cannot be copied ({error}). Give a function that builds '
      'it to FunctionalModel.'
    ) from error
  for layer in copy._flatten_layers():  # pylint: disable=protected-access
    if hasattr(layer, 'finalize_state'):
      # Normalization computes its constants from its weights.
      layer.finalize_state()
  return copy


def _has_shapes(half: tf.keras.Model) -> bool:
  """Returns whether a model's layers are connected and have all weights."""
  try:
    return bool(half.output_shape)
  except (AttributeError, RuntimeError):
    return False
