"""Settings of differential privacy, their account, and what they exclude."""

import pytest

from tff_fedsa import experiment
from tff_fedsa import settings
from tff_fedsa.field import field_config
from tff_fedsa.privacy import accounting
from tff_fedsa.privacy import dp_config

_CENTRAL = {'dp': 'central', 'dp_noise_multiplier': 2.0}


def _account(config, field=None, **given):
  values = {'num_clients': 100, 'participants': 10, 'total_rounds': 20}
  field = field or field_config.FieldConfig()
  return config.account(**values | given, field=field)


@pytest.mark.parametrize(
  'given, match',
  [
    ({'dp': 'central'}, 'needs dp_epsilon, from which the noise follows'),
    ({'dp_epsilon': 1.0}, 'dp_epsilon would be ignored: dp=none'),
    ({**_CENTRAL, 'dp_cohort': 9}, 'both dp_cohort and dp_population'),
    (
      {**_CENTRAL, 'dp_cohort': 9, 'dp_population': 8},
      'dp_cohort <= dp_population=8, found 9',
    ),
    (
      {**_CENTRAL, 'dp': 'local', 'dp_cohort': 9, 'dp_population': 99},
      'dp_cohort needs dp=central',
    ),
    (
      {**_CENTRAL, 'algorithm': 'fedtgp'},
      'feddistill.. Its server trains on the prototypes of each client',
    ),
    ({**_CENTRAL, 'dp': 'distributed'}, 'dp=distributed needs secure'),
    (
      {**_CENTRAL, 'dp': 'distributed', 'secure': True, 'dropout': 0.1},
      'all drawn clients to return',
    ),
    ({**_CENTRAL, 'dp_bits': 20}, 'dp_bits would be ignored: dp=central'),
    (
      {**_CENTRAL, 'dp': 'local', 'dp_clip_quantile': 0.5},
      'dp_clip_quantile would be ignored: dp=local',
    ),
    ({**_CENTRAL, 'dp_delta': 0.0}, r'dp_delta in \(0, 1\), found 0'),
    ({**_CENTRAL, 'algorithm': 'fedavg'}, 'fedsa, fedproto, feddistill'),
    ({**_CENTRAL, 'share_weights': 'model'}, 'needs share_weights=none'),
    ({**_CENTRAL, 'prototype_weighting': 'examples'}, 'weighting=clients'),
    ({**_CENTRAL, 'aggregator': 'median'}, 'dp=central needs aggregator=mean'),
    ({**_CENTRAL, 'attack': 'ipm'}, 'needs a run without attack'),
    (
      {**_CENTRAL, 'clients_per_round': 5, 'over_selection': 1.2},
      'needs over_selection=1',
    ),
  ],
)
def test_what_makes_no_sense_is_refused_in_one_line(given, match):
  with pytest.raises(settings.SettingsError, match=match) as error:
    experiment.Experiment(**given)
  assert '\n' not in str(error.value)


def test_without_privacy_there_is_no_account():
  assert _account(dp_config.DpConfig()) is None


def test_the_noise_follows_from_the_budget():
  config = dp_config.DpConfig(dp='central', dp_epsilon=4.0)
  account = _account(config, participants=100)
  assert 3.9 < account.epsilon(20) <= 4.0
  assert account.sampling == accounting.Sampling(100, 100)


def test_a_run_beyond_its_budget_does_not_begin():
  config = dp_config.DpConfig(**_CENTRAL, dp_epsilon=4.0)
  with pytest.raises(settings.SettingsError, match='pays for [0-9]+ rounds'):
    _account(config, total_rounds=1000)
  spent = _account(dp_config.DpConfig(**_CENTRAL), total_rounds=5).epsilon(5)
  config = dp_config.DpConfig(**_CENTRAL, dp_epsilon=spent)
  assert _account(config, total_rounds=5).noise_multiplier == 2.0


@pytest.mark.parametrize(
  'config, field, cohort',
  [
    (_CENTRAL, {}, 10),
    (_CENTRAL, {'dropout': 0.5}, 10),
    # Draws are not uniform, or the server sees who sends what.
    (_CENTRAL, {'availability': 'random'}, 100),
    ({**_CENTRAL, 'dp': 'local'}, {}, 100),
  ],
)
def test_who_counts_as_drawn(config, field, cohort):
  account = _account(
    dp_config.DpConfig(**config), field_config.FieldConfig(**field)
  )
  assert account.sampling == accounting.Sampling(100, cohort)


def test_a_larger_deployment_has_less_noise_on_the_mean():
  config = dp_config.DpConfig(**_CENTRAL, dp_cohort=1000, dp_population=50000)
  account = _account(config)
  assert account.sampling == accounting.Sampling(50000, 1000)
  mechanism = config.mechanism(account, 10)
  assert account.noise_multiplier == 2.0
  assert mechanism.noise_multiplier == pytest.approx(0.02)
  assert mechanism.participants == 10


def test_shares_of_noise_cost_what_the_noise_of_the_sum_costs():
  accounts = [
    _account(dp_config.DpConfig(dp=kind, dp_noise_multiplier=2.0))
    for kind in ('central', 'distributed')
  ]
  assert accounts[0] == accounts[1]
  assert accounts[1].sampling == accounting.Sampling(100, 10)
