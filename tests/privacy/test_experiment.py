"""Differential privacy in a run: the account, resuming, and seeds."""

import math

import numpy as np
import pytest

from tff_fedsa import experiment
from tff_fedsa import settings
from tff_fedsa.field import field_config
from tff_fedsa.privacy import dp_config
from tff_fedsa.runs import directory
from tff_fedsa.runs import metrics
from tff_fedsa.runs import recorders
from tff_fedsa.runs import running

pytestmark = pytest.mark.usefixtures('in_process_context')

_ALL_RETURN = field_config.FieldConfig()


def _experiment(**given):
  values = {
    'num_clients': 4,
    'max_examples': 160,
    'alpha': 1.0,
    'family': 'digits_mlp',
    'feature_dim': 8,
    'total_rounds': 2,
    'dp': 'central',
    'dp_noise_multiplier': 0.1,
  }
  return experiment.Experiment(**values | given)


def _rows(path):
  return recorders.read_csv(str(path / 'metrics.csv'))


def test_a_run_has_an_account_and_a_resumed_run_goes_on(tmp_path):
  whole = _experiment()
  result = whole.run(tmp_path / 'whole', progress=False)
  rows = _rows(tmp_path / 'whole')
  account = whole.account
  assert [row['dp_epsilon'] for row in rows] == [
    account.epsilon(n) for n in range(3)
  ]
  assert 'dp_epsilon' in metrics.PRIVACY_COLUMNS
  # Losses and counts of training are withheld.
  assert not {'loss', 'examples', 'clients_trained', 'gap_local'} & set(rows[2])
  assert math.isfinite(result.summary['rounds'])
  # A part of the run, and then the rest: the same bits, the same account.
  whole.run(tmp_path / 'parts', progress=False, total_rounds=1)
  resumed = whole.run(tmp_path / 'parts', progress=False)
  for one, other in zip(result.server_state.model, resumed.server_state.model):
    np.testing.assert_array_equal(one, other)
  assert [r['dp_epsilon'] for r in _rows(tmp_path / 'parts')] == [
    r['dp_epsilon'] for r in rows
  ]


def test_rounds_of_other_noise_are_refused(tmp_path):
  run = directory.RunDirectory(str(tmp_path))
  config = dp_config.DpConfig(dp='central', dp_epsilon=5.0)
  given = {'num_clients': 9, 'participants': 9, 'field': _ALL_RETURN}
  running.keep_account(run, config.account(total_rounds=10, **given))
  running.keep_account(run, config.account(total_rounds=10, **given))
  with pytest.raises(directory.RunDirectoryError, match='planned for another'):
    running.keep_account(run, config.account(total_rounds=11, **given))


def test_a_run_beyond_its_budget_writes_nothing(tmp_path):
  poor = _experiment(dp_epsilon=1.0)
  with pytest.raises(settings.SettingsError, match='pays for 0 rounds'):
    poor.run(tmp_path / 'run', progress=False)
  assert not (tmp_path / 'run').exists()


def test_own_draws_have_no_account():
  with pytest.raises(settings.SettingsError, match='without selection_fn'):
    _experiment().run(selection_fn=lambda round_num: [0])
