"""Optimizers as flat vectors."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tff_fedsa import local_optimizer

_SPECS = [tf.TensorSpec([2, 3]), tf.TensorSpec([4])]
_BUILDERS = {
  'sgd': lambda: tff.learning.optimizers.build_sgdm(0.1),
  'momentum': lambda: tff.learning.optimizers.build_sgdm(0.1, 0.9),
  'adam': lambda: tff.learning.optimizers.build_adam(0.1),
  'yogi': lambda: tff.learning.optimizers.build_yogi(0.1),
  'adagrad': lambda: tff.learning.optimizers.build_adagrad(0.1),
  'rmsprop': lambda: tff.learning.optimizers.build_rmsprop(0.1),
}


def _steps(optimizer, vector, weights, count, round_num=0):
  state = optimizer.begin_round(vector, _SPECS, tf.constant(round_num))
  for _ in range(count):
    state, weights = optimizer.next(state, weights, [0.5 * w for w in weights])
  return optimizer.to_vector(state), weights


def _weights():
  return [tf.reshape(tf.range(6.0), [2, 3]), tf.range(4.0)]


@pytest.mark.parametrize('name', _BUILDERS)
def test_kept_state_goes_on_where_it_was(name):
  optimizer = local_optimizer.LocalOptimizer(_BUILDERS[name](), state='keep')
  vector = optimizer.initial_vector(_SPECS)
  _, expected = _steps(optimizer, vector, _weights(), 6)
  vector, weights = _steps(optimizer, vector, _weights(), 2)
  assert vector.shape == optimizer.initial_vector(_SPECS).shape
  _, found = _steps(optimizer, vector, weights, 4)
  for a, b in zip(found, expected):
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize('name', _BUILDERS)
def test_reset_state_is_empty_and_each_round_is_new(name):
  optimizer = local_optimizer.LocalOptimizer(_BUILDERS[name]())
  vector, first = _steps(optimizer, tf.zeros([0]), _weights(), 3)
  assert vector.shape == [0]
  _, again = _steps(optimizer, vector, _weights(), 3)
  for a, b in zip(first, again):
    np.testing.assert_array_equal(a, b)


def test_learning_rate_by_round():
  optimizer = local_optimizer.LocalOptimizer(
    _BUILDERS['sgd'](), learning_rate_fn=lambda r: 1 / (1 + r)
  )
  weights = _weights()
  for round_num, rate in ((0, 1.0), (3, 0.25)):
    _, found = _steps(optimizer, tf.zeros([0]), weights, 1, round_num)
    np.testing.assert_allclose(found[1], weights[1] * (1 - rate * 0.5))


def test_a_keras_schedule_is_a_learning_rate_fn():
  schedule = tf.keras.optimizers.schedules.ExponentialDecay(1.0, 2, 0.25)
  optimizer = local_optimizer.LocalOptimizer(
    _BUILDERS['sgd'](), learning_rate_fn=schedule
  )
  _, found = _steps(optimizer, tf.zeros([0]), _weights(), 1, round_num=1)
  np.testing.assert_allclose(found[1], _weights()[1] * (1 - 0.5 * 0.5))


def test_bad_values_are_named():
  with pytest.raises(TypeError, match='Keras optimizers are not'):
    local_optimizer.LocalOptimizer(tf.keras.optimizers.SGD(0.1))
  with pytest.raises(ValueError, match="'forget'; known: reset, keep"):
    local_optimizer.LocalOptimizer(_BUILDERS['sgd'](), state='forget')
