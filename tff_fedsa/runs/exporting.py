"""Exports a client's trained model as an ordinary Keras model."""

from typing import Any, Optional

import numpy as np
import tensorflow as tf

from tff_fedsa.client import client_state as client_state_lib
from tff_fedsa.data import input_spec as input_spec_lib
from tff_fedsa.models import functional

# Added to the score of a class without a prototype, so that it never wins.
_NEVER = -1e30


def to_keras(
  model: functional.FunctionalModel,
  client_state: Optional[client_state_lib.ClientState],
  server_model: Any,
  input_spec: input_spec_lib.InputSpec,
  *,
  weights: Optional[np.ndarray] = None,
) -> tf.keras.Model:
  """Returns a Keras model from stored inputs to the scores of all classifiers.

  Preprocessing, prototypes and anchors become layers of Keras itself.
  `tf.keras.models.load_model` needs this project only if the architecture has
  layers of our own. Then import the module that registers them before
  (`models.pooling`, `models.standardization`, `models.vit_layers`).

  Args:
    model: The client's architecture.
    client_state: The client's state. Not needed if the server averages weights.
    server_model: The server's model. Its fields (see the module `server_model`)
      become classifiers. Averaged weights become those of the model.
    input_spec: Specification of the client's inputs.
    weights: float32[num_weights], the model's, where the server has more than
      the averaged weights of one model, or the client's own are meant.

  Returns:
    A model that maps inputs `[batch, *input_spec.shape]`, values as
    stored, to a dict: `features` `[batch, feature_dim]`, and `[batch,
    num_classes]` scores `head` (logits) and, if the server's model has their
    fields, `prototype` and `anchor` (larger if nearer) and `global_head`
    (logits). The argmax of each is a predicted class.
  """
  if weights is not None:
    own_weights = weights
  elif hasattr(server_model, 'weights'):
    own_weights = server_model.weights
  else:
    assert client_state is not None, 'A model of a client needs its state.'
    own_weights = client_state.weights
  keras_model = model.to_keras(np.asarray(own_weights))
  # Keras casts other dtypes to float32 first, and integers are looked up.
  is_float = input_spec.model_dtype == 'float32'
  inputs = tf.keras.Input(
    input_spec.shape,
    name='images' if input_spec.kind == 'image' else 'inputs',
    dtype='float32' if is_float else input_spec.dtype,
  )
  features = keras_model.feature_extractor(_preprocessed(inputs, input_spec))
  outputs = {'features': features, 'head': keras_model.head(features)}
  if hasattr(server_model, 'prototypes'):
    outputs['prototype'] = _nearness(
      'prototype',
      np.asarray(server_model.prototypes),
      np.asarray(server_model.present),
    )(features)
  if hasattr(server_model, 'anchors'):
    everywhere = np.ones(model.num_classes, bool)
    outputs['anchor'] = _nearness(
      'anchor', np.asarray(server_model.anchors), everywhere
    )(features)
  if hasattr(server_model, 'head'):
    with_head = model.with_head(own_weights, server_model.head)
    head = model.to_keras(with_head.numpy()).head
    # Names of layers and outputs must be unique in a model.
    outputs['global_head'] = tf.keras.Model(
      head.inputs, head.outputs, name='global_head'
    )(features)
  return tf.keras.Model(inputs, outputs, name=model.name)


def _preprocessed(
  inputs: tf.Tensor, input_spec: input_spec_lib.InputSpec
) -> tf.Tensor:
  if input_spec.model_dtype != 'float32':
    return inputs
  layers = tf.keras.layers
  inputs = layers.Rescaling(input_spec.scale, input_spec.offset)(inputs)
  if input_spec.size is not None:
    inputs = layers.Resizing(*input_spec.size)(inputs)
  if input_spec.channels is not None:
    repeats = input_spec.channels // input_spec.shape[2]
    if repeats > 1:
      inputs = layers.Concatenate()([inputs] * repeats)
  return inputs


def _nearness(
  name: str, centers: np.ndarray, present: np.ndarray
) -> tf.keras.layers.Layer:
  """A dense layer: `2 f.c - |c|^2`, i.e. |f|^2 minus the squared distance."""
  bias = np.where(present, -np.square(centers).sum(axis=1), _NEVER)
  layer = tf.keras.layers.Dense(len(centers), trainable=False, name=name)
  layer.build((None, centers.shape[1]))
  layer.set_weights([2.0 * centers.T, bias])
  return layer
