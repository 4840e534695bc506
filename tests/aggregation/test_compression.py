"""Fewer bytes: exact sizes, errors within a step, and the same learning."""

import numpy as np
import pytest
import tensorflow as tf

from tests.algorithms import clients
from tff_fedsa import experiment
from tff_fedsa import settings
from tff_fedsa.aggregation import compression
from tff_fedsa.algorithms import registry
from tff_fedsa.runs import metrics

pytestmark = pytest.mark.usefixtures('in_process_context')

_RNG = np.random.default_rng(0)
# An odd number of coordinates does not fill the last byte of 4-bit codes.
_VECTORS = tf.constant(_RNG.standard_normal([4, 7]), tf.float32)
_WEIGHTS = tf.constant([1.0, 0.0, 1.0, 1.0])


def _through(bits, seed=(0, 0), vectors=_VECTORS):
  message = compression.quantize(vectors, _WEIGHTS, bits, tf.constant(seed))
  return message, compression.dequantize(message, vectors.shape[1], bits)


@pytest.mark.parametrize('bits, size', [(8, 7), (4, 4)])
def test_an_error_is_less_than_a_step(bits, size):
  message, found = _through(bits)
  assert message.codes.shape == (4, size) and message.codes.dtype == tf.uint8
  step = np.asarray(message.step)[:, np.newaxis]
  expected = np.ptp(_VECTORS, axis=1, keepdims=True) / (2**bits - 1)
  np.testing.assert_allclose(step, expected, rtol=1e-6)
  assert (np.abs(found - _VECTORS) <= step * (1 + 1e-4)).all()
  assert np.abs(found - _VECTORS).max() > 0


def test_rounding_is_unbiased_and_repeats():
  found = np.stack([_through(4, (0, seed))[1] for seed in range(400)])
  step = np.asarray(_through(4)[0].step)[:, np.newaxis]
  # The standard deviation of a rounded value is half a step at most.
  assert (np.abs(found.mean(0) - _VECTORS) <= 5 * step / 2 / 20).all()
  np.testing.assert_array_equal(found[3], _through(4, (0, 3))[1])


def test_equal_coordinates_are_exact():
  vectors = tf.constant([[2.5] * 4, [0.0] * 4, [-1.0] * 4, [7.0] * 4])
  np.testing.assert_array_equal(_through(4, vectors=vectors)[1], vectors)


def test_the_largest_coordinates_are_kept():
  vectors = tf.constant([[0.1, -3.0, 2.0], [0.0, 0.0, 1.0]])
  message = compression.sparsify(vectors, tf.ones([2]), 2)
  assert message.places.dtype == tf.uint16
  np.testing.assert_array_equal(
    compression.densify(message, 3), [[0, -3, 2], [0, 0, 1]]
  )


@pytest.fixture(scope='module')
def models():
  return [clients.tiny_mlp()]


def _build(name, models, **given):
  return registry.build(
    name,
    models,
    input_spec=clients.SPEC,
    optimizer=clients.sgd(),
    local=clients.ONE_STEP,
    compression=compression.CompressionConfig(**given),
  )


# 10 classes and 16 features: float32 takes 640 bytes, weights 40.
@pytest.mark.parametrize(
  'name, given, size',
  [
    ('fedsa', {'compress': 'uniform8'}, 160 + 3 * 40),
    ('fedproto', {'compress': 'uniform4'}, 80 + 3 * 40),
    ('fedtgp', {'compress': 'topk', 'compress_fraction': 0.25}, 4 * 60 + 40),
  ],
)
def test_the_message_is_small_and_arrives(models, name, given, size):
  process = _build(name, models, **given)
  assert metrics.communication_columns(process)['bytes_up_per_client'] == size
  server, _, measured = clients.run(
    process, models, clients.random_examples(), rounds=1
  )
  assert measured['screening']['clients_rejected'] == 0
  assert measured['client_work']['clients_trained'] == 3
  if name != 'fedtgp':
    plain, states, _ = clients.run(
      _build(name, models), models, clients.random_examples(), rounds=1
    )
    error = np.abs(server.model.prototypes - plain.model.prototypes)
    spread = np.ptp(states[0].prototypes)
    assert 0 < error.max() < spread / (5 if name == 'fedproto' else 50)


@pytest.mark.parametrize(
  'given, match',
  [
    ({'compress_seed': 1}, 'compress_seed would be ignored: compress=none'),
    ({'compress': 'uniform8', 'attack': 'ipm'}, 'do not go together'),
    (
      {'compress': 'topk', 'dp': 'central', 'dp_epsilon': 1.0},
      'needs compress=none',
    ),
  ],
)
def test_what_does_not_go_together_is_refused(given, match):
  with pytest.raises(settings.SettingsError, match=match):
    experiment.Experiment(**given)


def test_other_messages_are_refused(models):
  with pytest.raises(ValueError, match='needs clients that send class means'):
    _build('lg_fedavg', models, compress='uniform8')
