"""The reference's test model and small clients, for tests of algorithms."""

import collections

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_fedsa.algorithms import registry
from tff_fedsa.client import client_state
from tff_fedsa.client import local_optimizer
from tff_fedsa.client import local_training
from tff_fedsa.data import input_spec
from tff_fedsa.models import functional

# The reference's inputs are float images, scaled already.
SPEC = input_spec.InputSpec((8, 8, 1), 'float32', scale=1.0, offset=0.0)
# One step in order: what golden files of a single batch hold.
ONE_STEP = local_training.LocalTrainingConfig(
  batch_size=10, remainder='drop', shuffle=False
)


def tiny_mlp(activation='relu', head_units=()):
  """The reference's test model: 64 - 32 - ReLU - 16, head 16 - 10."""

  def build_fn():
    images = tf.keras.Input([8, 8, 1])
    hidden = tf.keras.layers.Flatten()(images)
    hidden = tf.keras.layers.Dense(32, activation=activation)(hidden)
    features = tf.keras.layers.Dense(16)(hidden)
    units = [tf.keras.layers.Dense(size) for size in (*head_units, 10)]
    return functional.KerasClientModel(
      tf.keras.Model(images, features),
      tf.keras.Sequential([tf.keras.Input([16]), *units]),
    )

  return functional.FunctionalModel(build_fn, name=f'tiny_{activation}')


def flat(arrays, prefix):
  """A flat weight vector from torch arrays (kernels are [out, in] there)."""
  parts = []
  for layer in ('1', '2', 'h'):
    parts += [arrays[f'{prefix}_W{layer}'].T.ravel()]
    parts += [arrays[f'{prefix}_b{layer}']]
  return np.concatenate(parts)


def examples_of(images, labels):
  return collections.OrderedDict(
    x=np.asarray(images, np.float32), y=np.asarray(labels, np.int32)
  )


def random_examples(num_clients=3, num_examples=23, seed=0):
  rng = np.random.default_rng(seed)
  return [
    examples_of(
      rng.standard_normal((num_examples, 8, 8, 1)),
      rng.integers(0, 10, num_examples),
    )
    for _ in range(num_clients)
  ]


def sgd(learning_rate=0.01):
  return local_optimizer.LocalOptimizer(
    tff.learning.optimizers.build_sgdm(learning_rate)
  )


def build_fedsa(model, config, batch_clients=None, rate=0.1, **options):
  """Returns FedSA's process for one architecture."""
  return registry.build(
    'fedsa',
    [model],
    config,
    input_spec=SPEC,
    optimizer=sgd(rate),
    local=local_training.LocalTrainingConfig(batch_clients=batch_clients),
    **options,
  )


def run(process, models, examples, rounds=2):
  """Returns server state, client states and the last measurements."""
  initial_state_fn = client_state.build_initial_state_fn(models)
  states = [initial_state_fn(i) for i in range(len(examples))]
  server = process.initialize()
  for _ in range(rounds):
    output = process.next(server, states, examples)
    server, states = output.state, output.result
  return server, states, output.measurements


def assert_close(found, expected, tolerance=0.0):
  """Asserts that structures of arrays have the same numbers."""
  for one, other in zip(
    tf.nest.flatten(found), tf.nest.flatten(expected), strict=True
  ):
    np.testing.assert_allclose(one, other, tolerance, tolerance)
