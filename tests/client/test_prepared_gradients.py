"""Weight decay and clipping, against formulas and NumPy."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tests import golden
from tff_fedsa import settings
from tff_fedsa.client import optimizer_config
from tff_fedsa.client import prepared_gradients

_WEIGHTS = [np.array([[1.0, -2.0]], np.float32), np.array([3.0], np.float32)]
_GRADIENTS = [np.array([[0.3, 0.4]], np.float32), np.array([1.2], np.float32)]
_SPECS = [tf.TensorSpec([1, 2]), tf.TensorSpec([1])]


def _step(**options):
  config = optimizer_config.OptimizerConfig(learning_rate=0.1, **options)
  optimizer = config.build()
  state = optimizer.begin_round(tf.zeros([0]), _SPECS, tf.constant(0))
  _, weights = optimizer.next(
    state,
    [tf.constant(weight) for weight in _WEIGHTS],
    [tf.constant(gradient) for gradient in _GRADIENTS],
  )
  return weights


def _expected(gradients):
  return [w - 0.1 * g for w, g in zip(_WEIGHTS, gradients)]


def _clipped(gradients, norm):
  total = np.sqrt(sum((g**2).sum() for g in gradients))
  return [g * min(1.0, norm / total) for g in gradients]


def test_a_large_gradient_is_scaled_down_and_a_small_one_is_not():
  # The norm of all gradients together is 1.3.
  for norm in (0.5, 1.29, 1.31, 100.0):
    expected = _expected(_clipped(_GRADIENTS, norm))
    for found, weight in zip(_step(clip_norm=norm), expected):
      golden.assert_close(found, weight)
  for found, weight in zip(_step(clip_norm=100.0), _step()):
    np.testing.assert_allclose(found, weight, rtol=1e-6)


@pytest.mark.parametrize('optimizer', ['sgd', 'momentum'])
def test_weight_decay_is_added_before_clipping(optimizer):
  decayed = [g + 0.5 * w for g, w in zip(_GRADIENTS, _WEIGHTS)]
  for found, weight in zip(
    _step(optimizer=optimizer, weight_decay=0.5), _expected(decayed)
  ):
    golden.assert_close(found, weight)
  for found, weight in zip(
    _step(optimizer=optimizer, weight_decay=0.5, clip_norm=1.0),
    _expected(_clipped(decayed, 1.0)),
  ):
    golden.assert_close(found, weight)


def test_adamw_keeps_its_own_decay():
  own = tff.learning.optimizers.build_adamw(0.1, weight_decay=0.5)
  _, expected = own.next(
    own.initialize(_SPECS),
    [tf.constant(weight) for weight in _WEIGHTS],
    [tf.constant(gradient) for gradient in _GRADIENTS],
  )
  for found, weight in zip(
    _step(optimizer='adamw', weight_decay=0.5), expected
  ):
    golden.assert_close(found, weight)


def test_other_optimizers_say_that_they_have_no_decay():
  config = optimizer_config.OptimizerConfig(optimizer='adam', weight_decay=0.5)
  assert list(config.ignored()) == ['weight_decay']
  with pytest.raises(settings.SettingsError, match='clip_norm'):
    optimizer_config.OptimizerConfig(clip_norm=0.0)


def test_the_learning_rate_can_still_be_set():
  optimizer = prepared_gradients.PreparedGradients(
    tff.learning.optimizers.build_sgdm(0.1, 0.9), clip_norm=1.0
  )
  state = optimizer.initialize(_SPECS)
  assert optimizer.get_hparams(state)['learning_rate'] == 0.1
  state = optimizer.set_hparams(
    state, {**optimizer.get_hparams(state), 'learning_rate': 0.5}
  )
  assert optimizer.get_hparams(state)['learning_rate'] == 0.5
