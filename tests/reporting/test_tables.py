"""Tables of known numbers, to the digit."""

import math
import re

import numpy as np
import pytest

from tests.reporting import made_up
from tff_fedsa.reporting import documents
from tff_fedsa.reporting import groups as groups_lib
from tff_fedsa.reporting import runs
from tff_fedsa.reporting import tables

_FEDSA = [0.8, 0.9, 0.7]
_LOCAL = [0.6, 0.85, 0.65]


@pytest.fixture
def groups(tmp_path):
  made_up.write_repeats(tmp_path, 'fedsa', _FEDSA)
  made_up.write_repeats(
    tmp_path,
    'local_1',
    _LOCAL,
    algorithm='local',
    classifiers=('head',),
    nonfinite=2,
  )
  return groups_lib.group(runs.find([str(tmp_path)], made_up.DEFAULTS))


def test_accuracies_and_costs_of_a_run(groups):
  values = tables.per_run(groups)
  assert list(zip(values['name'], values['classifier'])) == [
    *[('fedsa', 'prototype'), ('fedsa', 'head')] * 3,
    *[('local_1', 'head')] * 3,
  ]
  row = values.iloc[4]
  assert (row['seed'], row['is_main']) == ('2', True)
  # 0.1, 0.6, 0.5, 0.7: row 0 is before training.
  assert row['last'] == row['best'] == 0.7 and row['best_round'] == 3
  assert row['mean_of_last_10'] == pytest.approx(0.6)
  # The worst of four clients has 1 of 10.
  assert row['worst_10_percent'] == pytest.approx(0.1)
  # 3 rounds of 4 clients.
  assert row['bytes_total'] == 3 * 4 * (600 + 400)
  assert row['seconds'] == pytest.approx(1.5)


def test_the_worst_tenth_is_rounded_up(tmp_path):
  made_up.write(
    tmp_path / 'run', [0.1, 0.5, 0.6, 0.7], correct=(0, 1, *[10] * 18)
  )
  found = runs.find([str(tmp_path)], made_up.DEFAULTS)
  values = tables.per_run(groups_lib.group(found))
  assert values['worst_10_percent'].tolist() == [0.05, 0.05]


def test_means_and_deviations_over_seeds(groups):
  table = tables.over_seeds(groups, tables.per_run(groups))
  first = table.iloc[0]
  assert (first['n'], first['failed'], first['diverged']) == (3, 0, 0)
  assert first['last_mean'] == pytest.approx(np.mean(_FEDSA))
  assert first['last_std'] == pytest.approx(np.std(_FEDSA, ddof=1))
  assert table.iloc[2]['diverged'] == 3
  text = documents.to_markdown(documents.comparison_table(table))
  lines = text.split('\n')
  assert len({len(line) for line in lines}) == 1
  assert re.match(
    r'\| fedsa +\| prototype +\| +3 \| 0.8000 ± 0.1000 \| 0.8000 ± 0.1000 ',
    lines[2],
  )
  assert '| 3 (3 diverged) | 0.7000 ± 0.1323 ' in lines[4]
  assert lines[4].split()[-8:] == '| 0.6 | 0.4 | 0.0 | 2 |'.split()[-8:]


def test_one_seed_has_no_deviation(tmp_path):
  made_up.write_repeats(tmp_path, 'fedsa', [0.5])
  groups = groups_lib.group(runs.find([str(tmp_path)], made_up.DEFAULTS))
  table = tables.over_seeds(groups, tables.per_run(groups))
  assert math.isnan(table['last_std'][0])
  assert '| 0.5000 |' in documents.to_markdown(
    documents.comparison_table(table)
  )


def test_what_did_not_finish_has_a_row(tmp_path):
  made_up.write_repeats(tmp_path, 'fedsa', [0.5])
  made_up.write_repeats(
    tmp_path, 'other', [0.5], algorithm='local', finished=False
  )
  groups = groups_lib.group(runs.find([str(tmp_path)], made_up.DEFAULTS))
  table = tables.over_seeds(groups, tables.per_run(groups))
  (row,) = table[table['name'] == 'other'].to_dict('records')
  assert (row['n'], row['incomplete']) == (0, 1)
  text = documents.to_markdown(documents.comparison_table(table))
  assert re.search(r'\| other +\| – +\| 0 \(1 incomplete\) \| +– \|', text)
  (line,) = documents.unfinished(groups)
  assert line.startswith('other, seed 0: incomplete: round 3 of 3 (')


def _averaged(path, accuracies, test_sets):
  classifiers = ('global_test_prototype', 'global_test_head')
  made_up.write_repeats(
    path, 'fedsa', accuracies, classifiers=classifiers, test_sets=test_sets
  )
  return groups_lib.group(runs.find([str(path)], made_up.DEFAULTS))


def test_accuracies_by_test_set(tmp_path, groups):
  several = _averaged(
    tmp_path / 'several', _FEDSA, {'amazon': 0.01, 'web_cam': -0.02}
  )
  table = tables.per_test_set(several, tables.per_run(several))
  assert list(zip(table['classifier'], table['test_set'])) == [
    (f'global_test_{classifier}', test_set)
    for classifier in ('prototype', 'head')
    for test_set in ('amazon', 'web_cam')
  ]
  assert table['last'][1] == pytest.approx(np.mean(_FEDSA) - 0.02)
  assert table['last_std'][1] == pytest.approx(np.std(_FEDSA, ddof=1))
  lines = documents.to_markdown(documents.test_set_table(table)).split('\n')
  assert (
    lines[0].split() == '| method | classifier | amazon | web_cam |'.split()
  )
  assert lines[2].endswith('| 0.8100 ± 0.1000 | 0.7800 ± 0.1000 |')
  # One global test set, or one of each client: nothing to tell apart.
  for others in (_averaged(tmp_path / 'one', [0.5], {}), groups):
    assert tables.per_test_set(others, tables.per_run(others)).empty


def test_averaged_models_have_no_worst_clients(tmp_path):
  made_up.write_repeats(tmp_path, 'fedsa', [0.5])
  (tmp_path / 'fedsa/seed_0/per_client.csv').unlink()
  groups = groups_lib.group(runs.find([str(tmp_path)], made_up.DEFAULTS))
  table = tables.over_seeds(groups, tables.per_run(groups))
  assert not any(
    'worst' in name for name in documents.comparison_table(table).columns
  )


def test_latex_is_whole(groups):
  table = tables.over_seeds(groups, tables.per_run(groups))
  text = documents.to_latex(
    documents.comparison_table(table), '50 % of a_b & c', 'tab:x'
  )
  assert text.count('{') == text.count('}')
  for name in ('table', 'tabular'):
    assert text.count(rf'\begin{{{name}}}') == 1
    assert text.count(rf'\end{{{name}}}') == 1
  assert r'\caption{50 \% of a\_b \& c}' in text
  rows = [line for line in text.split('\n') if line.endswith(r'\\')]
  (columns,) = re.findall(r'\\begin\{tabular\}\{(\w+)\}', text)
  for row in rows:
    assert len(re.findall(r'(?<!\\)&', row)) == len(columns) - 1
  assert r'local\_1 & head & 3 (3 diverged) & 0.7000 $\pm$ 0.1323' in text
  assert text.isascii()
