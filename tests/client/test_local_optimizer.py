"""Optimizers as flat vectors."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tff_fedsa.client import local_optimizer

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


def test_a_restarted_optimizer_forgets_and_may_have_another_rate():
  optimizer = local_optimizer.LocalOptimizer(
    _BUILDERS['momentum'](), learning_rate_fn=lambda r: 1 + r, state='keep'
  )
  zeros = tf.zeros([0])
  vector, expected = _steps(
    optimizer, optimizer.initial_vector(_SPECS), _weights(), 3, round_num=2
  )
  assert vector.shape != [0]
  vector, found = _steps(optimizer.restarted(), zeros, _weights(), 3, 2)
  assert vector.shape == [0]
  for a, b in zip(found, expected):
    np.testing.assert_array_equal(a, b)
  _, found = _steps(optimizer.restarted(0.5), zeros, _weights(), 1, 2)
  np.testing.assert_allclose(found[1], 0.75 * _weights()[1])


def test_groups_have_their_own_rates_states_and_norms():
  kept = local_optimizer.LocalOptimizer(_BUILDERS['momentum'](), state='keep')
  other = local_optimizer.LocalOptimizer(_BUILDERS['sgd']()).restarted(0.25)
  grouped = local_optimizer.GroupedOptimizer(
    [one.clipped(5.0) for one in (kept, other, other)], (1, 1, 0)
  )
  state = grouped.begin_round(
    kept.initial_vector(_SPECS[:1]), _SPECS, tf.constant(0)
  )
  weights = [tf.zeros([2, 3]), tf.zeros([4])]
  # Norms 10, which is scaled down to 5, and 3, which is not.
  gradients = [
    tf.constant([[6.0, 8.0, 0.0], [0.0, 0.0, 0.0]]),
    tf.constant([3.0, 0.0, 0.0, 0.0]),
  ]
  state, weights = grouped.next(state, weights, gradients)
  np.testing.assert_allclose(weights[0][0], [-0.3, -0.4, 0], rtol=1e-6)
  np.testing.assert_allclose(weights[1], [-0.75, 0, 0, 0], rtol=1e-6)
  # Momentum goes on in the first group.
  state, weights = grouped.next(state, weights, gradients)
  np.testing.assert_allclose(weights[0][0], [-0.87, -1.16, 0], rtol=1e-6)
  np.testing.assert_allclose(weights[1], [-1.5, 0, 0, 0], rtol=1e-6)
  vector = grouped.to_vector(state)
  assert vector.shape == kept.initial_vector(_SPECS[:1]).shape
  np.testing.assert_allclose(np.max(vector), 4 * 1.9, rtol=1e-6)
