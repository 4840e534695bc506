"""Exports a client's trained model as an ordinary Keras model."""

import os
from typing import Any, Optional

import numpy as np
import tensorflow as tf

from tff_fedsa.client import client_state as client_state_lib
from tff_fedsa.data import input_spec as input_spec_lib
from tff_fedsa.data import packing
from tff_fedsa.models import functional
from tff_fedsa.runs import errors

# Added to the score of a class without a prototype, so that it never wins.
_NEVER = -1e30


def to_keras(
  model: functional.FunctionalModel,
  client_state: Optional[client_state_lib.ClientState],
  server_model: Any,
  input_spec: input_spec_lib.InputSpec | packing.PackedSpec,
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
    A model that maps inputs `[batch, *input_spec.shape]`, values as stored (a
    dict of parts by name, where there are several), to a dict: `features`
    `[batch, feature_dim]`, and `[batch, num_classes]` scores `head` (logits)
    and, if the server's model has their
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
  inputs: Any
  seen: Any
  if isinstance(input_spec, packing.PackedSpec):
    inputs = {name: _input(spec, name) for name, spec in input_spec.parts}
    seen = {n: _preprocessed(inputs[n], spec) for n, spec in input_spec.parts}
  else:
    inputs = _input(
      input_spec, 'images' if input_spec.kind == 'image' else 'inputs'
    )
    seen = _preprocessed(inputs, input_spec)
  features = keras_model.feature_extractor(seen)
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


def read(path: str) -> tuple[str, functional.KerasClientModel]:
  """Reads an exported model; undoes `to_keras`.

  Args:
    path: File that `tff-fedsa export` wrote, or Keras's `save` of `to_keras`.

  Returns:
    The name of the architecture, and its feature extractor and head.

  Raises:
    UserError: If the file is missing, or is no such model.
  """
  if not os.path.isfile(path):
    raise errors.UserError(f'There is no exported model at {path!r}.')
  try:
    model = tf.keras.models.load_model(path, compile=False)
    halves = [
      model.output[name]._keras_history.layer for name in ('features', 'head')
    ]
  except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
    reason = ' '.join(str(error).split()) or type(error).__name__
    raise errors.UserError(
      f'{path!r} is no model that `tff-fedsa export` wrote: {reason}'
    ) from error
  return model.name, functional.KerasClientModel(*halves)


def _input(spec: input_spec_lib.InputSpec, name: str) -> tf.Tensor:
  # Keras casts other dtypes to float32 first, and integers are looked up.
  is_float = spec.model_dtype == 'float32'
  dtype = 'float32' if is_float else spec.dtype
  return tf.keras.Input(spec.shape, name=name, dtype=dtype)


def _preprocessed(
  inputs: tf.Tensor, input_spec: input_spec_lib.InputSpec
) -> tf.Tensor:
  if input_spec.model_dtype != 'float32':
    return inputs
  layers = tf.keras.layers
  inputs = layers.Rescaling(input_spec.scale, input_spec.offset)(inputs)
  if input_spec.masked:
    # Keras saves no slices.
    _, mask = tf.split(inputs, [input_spec.shape[1] - 1, 1], axis=-1)
    inputs = inputs * mask
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
