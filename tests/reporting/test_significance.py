"""Tests of differences are those of scipy, and prove nothing out of nothing."""

import math

import numpy as np
import pandas
import pytest
from scipy import stats

from tests.reporting import made_up
from tff_fedsa.reporting import documents
from tff_fedsa.reporting import groups as groups_lib
from tff_fedsa.reporting import runs
from tff_fedsa.reporting import significance
from tff_fedsa.reporting import tables

_FEDSA = [0.8, 0.9, 0.7]
_LOCAL = [0.6, 0.85, 0.65]


def _values(path):
  return tables.per_run(
    groups_lib.group(runs.find([str(path)], made_up.DEFAULTS))
  )


@pytest.fixture
def values(tmp_path):
  made_up.write_repeats(tmp_path, 'fedsa', _FEDSA)
  made_up.write_repeats(
    tmp_path, 'local_1', _LOCAL, algorithm='local', classifiers=('head',)
  )
  return _values(tmp_path)


@pytest.mark.parametrize('test', significance.TESTS)
def test_significance_is_that_of_scipy(values, test):
  table = significance.compare(values, 'fedsa', test=test)
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


def test_the_head_of_a_received_model_is_compared_with_a_head(tmp_path):
  made_up.write_repeats(tmp_path, 'fedsa', _FEDSA)
  made_up.write_repeats(
    tmp_path,
    'local',
    _LOCAL,
    algorithm='local',
    classifiers=('head', 'received_head'),
  )
  values = _values(tmp_path)
  assert set(values[values['name'] == 'fedsa']['classifier']) > {'head'}
  table = significance.compare(values, 'fedsa')
  assert dict(zip(table['classifier'], table['against'])) == {
    'head': 'head',
    'received_head': 'head',
  }


def test_seeds_are_paired_by_name(tmp_path):
  made_up.write_repeats(tmp_path, 'fedsa', _FEDSA)
  # Seeds 0 and 1 only.
  made_up.write_repeats(tmp_path, 'b', [0.5, 0.8], lambda_reg='0.0')
  made_up.write_repeats(tmp_path, 'c', _FEDSA, lambda_reg='1.0')
  values = _values(tmp_path)
  table = significance.compare(values, 'fedsa')
  rows = {row['name']: row for row in table.to_dict('records')}
  assert rows['b']['n'] == 2
  assert rows['b']['difference'] == pytest.approx(-0.2)
  # No difference at all: nothing to test, and nothing to correct for.
  assert math.isnan(rows['c']['p'])
  with pytest.raises(runs.ReportError, match="no 'd' with finished runs"):
    significance.compare(values, 'd')


def test_holm_corrects_in_steps():
  corrected = significance._holm(np.array([0.04, 0.01, math.nan, 0.03]))
  np.testing.assert_allclose(corrected, [0.06, 0.03, math.nan, 0.06])


def test_detectable_difference_has_the_power():
  # By simulation, n = 3: the critical value is 4.303.
  effect = significance.detectable(3)
  samples = np.random.default_rng(0).normal(effect, 1.0, [20000, 3])
  t = samples.mean(1) / (samples.std(1, ddof=1) / math.sqrt(3))
  assert np.mean(np.abs(t) > 4.303) == pytest.approx(0.8, abs=0.015)


def test_the_same_difference_in_each_seed_is_no_proof():
  # Differences of 0.1 up to rounding, which a t-test takes for certain.
  first = np.array([0.7, 0.8, 0.9])
  rows = [
    {
      'name': name,
      'algorithm': name,
      'seed': seed,
      'classifier': 'head',
      'is_main': True,
      'last': accuracy,
      'row': name,
      'setting': '',
      'measured': '',
      'unit': seed,
      'test_examples': math.nan,
    }
    for name, accuracies in (('fedsa', first), ('local', first - 0.1))
    for seed, accuracy in enumerate(accuracies)
  ]
  assert stats.ttest_rel(first - 0.1, first).pvalue < 1e-6
  table = significance.compare(pandas.DataFrame(rows), 'fedsa')
  assert table['n'].tolist() == [3]
  assert math.isnan(table['p'][0]) and math.isnan(table['p_holm'][0])
  assert documents.significance_table(table)['p'].tolist() == ['–']
  note = documents.significance_note(table, 'fedsa', 'last', 't')
  assert 'the same in each of the seeds' in note and 'no proof' in note


def test_methods_are_compared_within_each_setting(tmp_path):
  for dim, more in (('8', 0.0), ('16', 0.05)):
    for method, accuracies in (('fedsa', _FEDSA), ('local', _LOCAL)):
      made_up.write_repeats(
        tmp_path,
        f'{method},feature_dim={dim}',
        [accuracy + more for accuracy in accuracies],
        classifiers=('head',),
        algorithm=method,
        feature_dim=dim,
      )
  # Not a method in a setting.
  made_up.write_repeats(tmp_path, 'bare', _LOCAL, lambda_reg='0.0')
  values = _values(tmp_path)
  table = significance.compare(values, 'fedsa')
  assert {
    row['name']: row['reference'] for row in table.to_dict('records')
  } == {
    f'local,feature_dim={dim}': f'fedsa,feature_dim={dim}' for dim in (8, 16)
  }
  p = stats.ttest_rel(_LOCAL, _FEDSA).pvalue
  np.testing.assert_allclose(table['p'], [p, p])
  np.testing.assert_allclose(table['p_holm'], [2 * p, 2 * p])
  note = documents.significance_note(table, 'fedsa', 'last', 't')
  assert 'difference to fedsa in the same setting' in note
  # The name of a configuration compares with that one alone.
  one = significance.compare(values, 'local,feature_dim=8')
  assert set(one['reference']) == {'local,feature_dim=8'}
  assert one['name'].nunique() == 4


def test_a_difference_of_one_test_example_is_no_spread(tmp_path):
  # 3 of 40 examples in each seed, up to rounding by other sizes of test sets.
  made_up.write_repeats(tmp_path, 'fedsa', [0.8, 0.9, 0.7])
  made_up.write_repeats(
    tmp_path, 'local', [0.72, 0.83, 0.63], algorithm='local'
  )
  values = _values(tmp_path)
  assert set(values['test_examples']) == {40.0}
  table = significance.compare(values, 'fedsa')
  assert table['difference'].tolist() == pytest.approx([-0.22 / 3] * 2)
  assert table['p'].isna().all()


def test_partitions_are_the_unit_of_pairing(tmp_path):
  # Two runs of each of three partitions: three pairs, not six.
  accuracies = {
    'fedsa': [[0.8, 0.9], [0.7, 0.8], [0.6, 0.5]],
    'local': [[0.5, 0.6], [0.65, 0.7], [0.3, 0.6]],
  }
  for method, of_partitions in accuracies.items():
    for dealt, of_runs in enumerate(of_partitions):
      for seed, accuracy in enumerate(of_runs):
        made_up.write(
          tmp_path / f'{method},partition_seed={dealt}' / f'seed_{seed}',
          [0.1, 0.2, 0.3, accuracy],
          algorithm=method,
          partition_seed=str(dealt),
          partition=(dealt,),
          model_seed=str(seed),
          sampling_seed=str(seed),
        )
  table = significance.compare(_values(tmp_path), 'fedsa')
  means = {name: np.mean(a, axis=1) for name, a in accuracies.items()}
  expected = stats.ttest_rel(means['local'], means['fedsa']).pvalue
  assert table['n'].tolist() == [3, 3]
  np.testing.assert_allclose(table['p'], [expected] * 2)
  note = documents.significance_note(
    table, 'fedsa', 'last', 't', num_partitions=3
  )
  assert 'paired over partitions, n = 3' in note


def test_like_is_compared_with_like(tmp_path):
  made_up.write_repeats(
    tmp_path, 'fedsa', _FEDSA, classifiers=('prototype', 'anchor', 'head')
  )
  made_up.write_repeats(
    tmp_path, 'local', _LOCAL, classifiers=('head',), algorithm='local'
  )
  table = significance.compare(_values(tmp_path), 'local')
  # The anchors have no counterpart. Main classifiers are compared.
  assert dict(zip(table['classifier'], table['against'])) == {
    'prototype': 'head',
    'head': 'head',
  }
