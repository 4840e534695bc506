"""Tables of numbers over the runs of several configurations."""

from collections.abc import Sequence
import math
from typing import Any, Optional

import pandas

from tff_fedsa.evaluation import classification
from tff_fedsa.evaluation import client_evaluation
from tff_fedsa.reporting import fairness
from tff_fedsa.reporting import groups as groups_lib
from tff_fedsa.reporting import runs as runs_lib
from tff_fedsa.reporting import summary as summary_lib

STATISTICS = ('last', 'best', 'mean_of_last_10', 'worst_10_percent')

# Columns of a run, equal for all its classifiers.
_COSTS = (
  'bytes_up_per_client',
  'bytes_down_per_client',
  'bytes_total',
  'seconds',
)
_PER_RUN = (
  'name',
  'algorithm',
  'seed',
  'classifier',
  'is_main',
  *STATISTICS,
  'best_round',
  'validated',
  *_COSTS,
  'diverged',
  'row',
  'setting',
  'measured',
  'partition_seed',
  'unit',
  'test_examples',
  'binomial_std',
)
_PER_TEST_SET = ('name', 'classifier', 'test_set', 'n', 'last', 'last_std')


def per_run(groups: Sequence[groups_lib.Group]) -> pandas.DataFrame:
  """Returns one row per classifier of each finished run.

  Its columns are `name`, `algorithm` (the method), `seed`, `classifier`,
  `is_main`, `best_round`, `validated` (true if validation examples chose this
  round), those of `STATISTICS` (accuracies in [0, 1];
  `worst_10_percent` is the mean over the worst tenth of the clients, at least
  one, after the last round), `bytes_up_per_client` and `bytes_down_per_client`
  (of one round, mean over rounds), `bytes_total` (both ways, all clients and
  rounds), `seconds` (training, all rounds) and `diverged` (how often training
  did); `row`, `setting` and `measured` (see `arrangement.Place`, as text);
  `partition_seed`; `unit`, which repeats the experiment: the partition if there
  are several, else the seed; `test_examples` and `binomial_std`, the standard
  error of `last` that a test set of this size has.

  Args:
    groups: Result of `groups.group`.
  """
  rows = []
  partitions = {r.partition_seed for g in groups for r in g.finished}
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
            'algorithm': group.algorithm,
            'seed': run.seed,
            'classifier': name,
            'is_main': name == main,
            **{key: values[key] for key in STATISTICS if key in values},
            'worst_10_percent': worst_tenth(run.per_client, name),
            'best_round': values['best_round'],
            'validated': client_evaluation.validation_column(name)
            in run.history[-1],
            **costs,
            'diverged': run.diverged,
            'row': group.place.row,
            'setting': group.setting,
            'measured': ', '.join(group.place.measured),
            'partition_seed': run.partition_seed,
            'unit': run.partition_seed if len(partitions) > 1 else run.seed,
            'test_examples': run.test_examples,
            'binomial_std': _binomial(values['last'], run.test_examples),
          }
        )
  return pandas.DataFrame(rows, columns=list(_PER_RUN))


def _binomial(accuracy: float, examples: Optional[float]) -> float:
  if not examples:
    return math.nan
  return math.sqrt(accuracy * (1.0 - accuracy) / examples)


def _costs(run: runs_lib.Run) -> dict[str, float]:
  """Returns sums over rounds. Rounds without a row count like the others."""
  rounds = run.history[-1]['round']
  table = pandas.DataFrame(run.history[1:])
  if table.empty:
    return dict.fromkeys(_COSTS, 0.0)
  up, down = table['bytes_up_per_client'], table['bytes_down_per_client']
  sampled = table['clients_sampled']
  # Clients that drop out or are late receive a message, but theirs is lost.
  sent = table.get('clients_returned', sampled)
  return {
    'bytes_up_per_client': float(up.mean()),
    'bytes_down_per_client': float(down.mean()),
    'bytes_total': float((up * sent + down * sampled).mean() * rounds),
    'seconds': float(table['seconds_training'].mean() * rounds),
  }


def megabytes_by_round(run: runs_lib.Run) -> pandas.Series:
  """Returns megabytes that all clients sent and received so far, by round.

  Rounds without a row count like the next one with a row. Round 0 is left out.

  Args:
    run: A run with a trained round.
  """
  table = pandas.DataFrame(run.history).set_index('round')
  rounds = table.index.to_series().diff()
  sampled = table['clients_sampled']
  # Clients that drop out or are late receive a message, but theirs is lost.
  sent = table.get('clients_returned', sampled)
  up, down = table['bytes_up_per_client'], table['bytes_down_per_client']
  megabytes = (up * sent + down * sampled) * rounds / 1e6
  return megabytes[table.index > 0].cumsum()


def worst_tenth(
  per_client: Optional[pandas.DataFrame], classifier: str
) -> float:
  """Returns the mean accuracy of the worst tenth of the clients, at least one.

  Args:
    per_client: Rows of `per_client.csv`. NaN is returned without any.
    classifier: Its column; NaN is returned if there is none.
  """
  if per_client is None or classifier not in per_client:
    return math.nan
  tested = per_client[per_client['num_examples'] > 0]
  return fairness.worst_tenth(tested[classifier] / tested['num_examples'])


def over_seeds(
  groups: Sequence[groups_lib.Group], values: pandas.DataFrame
) -> pandas.DataFrame:
  """Returns one row per classifier of each group: means and deviations.

  Its columns are `name`, `row`, `setting`, `classifier`, `is_main`, `n`
  (finished runs), `validated`, `units` (of `per_run`: partitions, or seeds), a
  `_mean` and a `_std` of each statistic (of the sample of units; NaN for one),
  the means of costs and of `binomial_std`, and `failed`, `incomplete` and
  `diverged` (runs; diverged ones are finished and count). Groups without
  finished runs have one row.

  Args:
    groups: Result of `groups.group`.
    values: Result of `per_run`.
  """
  rows = []
  for group in groups:
    statuses = [run.status for run in group.runs]
    common = {
      'row': group.place.row,
      'setting': group.setting,
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
        'units': found['unit'].nunique(),
        'validated': bool(found['validated'].all()),
      }
      for name in STATISTICS:
        of_units = found.groupby('unit', sort=False)[name].mean()
        row[f'{name}_mean'] = of_units.mean()
        row[f'{name}_std'] = of_units.std(ddof=1)
      row |= {name: found[name].mean() for name in (*_COSTS, 'binomial_std')}
      rows.append({**row, **common})
  return pandas.DataFrame(rows)


def per_test_set(
  groups: Sequence[groups_lib.Group], values: pandas.DataFrame
) -> pandas.DataFrame:
  """Returns the accuracies of averaged models on each test set.

  A row for each test set (a domain) of each classifier of each group: `name`,
  `classifier`, `test_set`, `n` (finished runs), `last` (accuracy after the last
  round in [0, 1], mean over seeds) and `last_std` (of the sample; NaN for one
  run). The table is empty if there is one test set, or each client has its own.

  Args:
    groups: Result of `groups.group`.
    values: Result of `per_run`.
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


def further_metrics(
  groups: Sequence[groups_lib.Group], values: pandas.DataFrame
) -> pandas.DataFrame:
  """Returns the metrics that runs have beside accuracy (`--metrics`).

  One row per classifier of each group: `name`, `row`, `setting`, `classifier`,
  `is_main`, and for each metric after the last round its mean over runs and
  `<metric>_std` (of the sample; NaN for one run). The table is empty if no run
  has such metrics.

  Args:
    groups: Result of `groups.group`.
    values: Result of `per_run`.
  """
  rows = []
  for group in groups:
    last = pandas.DataFrame([run.history[-1] for run in group.finished])
    own = values[values['name'] == group.name]
    for classifier in own['classifier'].unique():
      found: dict[str, float] = {}
      for name in classification.MEANINGS:
        if f'{classifier}_{name}' in last:
          column = last[f'{classifier}_{name}']
          found |= {name: column.mean(), f'{name}_std': column.std(ddof=1)}
      if found:
        is_main = own[own['classifier'] == classifier]['is_main'].iloc[0]
        rows.append(
          {
            'name': group.name,
            'row': group.place.row,
            'setting': group.setting,
            'classifier': classifier,
            'is_main': is_main,
            **found,
          }
        )
  return pandas.DataFrame(rows)
