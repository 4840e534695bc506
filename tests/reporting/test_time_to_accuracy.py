"""Rounds and simulated seconds to an accuracy, of known curves."""

import io

import pandas
import pytest

from tests.reporting import made_up
from tff_fedsa.reporting import comparison
from tff_fedsa.reporting import groups as groups_lib
from tff_fedsa.reporting import runs
from tff_fedsa.reporting import tables
from tff_fedsa.reporting import time_to_accuracy


@pytest.fixture
def groups(tmp_path):
  # Reached in rounds 1 and 3, and never.
  for seed, curve in enumerate(
    ([0.1, 0.6, 0.5, 0.7], [0.1, 0.2, 0.3, 0.6], [0.1, 0.2, 0.3, 0.4])
  ):
    made_up.write(
      tmp_path / 'fedsa' / f'seed_{seed}',
      curve,
      simulated=2.5,
      model_seed=str(seed),
      sampling_seed=str(seed),
    )
  made_up.write(
    tmp_path / 'local' / 'seed_0', [0.1, 0.2, 0.6, 0.7], algorithm='local'
  )
  return groups_lib.group(runs.find([str(tmp_path)], made_up.DEFAULTS))


def test_the_first_round_that_reaches_it(groups):
  table = time_to_accuracy.over_seeds(groups, tables.per_run(groups), 0.6)
  assert table['name'].tolist() == ['fedsa', 'fedsa', 'local', 'local']
  fedsa, local = table.iloc[0], table.iloc[2]
  assert (fedsa['reached'], fedsa['n']) == (2, 3)
  assert fedsa['rounds_mean'] == 2
  assert fedsa['rounds_std'] == pytest.approx(2**0.5)
  # 2.5 simulated seconds in each round.
  assert fedsa['simulated_seconds_mean'] == 5
  # Four clients send 600 bytes and receive 400 in a round.
  assert fedsa['megabytes_mean'] == pytest.approx(2 * 4 * 1000 / 1e6)
  assert local['rounds_mean'] == 2
  assert pandas.isna(local['simulated_seconds_mean'])
  text = time_to_accuracy.for_reading(table)
  assert text.iloc[0].tolist() == [
    'fedsa',
    'prototype',
    '2 of 3',
    '2.0 ± 1.4',
    '0.01 ± 0.01',
    '5.0 ± 3.5',
  ]
  assert text.iloc[2].tolist()[2:] == ['1 of 1', '2.0', '0.01', '–']


def test_an_accuracy_that_nobody_reaches(groups):
  table = time_to_accuracy.over_seeds(groups, tables.per_run(groups), 0.95)
  text = time_to_accuracy.for_reading(table)
  assert text['reached'].tolist() == ['0 of 3'] * 2 + ['0 of 1'] * 2
  assert text['rounds'].tolist() == ['–'] * 4
  assert 'simulated seconds' not in text


def test_a_report_has_it_where_it_is_asked_for(groups):
  compared = comparison.Comparison(groups)
  assert 'Time to accuracy' not in compared.texts('x')['report.md']
  texts = compared.texts('x', target=0.6)
  assert '## Time to accuracy' in texts['report.md']
  assert 'an accuracy of 0.6 or more' in texts['report.md']
  found = pandas.read_csv(io.StringIO(texts['time_to_accuracy.csv']))
  assert found['reached'].tolist() == [2, 2, 1, 1]
  assert 'tab:time_to_accuracy' in texts['time_to_accuracy.tex']


def test_lost_updates_are_not_counted_as_sent(tmp_path):
  made_up.write(tmp_path / 'run', [0.1, 0.5, 0.6, 0.7], returned=3)
  found = groups_lib.group(runs.find([str(tmp_path)], made_up.DEFAULTS))
  # Of 4 clients 3 send 600 bytes, all receive 400; 3 rounds.
  total = tables.per_run(found)['bytes_total'].iloc[0]
  assert total == 3 * (3 * 600 + 4 * 400)
