"""Tests of differences between methods, paired over partitions or seeds."""

from collections.abc import Mapping
import math
from typing import Optional

import numpy as np
import pandas
from scipy import optimize
from scipy import stats
from statsmodels.stats import multitest

from tff_fedsa.reporting import runs as runs_lib

TESTS = ('t', 'wilcoxon')

_COLUMNS = (
  'name',
  'row',
  'setting',
  'classifier',
  'is_main',
  'reference',
  'against',
  'n',
  'difference',
  'difference_std',
  'p',
)
# Accuracies are fractions in float32. Differences that agree to this precision
# are equal.
_ROUNDING = 1e-6
_POWER = 0.8
_LEVEL = 0.05


def references(values: pandas.DataFrame, reference: str) -> dict[str, str]:
  """Returns the reference of each configuration.

  Args:
    values: Result of `tables.per_run`.
    reference: Name of a configuration, the reference of all others that were
      measured alike. Or, in a sweep over settings, name of a method or of one
      of its variants: the reference is then the one in the same setting, e.g.
      `fedsa,feature_dim=8` for `local,feature_dim=8`.

  Returns:
    Names of references by the names of configurations. Configurations without
    reference are left out.
  """
  one = values.drop_duplicates('name').set_index('name')
  if reference in one.index:
    alike = one[one['measured'] == one['measured'][reference]]
    return {name: reference for name in alike.index if name != reference}
  found: dict[str, str] = {}
  for _, members in one.groupby('setting', sort=False):
    own = members[members['row'] == reference]
    if own.empty:
      own = members[members['algorithm'] == reference]
    if len(own) == 1:
      (chosen,) = own.index
      found |= {name: chosen for name in members.index if name != chosen}
  return found


def compare(
  values: pandas.DataFrame,
  reference: str,
  *,
  statistic: str = 'last',
  test: str = 't',
) -> pandas.DataFrame:
  """Tests differences to a reference, paired over partitions or seeds.

  Like is compared with like: each classifier with the same classifier of the
  reference. If the reference lacks it, a main classifier is compared with the
  reference's main classifier, and `received_head`, which is a head, with the
  reference's `head`; any other classifier is left out. Several runs of one
  partition are one pair, with their mean.

  Args:
    values: Result of `tables.per_run`.
    reference: Name of a configuration or of a method, see `references`.
    statistic: One of `tables.STATISTICS`.
    test: `t` (two-sided paired t-test) or `wilcoxon` (exact signed-rank test).

  Returns:
    One row per classifier of each configuration with a reference: `name`,
    `row`, `setting`, `classifier`, `is_main`, `reference`, `against` (the
    reference's classifier), `n` (pairs: units that both have, see
    `tables.per_run`), `difference` (mean, of the configuration minus the
    reference), `difference_std` (of the sample), `p` and `p_holm`, corrected
    for the number of tests. `p` is NaN if there is nothing to test: fewer than
    two pairs, or the same difference in each, up to one test example.

  Raises:
    ReportError: If there is no such reference with finished runs.
  """
  found = references(values, reference)
  if not found:
    raise runs_lib.ReportError(
      f'There is no {reference!r} with finished runs to compare with; there '
      f'are {", ".join(values["name"].unique())}.'
    )
  rows = []
  for (name, classifier), own in values.groupby(
    ['name', 'classifier'], sort=False
  ):
    if name not in found:
      continue
    theirs = values[values['name'] == found[name]]
    against = _counterpart(own, theirs, classifier)
    if against is not None:
      rows.append(
        {
          'name': name,
          'row': own['row'].iloc[0],
          'setting': own['setting'].iloc[0],
          'classifier': classifier,
          'is_main': own['is_main'].iloc[0],
          'reference': found[name],
          'against': against,
          **_row(own, theirs[theirs['classifier'] == against], statistic, test),
        }
      )
  table = pandas.DataFrame(rows, columns=list(_COLUMNS))
  table['p_holm'] = _holm(table['p'].to_numpy(float))
  return table


def _counterpart(
  own: pandas.DataFrame, theirs: pandas.DataFrame, classifier: str
) -> Optional[str]:
  """Returns the reference's classifier to compare with, if there is one."""
  have = set(theirs['classifier'])
  if classifier in have:
    return classifier
  if classifier == 'received_head' and 'head' in have:
    return 'head'
  if own['is_main'].iloc[0]:
    return theirs[theirs['is_main']]['classifier'].iloc[0]
  return None


def _row(
  own: pandas.DataFrame, theirs: pandas.DataFrame, statistic: str, test: str
) -> Mapping[str, float]:
  pairs = pandas.concat(
    [
      one.groupby('unit', sort=False)[statistic].mean() for one in (own, theirs)
    ],
    axis=1,
    join='inner',
  )
  differences = (pairs.iloc[:, 0] - pairs.iloc[:, 1]).to_numpy()
  n = len(differences)
  # An accuracy is a multiple of one test example.
  examples = own['test_examples'].min()
  smallest = _ROUNDING if math.isnan(examples) else 1.0 / max(examples, 1.0)
  return {
    'n': n,
    'difference': differences.mean() if n else math.nan,
    'difference_std': differences.std(ddof=1) if n > 1 else math.nan,
    'p': _p_value(differences, test, smallest),
  }


def _p_value(differences: np.ndarray, test: str, smallest: float) -> float:
  # Equal differences in all pairs are no evidence. Their deviation of 0 would
  # make any difference certain. Test sets of different sizes round differently.
  if len(differences) < 2 or np.ptp(differences) < max(smallest, _ROUNDING):
    return math.nan
  if test == 'wilcoxon':
    return float(stats.wilcoxon(differences).pvalue)
  return float(stats.ttest_1samp(differences, 0.0).pvalue)


def _holm(p_values: np.ndarray) -> np.ndarray:
  """Returns Holm's correction. NaN stays NaN and does not count."""
  corrected = np.full(len(p_values), math.nan)
  known = ~np.isnan(p_values)
  if known.any():
    corrected[known] = multitest.multipletests(p_values[known], method='holm')[
      1
    ]
  return corrected


def detectable(n: int) -> float:
  """Returns the difference that a paired t-test finds in 4 of 5 cases.

  The unit is the standard deviation of the differences. The level is 5 %,
  two-sided.

  Args:
    n: Number of pairs, >= 2.
  """
  critical = stats.t.ppf(1 - _LEVEL / 2, n - 1)

  def power(effect: float) -> float:
    shift = effect * math.sqrt(n)
    return stats.nct.sf(critical, n - 1, shift) + stats.nct.cdf(
      -critical, n - 1, shift
    )

  return float(optimize.brentq(lambda d: power(d) - _POWER, 1e-3, 50.0))
