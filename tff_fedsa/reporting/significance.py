"""Tests of differences between methods, paired over seeds."""

from collections.abc import Mapping
import math

import numpy as np
import pandas
from scipy import optimize
from scipy import stats
from statsmodels.stats import multitest

from tff_fedsa.reporting import names
from tff_fedsa.reporting import runs as runs_lib

TESTS = ('t', 'wilcoxon')

_COLUMNS = (
  'name',
  'classifier',
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
    reference: Name of a configuration, the reference of all others. Or name of
      a method in a sweep over settings: the reference is then this method in
      the same setting, e.g. `fedsa,feature_dim=8` for `local,feature_dim=8`.

  Returns:
    Names of references by the names of configurations. Configurations without
    reference are left out.
  """
  algorithms = dict(zip(values['name'], values['algorithm']))
  if reference in algorithms:
    return {name: reference for name in algorithms if name != reference}
  settings = {
    name: names.setting(name, algorithm)
    for name, algorithm in algorithms.items()
  }
  by_setting: dict[tuple[str, ...], str] = {}
  for name, setting in settings.items():
    if algorithms[name] == reference and setting is not None:
      by_setting[setting] = name
  return {
    name: by_setting[setting]
    for name, setting in settings.items()
    if setting in by_setting and algorithms[name] != reference
  }


def compare(
  values: pandas.DataFrame,
  reference: str,
  *,
  statistic: str = 'last',
  test: str = 't',
) -> pandas.DataFrame:
  """Tests differences to a reference, paired over seeds.

  Each classifier is compared with the same classifier of the reference. If the
  reference lacks it, the main classifier of the reference is used; for
  `received_head`, which is a head, that is the reference's `head`.

  Args:
    values: Result of `tables.per_run`.
    reference: Name of a configuration or of a method, see `references`.
    statistic: One of `tables.STATISTICS`.
    test: `t` (two-sided paired t-test) or `wilcoxon` (exact signed-rank test).

  Returns:
    One row per classifier of each configuration with a reference: `name`,
    `classifier`, `reference`, `against` (the reference's classifier), `n`
    (seeds that both have), `difference` (mean, of the configuration minus the
    reference), `difference_std` (of the sample), `p` and `p_holm`, corrected
    for the number of tests. `p` is NaN if there is nothing to test: fewer than
    two seeds, or the same difference in each seed.

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
    if name in found:
      theirs = values[values['name'] == found[name]]
      rows.append(
        {
          'name': name,
          'classifier': classifier,
          'reference': found[name],
          **_row(own, theirs, classifier, statistic, test),
        }
      )
  table = pandas.DataFrame(rows, columns=list(_COLUMNS))
  table['p_holm'] = _holm(table['p'].to_numpy(float))
  return table


def _row(
  own: pandas.DataFrame,
  theirs: pandas.DataFrame,
  classifier: str,
  statistic: str,
  test: str,
) -> Mapping[str, str | float]:
  against = classifier
  if against not in set(theirs['classifier']) and classifier == 'received_head':
    against = 'head'
  if against not in set(theirs['classifier']):
    against = theirs[theirs['is_main']]['classifier'].iloc[0]
  pairs = own.merge(theirs[theirs['classifier'] == against], on='seed')
  differences = (pairs[f'{statistic}_x'] - pairs[f'{statistic}_y']).to_numpy()
  n = len(differences)
  return {
    'against': against,
    'n': n,
    'difference': differences.mean() if n else math.nan,
    'difference_std': differences.std(ddof=1) if n > 1 else math.nan,
    'p': _p_value(differences, test),
  }


def _p_value(differences: np.ndarray, test: str) -> float:
  # Equal differences in all seeds are no evidence. Their deviation of 0 would
  # make any difference certain.
  if len(differences) < 2 or np.ptp(differences) < _ROUNDING:
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
