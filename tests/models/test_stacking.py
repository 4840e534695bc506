"""Several clients' functions as one: the same numbers, or a refusal."""

import numpy as np
import pytest
import tensorflow as tf

from tff_fedsa.models import functional
from tff_fedsa.models import stacking
from tff_fedsa.runs import errors

_CLIENTS = 3


def _vectorized(fn, *arguments, jit_compile=None, **options):
  """Returns `fn` of all clients, and of one client after the other."""
  options = {'name': 'm', 'halves': [], **options}
  joint = tf.function(
    lambda *stacked: stacking.vectorize(fn, stacked, **options),
    autograph=False,
    jit_compile=jit_compile,
  )(*arguments)
  alone = [
    fn(*(argument[client] for argument in arguments))
    for client in range(_CLIENTS)
  ]
  return joint, tf.nest.map_structure(lambda *parts: tf.stack(parts), *alone)


def _gradients(fn):
  """Returns a function of the same arguments: value and gradients."""

  def with_gradients(*arguments):
    with tf.GradientTape() as tape:
      tape.watch(arguments)
      value = fn(*arguments)
      total = tf.reduce_sum(tf.sin(value))
    return value, tape.gradient(total, arguments)

  return with_gradients


def _normal(*shape):
  rng = np.random.default_rng(0)
  return tf.constant(rng.standard_normal([_CLIENTS, *shape]), tf.float32)


# CPUs have gradients of grouped convolutions only by XLA.
@pytest.mark.parametrize('grouped', [False, True])
@pytest.mark.parametrize(
  ('size', 'strides', 'padding', 'dilations'),
  [
    ((3, 2), 2, 'SAME', 1),
    ((2, 2), 1, 'VALID', 2),
  ],
)
def test_convolutions_with_own_kernels(
  grouped, size, strides, padding, dilations
):
  def convolve(images, kernels):
    return tf.nn.conv2d(images, kernels, strides, padding, dilations=dilations)

  joint, alone = _vectorized(
    _gradients(convolve),
    _normal(2, 6, 5, 3),
    _normal(*size, 3, 4),
    grouped=grouped,
    jit_compile=grouped,
  )
  for found, expected in zip(tf.nest.flatten(joint), tf.nest.flatten(alone)):
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_convolutions_with_one_kernel_and_other_operations():
  kernel = tf.constant(np.random.default_rng(1).normal(size=[3, 3, 2, 4]))
  kernel = tf.cast(kernel, tf.float32)

  def fn(images, scale, seed):
    found = tf.nn.conv2d(images, kernel, 1, 'SAME')
    found = tf.nn.max_pool2d(found, 2, 2, 'VALID')
    found, *_ = tf.compat.v1.nn.fused_batch_norm(found, scale, 0.5 * scale)
    # Each client has draws of its own.
    keep = tf.random.stateless_uniform([2, 2, 2, 4], seed) > 0.3
    return found * tf.cast(keep, tf.float32)

  seeds = tf.constant([[1, 2], [3, 4], [5, 6]])
  joint, alone = _vectorized(fn, _normal(2, 4, 4, 2), _normal(4), seeds)
  np.testing.assert_allclose(joint, alone, rtol=1e-4, atol=1e-5)
  assert len({tuple(row) for row in (joint.numpy() == 0).reshape(3, -1)}) == 3


@pytest.mark.parametrize('kind', ['cond', 'switch_case'])
def test_a_branch_that_some_clients_take(kind):
  def fn(images, kernels):
    branches = [
      lambda: (tf.nn.conv2d(images, kernels, 1, 'SAME'), tf.ones([2])),
      lambda: (tf.nn.conv2d(images, -2.0 * kernels, 1, 'SAME'), tf.zeros([2])),
    ]
    is_positive = kernels[0, 0, 0, 0] > 0
    if kind == 'cond':
      return tf.cond(is_positive, *branches)
    return tf.switch_case(tf.cast(is_positive, tf.int32), branches)

  kernels = _normal(2, 2, 3, 3)
  assert len(set((kernels.numpy()[:, 0, 0, 0, 0] > 0).tolist())) == 2
  joint, alone = _vectorized(fn, _normal(1, 4, 4, 3), kernels)
  for found, expected in zip(joint, alone):
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_tensorflows_own_conversions_are_left_as_they_are():
  before = dict(stacking._pfor._pfor_converter_registry)
  _vectorized(lambda x: tf.nn.relu(x), _normal(2))
  assert stacking._pfor._pfor_converter_registry == before


class _Positive(tf.keras.layers.Layer):
  """Keeps positive entries: another number of them for each client."""

  def call(self, inputs):
    chosen = tf.boolean_mask(inputs, inputs > 0)
    return inputs * tf.reduce_mean(chosen)


def test_a_layer_that_does_not_allow_it_is_named():
  images = tf.keras.Input([4])
  features = _Positive(name='positive')(tf.keras.layers.Dense(3)(images))
  halves = [tf.keras.Model(images, features)]
  step = tf.function(halves[0]).get_concrete_function(tf.TensorSpec([2, 4]))
  with pytest.raises(
    errors.UserError, match="'m': .* its layer 'positive' has no form"
  ):
    stacking.check_shapes(step, name='m', halves=halves)
  stacking.check_shapes(
    tf.function(tf.keras.layers.Dense(3)).get_concrete_function(
      tf.TensorSpec([2, 4])
    ),
    name='m',
    halves=halves,
  )


def test_an_operation_that_cannot_be_converted_is_refused():
  def fn(x):
    return tf.reshape(tf.io.parse_tensor(tf.io.serialize_tensor(x), x.dtype), 2)

  with pytest.raises(errors.UserError, match='its objective has no form'):
    _vectorized(fn, _normal(3))


def test_a_model_names_its_layer():
  def build_fn():
    images = tf.keras.Input([4])
    features = _Positive(name='positive')(images)
    return functional.KerasClientModel(
      tf.keras.Model(images, features),
      tf.keras.Sequential([tf.keras.Input([4]), tf.keras.layers.Dense(2)]),
    )

  assert functional.FunctionalModel(build_fn).halves[0].get_layer('positive')
