"""The test model and clients as `tff.learning` takes them."""

import collections

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tests.algorithms import clients
from tff_fedsa.client import local_training

# `tff.learning` goes through data sets as they are.
LOCAL = local_training.LocalTrainingConfig(
  batch_size=10, num_epochs=2, shuffle=False
)


def unequal_examples():
  """Two clients of 23 examples and one of 9."""
  return clients.random_examples(2, 23) + clients.random_examples(1, 9, seed=5)


def model_fn(activation='relu', head_units=()):
  """`clients.tiny_mlp` for `tff.learning`."""
  layers = tf.keras.layers
  return tff.learning.models.from_keras_model(
    tf.keras.Sequential(
      [
        tf.keras.Input([8, 8, 1]),
        layers.Flatten(),
        layers.Dense(32, activation=activation),
        layers.Dense(16),
        *map(layers.Dense, head_units),
        layers.Dense(10),
      ]
    ),
    loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    input_spec=collections.OrderedDict(
      x=tf.TensorSpec([None, 8, 8, 1]), y=tf.TensorSpec([None], tf.int32)
    ),
  )


def run(process, model, examples, rounds):
  """Returns the flat weights after some rounds from the model's own."""
  datasets = [
    tf.data.Dataset.from_tensor_slices(e)
    .batch(LOCAL.batch_size)
    .repeat(LOCAL.num_epochs)
    for e in examples
  ]
  trainable, _ = model.split(tf.constant(model.initial_weights(0)))
  state = process.set_model_weights(
    process.initialize(),
    tff.learning.models.ModelWeights([t.numpy() for t in trainable], []),
  )
  for _ in range(rounds):
    state = process.next(state, datasets).state
  weights = process.get_model_weights(state).trainable
  return np.concatenate([np.ravel(weight) for weight in weights])
