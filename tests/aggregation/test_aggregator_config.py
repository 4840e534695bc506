"""Settings of the aggregator and the attack, in experiments."""

import pytest

from tff_fedsa import experiment
from tff_fedsa import settings
from tff_fedsa.aggregation import aggregator_config

pytestmark = pytest.mark.usefixtures('in_process_context')


@pytest.mark.parametrize(
  'given, message',
  [
    ({'aggregator': 'average'}, 'Unknown aggregator'),
    ({'aggregator_fraction': 0.1}, 'would be ignored: aggregator=mean'),
    ({'aggregator': 'krum', 'aggregator_fraction': 0.5}, r'in \[0, 0.5\)'),
    ({'aggregator': 'krum', 'aggregator_clip': 2.0}, 'would be ignored'),
    ({'aggregator': 'median', 'algorithm': 'fedgen'}, 'would be ignored'),
    ({'aggregator': 'median', 'algorithm': 'local'}, 'would be ignored'),
    (
      {'aggregator': 'anchor_screened', 'algorithm': 'fedproto'},
      'needs a method with anchors',
    ),
    ({'attack_scale': 3.0}, 'would be ignored: there is no attack'),
    ({'attack': 'mimic', 'attack_scale': 3.0}, 'would be ignored'),
    ({'attack': 'scale', 'attack_source': 3}, 'would be ignored'),
    ({'attack': 'scale', 'attack_fraction': 1.0}, r'in \[0, 1\)'),
    (
      {'attack': 'targeted', 'algorithm': 'fedavg', 'family': 'digits_mlp'},
      'needs a method with prototypes',
    ),
    (
      {'attack': 'targeted', 'protocol': 'global', 'test_set': 'original'},
      'needs a method with prototypes',
    ),
  ],
)
def test_what_would_not_do_is_refused(given, message):
  with pytest.raises(settings.SettingsError, match=message):
    experiment.Experiment(**given)


@pytest.mark.parametrize('name', aggregator_config.AGGREGATORS)
def test_every_aggregator_builds(name):
  built = aggregator_config.AggregatorConfig(name).build()
  assert (built is None) == (name == 'mean')


def _run(total_rounds=4, **given):
  return experiment.Experiment(
    num_clients=10,
    alpha=5.0,
    max_examples=1000,
    total_rounds=total_rounds,
    rounds_per_evaluation=total_rounds,
    family='digits_mlp',
    client_learning_rate=0.05,
    feature_dim=32,
    **given,
  ).run(progress=False)


def test_a_targeted_attack_reports_its_success():
  result = _run(total_rounds=1, attack='targeted', aggregator='trimmed_mean')
  (*_, row) = result.rows
  for name in ('prototype', 'anchor', 'head'):
    assert 0.0 <= row[f'attack_success_{name}'] <= 1.0
  assert row['clients_trained'] == 8 and row['clients_rejected'] == 0
  # Attackers are not tested.
  untested = [
    i for i, c in enumerate(result.per_client) if not c['num_examples']
  ]
  assert tuple(untested) == result.experiment.attack.attackers(10)
  assert result.figures()['per_client_accuracy'].axes


@pytest.mark.slow
def test_a_targeted_attack_costs_a_class():
  mean, trimmed = (
    _run(attack='targeted', attack_scale=20.0, aggregator=name).rows[-1]
    for name in ('mean', 'trimmed_mean')
  )
  # One class of ten is lost, to whatever class lies nearest.
  column = 'prototype_accuracy'
  assert mean[column] < trimmed[column] - 0.03


@pytest.mark.slow
@pytest.mark.parametrize('name', ['fedproto', 'fedtgp'])
def test_flipped_signs_times_ten_do_not_end_learning(name):
  given = {'algorithm': name}
  if name == 'fedtgp':
    given['fedtgp_server_epochs'] = 20
  column = 'prototype_accuracy'
  honest, attacked, defended = (
    _run(**given, **more).rows[-1][column]
    for more in (
      {},
      {'attack': 'sign_flip'},
      {'attack': 'sign_flip', 'aggregator': 'median'},
    )
  )
  assert honest > 0.6
  assert defended > honest - 0.1
  if name == 'fedproto':
    assert attacked < honest - 0.2
