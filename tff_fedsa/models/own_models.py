"""Own Keras models as functional models."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tff_fedsa.models import functional
from tff_fedsa.runs import errors


def to_functional(
  models: Sequence[Any], input_shape: Any, num_classes: int
) -> list[functional.FunctionalModel]:
  """Turns own models into functional models.

  Args:
    models: Each model is a `FunctionalModel`, a pair of Keras models (inputs to
      features, features to logits), or a Keras model from inputs to logits with
      the head as its last layer. Training starts with the present weights of
      Keras models.
    input_shape: Shape of one input of the data; a dict of several by name.
    num_classes: Classes of the data.

  Raises:
    TypeError: If a model is of another kind.
    ValueError: If a model does not fit the data or the others.
  """
  found = [_functional(index, model) for index, model in enumerate(models)]
  if not found:
    raise errors.UserError('Expected at least one model, found none.')
  for model in found:
    expected = input_shape, num_classes, found[0].feature_dim
    has = model.input_shape, model.num_classes, model.feature_dim
    if has != expected:
      raise errors.UserError(
        f'Model {model.name!r}: expected inputs {expected[0]}, {expected[1]} '
        f'classes and {expected[2]} features (those of the first model), found '
        f'inputs {has[0]}, {has[1]} classes and {has[2]} features.'
      )
  return found


def _functional(index: int, model: Any) -> functional.FunctionalModel:
  if isinstance(model, functional.FunctionalModel):
    return model
  if isinstance(model, tf.keras.Model):
    return functional.FunctionalModel.from_keras(
      _halves(model), name=model.name
    )
  if isinstance(model, tuple | list) and len(model) == 2:
    return functional.FunctionalModel.from_keras(
      functional.KerasClientModel(*model), name=f'model_{index}'
    )
  raise TypeError(
    f'Model {index}: expected a Keras model, a pair of Keras models (feature '
    f'extractor, head) or a FunctionalModel, found {type(model).__name__}.'
  )


def _halves(model: tf.keras.Model) -> functional.KerasClientModel:
  """Cuts a classifier before its last layer."""
  layer = model.layers[-1] if model.built and model.layers else None
  features: Any = getattr(layer, 'input', None)
  if not isinstance(layer, tf.keras.layers.Dense) or features.shape.rank != 2:
    raise errors.UserError(
      f'Model {model.name!r}: expected a built Keras model whose last layer is '
      'Dense, features [batch, feature_dim] to logits; give a pair of models '
      '(feature extractor, head) instead.'
    )
  if layer.activation is not tf.keras.activations.linear:
    raise errors.UserError(
      f'Model {model.name!r}: expected the last layer {layer.name!r} to give '
      f'logits, found activation={layer.activation.__name__!r}: leave it out.'
    )
  of_head = tf.keras.Input(features.shape[1:])
  copied = type(layer).from_config(layer.get_config())
  head = tf.keras.Model(of_head, copied(of_head), name='head')
  head.set_weights(layer.get_weights())
  is_dict = isinstance(model.input, dict)
  inputs = model.input if is_dict else model.inputs
  return functional.KerasClientModel(
    tf.keras.Model(inputs, features, name='extractor'), head
  )
