"""The field as settings and flags of an experiment."""

import numpy as np
import pytest

from tff_fedsa import experiment
from tff_fedsa import settings
from tff_fedsa.field import client_table
from tff_fedsa.field import field_config
from tff_fedsa.field import outcomes
from tff_fedsa.runs import metrics
from tff_fedsa.runs import recorders


def test_settings_are_those_of_an_experiment():
  one = experiment.Experiment(
    clients_per_round=5, over_selection=1.3, dropout=0.2, field_seed=3
  )
  assert one.field == field_config.FieldConfig(
    over_selection=1.3, dropout=0.2, field_seed=3
  )
  assert one.flags()['over_selection'] == 1.3


@pytest.mark.parametrize(
  'given, match',
  [
    ({'over_selection': 1.3}, 'over_selection would be ignored: all clients'),
    ({'partial_work': True}, 'would be ignored: there is no round_deadline'),
    ({'dropout': 1.0}, r'dropout in \[0, 1\), found 1'),
    ({'round_deadline': 0.0}, 'round_deadline > 0, found 0'),
  ],
)
def test_what_makes_no_sense_is_refused(given, match):
  with pytest.raises(settings.SettingsError, match=match):
    experiment.Experiment(**given)


_SMALL = {
  'num_clients': 6,
  'max_examples': 240,
  'alpha': 1.0,
  'family': 'digits_mlp',
  'feature_dim': 8,
  'total_rounds': 2,
}


@pytest.mark.usefixtures('in_process_context', 'shared_computations')
def test_a_run_in_a_directory(tmp_path):
  one = experiment.Experiment(
    clients_per_round=2, device_speed='lognormal', **_SMALL
  )
  wrong = one.replace(availability=str(tmp_path / 'nothing.csv'))
  with pytest.raises(client_table.FieldFileError, match='There is no file'):
    wrong.run(tmp_path / 'run', progress=False)
  assert not (tmp_path / 'run').exists()
  drawn = []

  def selection_fn(round_num, size):
    drawn.append((round_num, size))
    return [round_num, 0]

  one.run(tmp_path / 'run', progress=False, selection_fn=selection_fn)
  assert drawn == [(1, 2), (2, 2)]
  (_, first, second) = recorders.read_csv(str(tmp_path / 'run/metrics.csv'))
  assert set(metrics.FIELD_COLUMNS) < set(first)
  assert first['clients_available'] == 6 and first['clients_returned'] == 2
  assert second['simulated_seconds'] == (
    first['simulated_seconds_round'] + second['simulated_seconds_round']
  )
  # Going on without it would draw other clients.
  longer = one.replace(total_rounds=3)
  with pytest.raises(ValueError, match='started with a `selection_fn`'):
    longer.run(tmp_path / 'run', progress=False)
  longer.run(tmp_path / 'run', progress=False, selection_fn=selection_fn)
  assert drawn[-1] == (3, 2)


@pytest.mark.slow
@pytest.mark.usefixtures('in_process_context')
def test_averaged_models_lose_updates_too():
  options = {
    'algorithm': 'fedavg',
    'protocol': 'global',
    'test_set': 'per_domain',
    **_SMALL,
  }
  result = experiment.Experiment(dropout=0.5, **options).run(progress=False)
  for row in result.rows[1:]:
    assert 0 < row['clients_dropped'] < 6
    assert row['clients_trained'] == 6 - row['clients_dropped']
  # Who returns is averaged, and nobody else.
  only = experiment.Experiment(clients_per_round=5, **options)
  returned = [
    outcomes.build_field(only.task, field_config.FieldConfig(dropout=0.5))
    .outcome(round_num)
    .returned
    for round_num in (1, 2)
  ]
  same = only.run(
    progress=False, selection_fn=lambda round_num: returned[round_num - 1]
  )
  np.testing.assert_array_equal(
    result.server_state.model.weights, same.server_state.model.weights
  )


@pytest.mark.usefixtures('in_process_context', 'shared_computations')
def test_an_edited_file_is_noticed(tmp_path):
  path = tmp_path / 'there.csv'
  text = 'client,from,to\n' + ''.join(f'{i},1,\n' for i in range(6))
  path.write_text(text)
  longer = experiment.Experiment(
    clients_per_round=2, availability=str(path), **_SMALL
  )
  longer.replace(total_rounds=1).run(tmp_path / 'run', progress=False)
  path.write_text(text.replace('2,1,', '2,2,'))
  with pytest.raises(ValueError, match='--availability has changed since'):
    longer.run(tmp_path / 'run', progress=False)
  path.write_text(text)
  assert longer.run(tmp_path / 'run', progress=False).round_num == 2
