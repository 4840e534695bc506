"""Computations for tests of runtimes with several workers."""

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_fedsa.data import tasks
from tff_fedsa.models import functional

INTS = tff.FederatedType(np.int32, tff.CLIENTS)
TWELVE = list(range(12))


def build_map_slow(num_steps):
  """Returns a computation that takes long enough to lose a worker meanwhile.

  Args:
    num_steps: Steps of each client. The computation adds them to its value.
  """

  @tff.tensorflow.computation(np.int32)
  def slow(x):
    limit = tf.constant(num_steps)
    (steps,) = tf.while_loop(lambda i: i < limit, lambda i: (i + 1,), (x * 0,))
    return x + steps

  @tff.federated_computation(INTS)
  def map_slow(values):
    return tff.federated_map(slow, values)

  return map_slow


@tff.tensorflow.computation(np.int32)
def _small(x):
  with tf.control_dependencies(
    [tf.debugging.assert_less(x, 100, message='too large')]
  ):
    return tf.bitcast(x + 1, tf.int32)


@tff.federated_computation(INTS)
def map_small(values):
  """Adds one to each value, and refuses 100 and more."""
  return tff.federated_map(_small, values)


def build_smooth_models(task, feature_dim=64):
  """Returns two models without ReLU and max pooling: an MLP and a small CNN.

  TFF's worker has kernels of another build of TensorFlow, which round
  differently.
  At a kink of a model, the last digit of one number may decide about a whole
  row of a gradient, on some CPUs and not on others.
  """
  layers = tf.keras.layers

  def build(*hidden):
    features = [
      tf.keras.Input(task.input_spec.model_shape),
      *hidden,
      layers.Flatten(),
      layers.Dense(feature_dim),
    ]
    head = [tf.keras.Input([feature_dim]), layers.Dense(task.num_classes)]
    return functional.KerasClientModel(
      tf.keras.Sequential(features), tf.keras.Sequential(head)
    )

  def mlp():
    return build(layers.Flatten(), layers.Dense(64, 'tanh'))

  def cnn():
    return build(
      layers.Conv2D(16, 3, padding='same'),
      layers.BatchNormalization(momentum=0.9),
      layers.Activation('tanh'),
      layers.AveragePooling2D(),
    )

  return [
    functional.FunctionalModel(build_fn, name=build_fn.__name__)
    for build_fn in (mlp, cnn)
  ]


def build_learning(build, num_hidden=None):
  """Returns a function that trains three rounds by a process of TFF.

  Args:
    build: `fn(model_fn)`, which returns a `LearningProcess`.
    num_hidden: Size of a hidden layer. Default: there is none.

  Returns:
    `fn() -> (trainable weights, metrics of each round)`.
  """
  task = tasks.load_task(tasks.TaskSpec(num_clients=3, max_examples=240))
  clients = [
    tf.data.Dataset.from_tensor_slices(
      (client.train['x'].astype(np.float32) / 16, client.train['y'])
    ).batch(10)
    for client in task.clients
  ]
  spec = clients[0].element_spec

  def model_fn():
    seeded = tf.keras.initializers.GlorotUniform(seed=1)
    layers = [tf.keras.layers.Flatten(input_shape=spec[0].shape[1:])]
    if num_hidden is not None:
      layers.append(
        tf.keras.layers.Dense(num_hidden, 'relu', kernel_initializer=seeded)
      )
    layers.append(tf.keras.layers.Dense(10, kernel_initializer=seeded))
    return tff.learning.models.from_keras_model(
      tf.keras.Sequential(layers),
      loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
      input_spec=spec,
      metrics=[tf.keras.metrics.SparseCategoricalAccuracy()],
    )

  process = build(model_fn)

  def run():
    state, metrics = process.initialize(), []
    for _ in range(3):
      output = process.next(state, clients)
      state = output.state
      metrics.append(output.metrics)
    return process.get_model_weights(state).trainable, metrics

  return run
