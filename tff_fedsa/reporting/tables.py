"""Tables over the runs of several configurations, and tests of differences."""

from collections.abc import Sequence
import math
from typing import Any, Optional

import numpy as np
import pandas
from scipy import optimize
from scipy import stats

from tff_fedsa.evaluation import client_evaluation
from tff_fedsa.reporting import runs as runs_lib
from tff_fedsa.reporting import summary as summary_lib

STATISTICS = ('last', 'best', 'mean_of_last_10', 'worst_10_percent')
TESTS = ('t', 'wilcoxon')

# Of a run, whatever the classifier.
_COSTS = (
  'bytes_up_per_client',
  'bytes_down_per_client',
  'bytes_total',
  'seconds',
)
_PER_RUN = (
  'name',
  'seed',
  'classifier',
  'is_main',
  *STATISTICS,
  'best_round',
  *_COSTS,
  'diverged',
)
_PER_TEST_SET = ('name', 'classifier', 'test_set', 'n', 'last', 'last_std')
_SIGNIFICANCE = (
  'name',
  'classifier',
  'against',
  'n',
  'difference',
  'difference_std',
  'p',
)
_POWER = 0.8
_LEVEL = 0.05


def per_run(groups: Sequence[runs_lib.Group]) -> pandas.DataFrame:
  """Returns a row for each classifier of each finished run.

  Its columns are `name`, `seed`, `classifier`, `is_main`, `best_round`, those
  of `STATISTICS` (accuracies in [0, 1]; `worst_10_percent` is the mean over
  the worst tenth of the clients, at least one, after the last round),
  `bytes_up_per_client` and `bytes_down_per_client` (of one round, mean over
  rounds), `bytes_total` (both ways, all clients and rounds), `seconds`
  (training, all rounds) and `diverged` (how often training did).

  Args:
    groups: Of `runs.group`.
  """
  rows = []
  for group in groups:
    for run in group.finished:
      summary = summary_lib.summarize(run.history)
      names = [
        name
        for name, values in summary.items()
        if isinstance(values, dict) and 'last' in values
      ]
      main = client_evaluation.main_classifier(names)
      costs = _costs(run)
      for name in names:
        values = summary[name]
        rows.append(
          {
            'name': group.name,
            'seed': run.seed,
            'classifier': name,
            'is_main': name == main,
            **{key: values[key] for key in STATISTICS if key in values},
            'worst_10_percent': _worst_tenth(run.per_client, name),
            'best_round': values['best_round'],
            **costs,
            'diverged': run.diverged,
          }
        )
  return pandas.DataFrame(rows, columns=list(_PER_RUN))


def _costs(run: runs_lib.Run) -> dict[str, float]:
  """Sums over rounds; those that were not evaluated are like the others."""
  rounds = run.history[-1]['round']
  table = pandas.DataFrame(run.history[1:])
  if table.empty:
    return dict.fromkeys(_COSTS, 0.0)
  up, down = table['bytes_up_per_client'], table['bytes_down_per_client']
  return {
    'bytes_up_per_client': float(up.mean()),
    'bytes_down_per_client': float(down.mean()),
    'bytes_total': float(
      ((up + down) * table['clients_sampled']).mean() * rounds
    ),
    'seconds': float(table['seconds_training'].mean() * rounds),
  }


def _worst_tenth(
  per_client: Optional[pandas.DataFrame], classifier: str
) -> float:
  if per_client is None or classifier not in per_client:
    return math.nan
  tested = per_client[per_client['num_examples'] > 0]
  accuracies = (tested[classifier] / tested['num_examples']).sort_values()
  return float(accuracies[: math.ceil(len(accuracies) / 10)].mean())


def over_seeds(
  groups: Sequence[runs_lib.Group], values: pandas.DataFrame
) -> pandas.DataFrame:
  """Returns a row for each classifier of each group: means and deviations.

  Its columns are `name`, `classifier`, `is_main`, `n` (finished runs), a
  `_mean` and a `_std` (of the sample; NaN for one run) of each statistic, the
  means of costs, and `failed`, `incomplete` and `diverged` (runs; diverged ones
  are finished and count). Groups without a finished run have one row.

  Args:
    groups: Of `runs.group`.
    values: Of `per_run`.
  """
  rows = []
  for group in groups:
    statuses = [run.status for run in group.runs]
    common = {
      'n': len(group.finished),
      'failed': statuses.count('failed'),
      'incomplete': len(statuses)
      - statuses.count('failed')
      - len(group.finished),
      'diverged': sum(run.diverged > 0 for run in group.runs),
    }
    if not group.finished:
      rows.append({'name': group.name, 'classifier': '', **common})
      continue
    own = values[values['name'] == group.name]
    for classifier in own['classifier'].unique():
      found = own[own['classifier'] == classifier]
      row: dict[str, Any] = {
        'name': group.name,
        'classifier': classifier,
        'is_main': bool(found['is_main'].iloc[0]),
      }
      for name in STATISTICS:
        row[f'{name}_mean'] = found[name].mean()
        row[f'{name}_std'] = found[name].std(ddof=1)
      row |= {name: found[name].mean() for name in _COSTS}
      rows.append({**row, **common})
  return pandas.DataFrame(rows)


def per_test_set(
  groups: Sequence[runs_lib.Group], values: pandas.DataFrame
) -> pandas.DataFrame:
  """Returns what averaged models reach on each of several test sets.

  A row for each test set (a domain) of each classifier of each group: `name`,
  `classifier`, `test_set`, `n` (finished runs), `last` (accuracy after the last
  round in [0, 1], mean over seeds) and `last_std` (of the sample; NaN for one
  run). Empty where there is one test set, or each client has its own.

  Args:
    groups: Of `runs.group`.
    values: Of `per_run`.
  """
  rows = []
  for group in groups:
    of_group = values[values['name'] == group.name]
    for classifier in of_group['classifier'].unique():
      if not classifier.startswith(client_evaluation.GLOBAL_PREFIX):
        continue
      prefix = f'{classifier}_accuracy_'
      last = pandas.DataFrame([run.history[-1] for run in group.finished])
      for column in last.columns[last.columns.str.startswith(prefix)]:
        rows.append(
          {
            'name': group.name,
            'classifier': classifier,
            'test_set': column.removeprefix(prefix),
            'n': len(last),
            'last': last[column].mean(),
            'last_std': last[column].std(ddof=1),
          }
        )
  return pandas.DataFrame(rows, columns=list(_PER_TEST_SET))


def significance(
  values: pandas.DataFrame,
  reference: str,
  *,
  statistic: str = 'last',
  test: str = 't',
) -> pandas.DataFrame:
  """Tests differences to a reference, paired over seeds.

  Each classifier is compared with the same one of the reference; where that
  has none of the name, with its main one.

  Args:
    values: Of `per_run`.
    reference: Name of a group.
    statistic: One of `STATISTICS`.
    test: `t`: two-sided paired t-test; `wilcoxon`: signed-rank test, exact.

  Returns:
    A row for each classifier of each other group: `name`, `classifier`,
    `against`, `n` (seeds that both have), `difference` (mean, of the group to
    the reference), `difference_std`, `p` (NaN where the test is undefined: less
    than two seeds, or differences that are all the same) and `p_holm`,
    corrected for the number of rows.

  Raises:
    ReportError: If there is no such group with finished runs.
  """
  if reference not in set(values['name']):
    raise runs_lib.ReportError(
      f'There is no {reference!r} with finished runs to compare with; there '
      f'are {", ".join(values["name"].unique())}.'
    )
  of_reference = values[values['name'] == reference]
  main = of_reference[of_reference['is_main']]['classifier'].iloc[0]
  known = set(of_reference['classifier'])
  rows = []
  others = values[values['name'] != reference]
  for (name, classifier), found in others.groupby(
    ['name', 'classifier'], sort=False
  ):
    against = classifier if classifier in known else main
    pairs = found.merge(
      of_reference[of_reference['classifier'] == against], on='seed'
    )
    differences = (pairs[f'{statistic}_x'] - pairs[f'{statistic}_y']).to_numpy()
    rows.append(
      {
        'name': name,
        'classifier': classifier,
        'against': against,
        'n': len(differences),
        'difference': differences.mean() if len(differences) else math.nan,
        'difference_std': differences.std(ddof=1)
        if len(differences) > 1
        else math.nan,
        'p': _p_value(differences, test),
      }
    )
  table = pandas.DataFrame(rows, columns=list(_SIGNIFICANCE))
  table['p_holm'] = _holm(table['p'].to_numpy(float))
  return table


def _p_value(differences: np.ndarray, test: str) -> float:
  if len(differences) < 2 or np.ptp(differences) == 0.0:
    return math.nan
  if test == 'wilcoxon':
    return float(stats.wilcoxon(differences).pvalue)
  return float(stats.ttest_1samp(differences, 0.0).pvalue)


def _holm(p_values: np.ndarray) -> np.ndarray:
  """Holm's correction; NaN stays, and does not count."""
  corrected = np.full(len(p_values), math.nan)
  order = [i for i in np.argsort(p_values) if not math.isnan(p_values[i])]
  largest = 0.0
  for rank, index in enumerate(order):
    largest = max(largest, p_values[index] * (len(order) - rank))
    corrected[index] = min(largest, 1.0)
  return corrected


def detectable(n: int) -> float:
  """Returns the difference that a paired t-test finds in 4 of 5 cases.

  In standard deviations of the differences, at a level of 5 %, two-sided.

  Args:
    n: Pairs, >= 2.
  """
  critical = stats.t.ppf(1 - _LEVEL / 2, n - 1)

  def power(effect: float) -> float:
    shift = effect * math.sqrt(n)
    return stats.nct.sf(critical, n - 1, shift) + stats.nct.cdf(
      -critical, n - 1, shift
    )

  return float(optimize.brentq(lambda d: power(d) - _POWER, 1e-3, 50.0))
