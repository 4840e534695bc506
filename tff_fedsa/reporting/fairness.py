"""How evenly clients are served, and what each gains over training alone."""

from collections.abc import Mapping, Sequence
import math
from typing import Optional

import numpy as np
import pandas

from tff_fedsa.evaluation import client_evaluation
from tff_fedsa.reporting import groups as groups_lib
from tff_fedsa.reporting import runs as runs_lib

# The method that exchanges nothing.
ALONE = 'local'

_OF_CLIENTS = ('std', 'worst_10_percent', 'gini')
_GAINS = ('gain', 'gain_worst', 'gainers')


def accuracies(run: runs_lib.Run) -> Optional[pandas.Series]:
  """Returns the accuracy of each client, by client, in [0, 1].

  It is that of the method's main classifier after the last round. Clients
  without test examples are left out. None if the run has no `per_client.csv`.

  Args:
    run: A finished run.
  """
  table = run.per_client
  if table is None:
    return None
  names = [n for n in client_evaluation.CLASSIFIERS if n in table]
  tested = table[table['num_examples'] > 0].set_index('client')
  main = client_evaluation.main_classifier(names)
  return tested[main] / tested['num_examples']


def worst_tenth(values: pandas.Series) -> float:
  """Returns the mean of the worst tenth, of at least one."""
  return float(values.sort_values()[: math.ceil(len(values) / 10)].mean())


def gini(values: np.ndarray) -> float:
  """Returns the Gini coefficient, in [0, 1): 0 if all are equal.

  It is the mean difference of two of the values, divided by twice their mean.

  Args:
    values: float[n], not negative; NaN if all are 0 or there is none.
  """
  ordered = np.sort(np.asarray(values, np.float64))
  n, total = len(ordered), ordered.sum()
  if not total:
    return math.nan
  ranks = np.arange(1, n + 1)
  return float(((2 * ranks - n - 1) * ordered).sum() / (n * total))


def gains(
  run: runs_lib.Run, alone: Sequence[runs_lib.Run]
) -> Optional[pandas.Series]:
  """Returns what each client gains over training alone, in accuracy.

  Args:
    run: A finished run.
    alone: Runs of `ALONE` in the same setting. The one with the same seed and
      the same partition is compared; None if there is none.
  """
  own = accuracies(run)
  for other in alone:
    if other.seed == run.seed and other.partition == run.partition:
      theirs = accuracies(other)
      if own is not None and theirs is not None:
        return (own - theirs).dropna()
  return None


def runs_alone(
  group: groups_lib.Group, groups: Sequence[groups_lib.Group]
) -> list[runs_lib.Run]:
  """Returns the finished runs of `ALONE` in the setting of a group.

  Args:
    group: One of the groups.
    groups: Result of `groups.group`.
  """
  own = [
    one
    for one in groups
    if one.algorithm == ALONE and one.place.setting == group.place.setting
  ]
  # Variants of the method have names of their own.
  plain = [one for one in own if one.place.row == ALONE] or own
  return plain[0].finished if len(plain) == 1 else []


def over_runs(groups: Sequence[groups_lib.Group]) -> pandas.DataFrame:
  """Returns one row per group: means over its runs.

  Its columns are `name`, `row`, `setting`, `n` (runs), `std` (over clients),
  `worst_10_percent` and `gini` of the clients' accuracies, and, where the runs
  have runs of `ALONE` beside them, `gain` (mean over clients), `gain_worst`
  (of the worst tenth of gains) and `gainers` (share of clients that gain). The
  table is empty if no run has accuracies of clients.

  Args:
    groups: Result of `groups.group`.
  """
  rows = []
  for group in groups:
    alone = runs_alone(group, groups)
    found = [
      _of_run(run, alone if group.algorithm != ALONE else [])
      for run in group.finished
      if run.per_client is not None
    ]
    if found:
      means = pandas.DataFrame(found).mean()
      rows.append(
        {
          'name': group.name,
          'row': group.place.row,
          'setting': group.setting,
          'n': len(found),
          **means,
        }
      )
  columns = ['name', 'row', 'setting', 'n', *_OF_CLIENTS, *_GAINS]
  return pandas.DataFrame(rows, columns=columns)


def _of_run(
  run: runs_lib.Run, alone: Sequence[runs_lib.Run]
) -> Mapping[str, float]:
  own = accuracies(run)
  assert own is not None
  found = {
    'std': float(own.std(ddof=0)),
    'worst_10_percent': worst_tenth(own),
    'gini': gini(own.to_numpy()),
  }
  gained = gains(run, alone)
  if gained is not None:
    found |= {
      'gain': float(gained.mean()),
      'gain_worst': worst_tenth(gained),
      'gainers': float((gained > 0).mean()),
    }
  return found


def for_reading(table: pandas.DataFrame) -> pandas.DataFrame:
  """Returns the table of `over_runs` as text, in percent."""
  columns = {
    'method': table['name'],
    'std': [_percent(value) for value in table['std']],
    'worst 10 %': [_percent(value) for value in table['worst_10_percent']],
    'Gini': [f'{value:.3f}' for value in table['gini']],
  }
  if table['gain'].notna().any():
    columns |= {
      'gain': [_percent(value, sign=True) for value in table['gain']],
      'worst gains': [
        _percent(value, sign=True) for value in table['gain_worst']
      ],
      'gain at all': [_percent(value) for value in table['gainers']],
    }
  return pandas.DataFrame(columns)


def _percent(value: float, *, sign: bool = False) -> str:
  if math.isnan(value):
    return '–'
  return f'{100 * value:{"+" if sign else ""}.1f}'.replace('-', '−')


def note(table: pandas.DataFrame) -> str:
  """Returns the note of the table.

  Args:
    table: Result of `over_runs`.
  """
  text = (
    'Accuracies of clients on their own test examples after the last round, '
    "by the method's main classifier, in percent; means over runs. *std*: "
    'standard deviation over clients; *worst 10 %*: mean of the worst tenth; '
    '*Gini*: 0 if all clients have the same accuracy.'
  )
  if table['gain'].notna().any():
    text += (
      ' *gain*: percent points over Local of the same client, seed and '
      'partition, mean over clients; *worst gains*: mean of the tenth that '
      'gains least; *gain at all*: share of clients with a gain above 0.'
    )
  return text
