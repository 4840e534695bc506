"""Tables of known numbers, to the digit; tests are those of scipy."""

import math
import re

import numpy as np
import pytest
from scipy import stats

from tests.reporting import made_up
from tff_fedsa.reporting import documents
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
  return runs.group(runs.find([str(tmp_path)], made_up.DEFAULTS))


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
  values = tables.per_run(runs.group(found))
  assert values['worst_10_percent'].tolist() == [0.05, 0.05]


def test_means_and_deviations_over_seeds(groups):
  table = tables.over_seeds(groups, tables.per_run(groups))
  first = table.iloc[0]
  assert (first['n'], first['failed'], first['diverged']) == (3, 0, 0)
  assert first['last_mean'] == pytest.approx(np.mean(_FEDSA))
  assert first['last_std'] == pytest.approx(np.std(_FEDSA, ddof=1))
  assert table.iloc[2]['diverged'] == 3
  text = documents.comparison_table(table).to_markdown()
  lines = text.split('\n')
  assert len({len(line) for line in lines}) == 1
  assert re.match(
    r'\| fedsa +\| prototype +\| 3 +\| 0.8000 ± 0.1000 +\| 0.8000 ± 0.1000 ',
    lines[2],
  )
  assert '| 3 (3 diverged) | 0.7000 ± 0.1323 ' in lines[4]
  assert lines[4].endswith('| 0.6   | 0.4     | 0.0       | 2       |')


def test_one_seed_has_no_deviation(tmp_path):
  made_up.write_repeats(tmp_path, 'fedsa', [0.5])
  groups = runs.group(runs.find([str(tmp_path)], made_up.DEFAULTS))
  table = tables.over_seeds(groups, tables.per_run(groups))
  assert math.isnan(table['last_std'][0])
  assert '| 0.5000 |' in documents.comparison_table(table).to_markdown()


def test_what_did_not_finish_has_a_row(tmp_path):
  made_up.write_repeats(tmp_path, 'fedsa', [0.5])
  made_up.write_repeats(
    tmp_path, 'other', [0.5], algorithm='local', finished=False
  )
  groups = runs.group(runs.find([str(tmp_path)], made_up.DEFAULTS))
  table = tables.over_seeds(groups, tables.per_run(groups))
  (row,) = table[table['name'] == 'other'].to_dict('records')
  assert (row['n'], row['incomplete']) == (0, 1)
  text = documents.comparison_table(table).to_markdown()
  assert '| other  | –          | 0 (1 incomplete) | –' in text
  (line,) = documents.unfinished(groups)
  assert line.startswith('other, seed 0: incomplete: round 3 of 3 (')


def _averaged(path, accuracies, test_sets):
  classifiers = ('global_test_prototype', 'global_test_head')
  made_up.write_repeats(
    path, 'fedsa', accuracies, classifiers=classifiers, test_sets=test_sets
  )
  return runs.group(runs.find([str(path)], made_up.DEFAULTS))


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
  lines = documents.test_set_table(table).to_markdown().split('\n')
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
  groups = runs.group(runs.find([str(tmp_path)], made_up.DEFAULTS))
  table = tables.over_seeds(groups, tables.per_run(groups))
  assert not any(
    'worst' in name for name in documents.comparison_table(table).head
  )


def test_latex_is_whole(groups):
  table = tables.over_seeds(groups, tables.per_run(groups))
  text = documents.comparison_table(table).to_latex('50 % of a_b & c', 'tab:x')
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


@pytest.mark.parametrize('test', tables.TESTS)
def test_significance_is_that_of_scipy(groups, test):
  table = tables.significance(tables.per_run(groups), 'fedsa', test=test)
  (row,) = table.to_dict('records')
  # Local has a head only; so has FedSA.
  assert (row['name'], row['against'], row['n']) == ('local_1', 'head', 3)
  assert row['difference'] == pytest.approx(np.mean(_LOCAL) - np.mean(_FEDSA))
  expected = {
    't': stats.ttest_rel(_LOCAL, _FEDSA).pvalue,
    'wilcoxon': stats.wilcoxon(_LOCAL, _FEDSA).pvalue,
  }[test]
  assert row['p'] == pytest.approx(expected, rel=1e-12)
  assert row['p_holm'] == pytest.approx(expected)
  note = documents.significance_note(table, 'fedsa', 'last', test)
  assert 'n = 3' in note and ('3.3 times' if test == 't' else '0.25') in note


def test_seeds_are_paired_by_name(tmp_path):
  made_up.write_repeats(tmp_path, 'fedsa', _FEDSA)
  # Seeds 0 and 1 only.
  made_up.write_repeats(tmp_path, 'b', [0.5, 0.8], lambda_reg='0.0')
  made_up.write_repeats(tmp_path, 'c', _FEDSA, lambda_reg='1.0')
  groups = runs.group(runs.find([str(tmp_path)], made_up.DEFAULTS))
  table = tables.significance(tables.per_run(groups), 'fedsa')
  rows = {row['name']: row for row in table.to_dict('records')}
  assert rows['b']['n'] == 2
  assert rows['b']['difference'] == pytest.approx(-0.2)
  # No difference at all: nothing to test, and nothing to correct for.
  assert math.isnan(rows['c']['p'])
  with pytest.raises(runs.ReportError, match="no 'd' with finished runs"):
    tables.significance(tables.per_run(groups), 'd')


def test_holm_corrects_in_steps():
  corrected = tables._holm(np.array([0.04, 0.01, math.nan, 0.03]))
  np.testing.assert_allclose(corrected, [0.06, 0.03, math.nan, 0.06])


def test_detectable_difference_has_the_power():
  # By simulation, n = 3: the critical value is 4.303.
  effect = tables.detectable(3)
  samples = np.random.default_rng(0).normal(effect, 1.0, [20000, 3])
  t = samples.mean(1) / (samples.std(1, ddof=1) / math.sqrt(3))
  assert np.mean(np.abs(t) > 4.303) == pytest.approx(0.8, abs=0.015)
