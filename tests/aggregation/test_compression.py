"""Fewer bytes: what crosses is as small as metrics say, and arrives."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tests.algorithms import clients
from tff_fedsa import experiment
from tff_fedsa import settings
from tff_fedsa.aggregation import aggregator_config
from tff_fedsa.aggregation import compression
from tff_fedsa.algorithms import registry
from tff_fedsa.client import client_state
from tff_fedsa.runs import metrics

_OTHERS = ('fedsa', 'fedtgp', 'fedpcl')

pytestmark = pytest.mark.usefixtures('in_process_context')


@pytest.fixture(scope='module')
def models():
  return [clients.tiny_mlp()]


def _build(name, models, *, aggregator=None, **given):
  return registry.build(
    name,
    models,
    input_spec=clients.SPEC,
    optimizer=clients.sgd(),
    local=clients.ONE_STEP,
    aggregator=aggregator,
    compression=compression.CompressionConfig(**given),
  )


def _size(value):
  return sum(np.asarray(leaf).nbytes for leaf in tf.nest.flatten(value))


def _received(process):
  """Returns what a client receives in the first round."""
  types = process.parts.distributor.next.type_signature.parameter

  @tff.federated_computation(*types, tff.FederatedType(np.int32, tff.CLIENTS))
  def distribute(state, model, unused_clients):
    return process.parts.distributor.next(state, model).result

  server = process.initialize()
  return distribute(server.distributor, server.model, [0])


# 10 classes and 16 features: float32 takes 640 bytes, weights 40.
@pytest.mark.parametrize(
  'name, given, up, down',
  [
    ('fedsa', {'compress': 'uniform8'}, 160 + 3 * 40, 640),
    ('fedproto', {'compress': 'uniform4'}, 80 + 3 * 40, 650),
    ('fedsa', {'compress': 'sketch'}, 20 + 2 * 40 + 8, 640),
    (
      'fedtgp',
      {'compress': 'topk', 'compress_fraction': 0.25, 'compress_down': 'topk'},
      4 * 60 + 40,
      4 * 60 + 10,
    ),
    (
      'fedpcl',
      {'compress': 'sketch', 'compress_down': 'sketch'},
      20 + 2 * 40 + 8,
      21 * (20 + 40) + 2 * 8 + 30,
    ),
  ],
)
def test_messages_are_as_small_as_metrics_say(models, name, given, up, down):
  process = _build(name, models, **given)
  found = metrics.communication_columns(process)
  # The round number goes down, too.
  assert found == {
    'bytes_up_per_client': up,
    'bytes_down_per_client': down + 4,
  }
  received = _received(process)
  assert _size(received) == down
  output = process.parts.client_work(
    0,
    received,
    client_state.build_initial_state_fn(models)(0),
    clients.random_examples(1)[0],
  )
  assert _size(output.update) == up


@pytest.mark.parametrize(
  'name',
  [
    'fedproto',
    *(pytest.param(name, marks=pytest.mark.slow) for name in _OTHERS),
  ],
)
def test_eight_bits_both_ways_learn_the_same(models, name):
  given = {'compress': 'uniform8', 'compress_down': 'uniform8'}
  examples = clients.random_examples()
  found, plain = (
    clients.run(_build(name, models, **options), models, examples)
    for options in (given, {})
  )
  server, states, measured = found
  assert measured['screening']['clients_rejected'] == 0
  assert measured['client_work']['clients_trained'] == 3
  assert server.distributor == 2
  error = np.abs(server.model.prototypes - plain[0].model.prototypes)
  spread = np.ptp(plain[0].model.prototypes)
  assert 0 < error.max() < spread / 50
  for state, expected in zip(states, plain[1]):
    np.testing.assert_allclose(state.weights, expected.weights, atol=1e-3)


@pytest.mark.slow
def test_anchors_come_relative_to_the_initial_ones(models):
  process = _build('fedsa', models, compress_down='sketch')
  # Nothing has moved, so all sizes are 0, and clients train on exact anchors.
  (message,) = _received(process)
  assert not np.any(message.size)
  states = [
    clients.run(p, models, clients.random_examples(), rounds=1)[1]
    for p in (process, _build('fedsa', models))
  ]
  for state, expected in zip(*states):
    np.testing.assert_array_equal(state.weights, expected.weights)


@pytest.mark.slow
def test_screened_by_the_anchors_that_clients_received(models):
  process = _build(
    'fedsa',
    models,
    compress_down='uniform4',
    aggregator=aggregator_config.AggregatorConfig('anchor_screened'),
  )
  _, _, measured = clients.run(process, models, clients.random_examples())
  assert measured['client_work']['clients_trained'] == 3


@pytest.mark.parametrize(
  'given, match',
  [
    ({'compress_seed': 1}, 'compress_seed would be ignored: compress=none'),
    (
      {'compress_down': 'uniform4', 'compress_fraction': 0.5},
      'compress_fraction would be ignored',
    ),
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
  with pytest.raises(ValueError, match='needs tables that the server sends'):
    _build('local', models, compress_down='uniform8')
