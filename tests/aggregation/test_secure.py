"""Secure processes: what is left outside of secure sums, and results."""

from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tests.algorithms import clients
from tff_fedsa import composer
from tff_fedsa import experiment
from tff_fedsa import settings
from tff_fedsa.aggregation import aggregator_config
from tff_fedsa.aggregation import screening
from tff_fedsa.aggregation import secure
from tff_fedsa.algorithms import registry
from tff_fedsa.runs import metrics
from tff_fedsa.server import averaging

_SECURE = secure.SecureConfig(secure=True)


class _Process(NamedTuple):
  """What is read of a process before another one is composed."""

  parts: composer.Parts


@pytest.fixture(scope='module')
def models():
  return [clients.tiny_mlp(), clients.tiny_mlp('tanh', head_units=(12,))]


def _build(name, models, config=None, **options):
  options = {'max_examples': 23, **options}
  return registry.build(
    name,
    models,
    input_spec=clients.SPEC,
    optimizer=clients.sgd(),
    local=clients.ONE_STEP,
    secure=config,
    **options,
  )


@pytest.fixture(scope='module')
def plain(models):
  """Prototypes and weights of two architectures are averaged."""
  return _build(
    'fedproto', models, averaging=averaging.build_weight_averaging(models)
  )


@pytest.fixture(scope='module')
def protected(plain):
  return secure.protect(plain, _SECURE)


def test_nothing_is_left_outside_of_secure_sums(plain, protected):
  secure.check(protected.next)
  tff.test.assert_contains_secure_aggregation(protected.next)
  with pytest.raises(ValueError, match='found 5:\n.*federated_aggregate'):
    secure.check(plain.next)
  # One sum is enough to be found: that of the metrics.
  one_left = composer.with_parts(protected, secure=False)
  with pytest.raises(ValueError, match='federated_sum'):
    secure.check(one_left.next)


def test_a_client_sends_room_for_all_architectures(models, plain, protected):
  sizes = [model.num_weights for model in models]
  measured = {'averager_mean_size': np.mean(sizes)}
  before = metrics.communication_columns(plain, measured)
  after = metrics.communication_columns(protected, measured)
  assert after['bytes_down_per_client'] == before['bytes_down_per_client']
  more = after['bytes_up_per_client'] - before['bytes_up_per_client']
  # And one weight more.
  assert more == 4 * (sum(sizes) - np.mean(sizes) + 1)


@pytest.mark.slow
@pytest.mark.usefixtures('context_in_the_clear')
def test_results_are_the_same_within_rounding(models, plain, protected):
  examples = clients.random_examples(4)
  one, other = (
    clients.run(process, models, examples) for process in (plain, protected)
  )
  for before, after in zip(
    tf.nest.flatten(one[0].model), tf.nest.flatten(other[0].model)
  ):
    np.testing.assert_allclose(before, after, atol=2e-6)
  work = other[2]['client_work']
  for name, value in one[2]['client_work'].items():
    assert work[name] == pytest.approx(value, rel=1e-4), name
  columns = metrics.training_columns(other[2])
  assert {n for n in metrics.SECURE_COLUMNS if n in columns} == {
    'aggregator_vectors_clipped',
    'averager_value_clipped',
    'metrics_clipped',
  }


@pytest.mark.slow
@pytest.mark.usefixtures('context_in_the_clear')
@pytest.mark.parametrize('name', ['fedsa', 'lg_fedavg'])
def test_methods_are_the_same_within_rounding(name, models):
  models, examples = models[:1], clients.random_examples()
  one, other = (
    clients.run(_build(name, models, config), models, examples)[0].model
    for config in (None, _SECURE)
  )
  for before, after in zip(tf.nest.flatten(one), tf.nest.flatten(other)):
    np.testing.assert_allclose(before, after, atol=2e-6)


@pytest.mark.slow
@pytest.mark.usefixtures('context_in_the_clear')
def test_small_bounds_clip_and_are_counted(models):
  process = _build(
    'fedproto', models[:1], secure.SecureConfig(secure=True, secure_bound=1e-3)
  )
  server, _, measured = clients.run(
    process, models[:1], clients.random_examples()
  )
  assert np.max(np.abs(server.model.prototypes)) <= 1e-3 + 1e-6
  # Three clients, above and below.
  assert measured['aggregator']['vectors']['clipped'] == 6


def test_servers_that_see_clients_are_refused(plain):
  update_type = plain.parts.client_work.type_signature.result.update
  median = aggregator_config.AggregatorConfig('median').build()
  other = plain.parts._replace(aggregator=median.create(update_type))
  with pytest.raises(ValueError, match='sees single clients'):
    secure.protect(_Process(other), _SECURE)


def test_weights_by_examples_need_the_largest_client(plain):
  unknown = plain.parts._replace(limits=screening.Limits('clients'))
  with pytest.raises(ValueError, match='need `max_examples`'):
    secure.protect(_Process(unknown), _SECURE)


@pytest.mark.parametrize(
  ('given', 'message'),
  [
    ({'algorithm': 'fedtgp'}, 'trains on the prototypes of each client'),
    ({'algorithm': 'fedpcl'}, 'sends the prototypes of each client'),
    ({'algorithm': 'fedgen'}, 'with the head of each client'),
    ({'aggregator': 'krum'}, 'look at single clients'),
    ({'attack': 'ipm'}, 'without attack'),
    ({'compress': 'uniform8'}, 'decodes the message'),
    ({'runtime': 'native'}, 'no secure sums'),
    ({'secure': False, 'secure_bound': 5.0}, 'would be ignored'),
  ],
)
def test_what_excludes_secure_sums_is_refused_at_once(given, message):
  with pytest.raises(settings.SettingsError, match=message):
    experiment.Experiment(**{'num_clients': 4, 'secure': True, **given})
