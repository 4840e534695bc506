"""Time of runs to an accuracy: rounds, and simulated seconds."""

from collections.abc import Mapping, Sequence
import math
from typing import Any

import pandas

from tff_fedsa.reporting import groups as groups_lib

_COLUMNS = (
  'name',
  'classifier',
  'n',
  'reached',
  'rounds_mean',
  'rounds_std',
  'simulated_seconds_mean',
  'simulated_seconds_std',
)


def over_seeds(
  groups: Sequence[groups_lib.Group], values: pandas.DataFrame, target: float
) -> pandas.DataFrame:
  """Returns the times at which the runs of each group reach an accuracy.

  There is one row per classifier of each group: `name`, `classifier`, `n`
  (finished runs), `reached` (runs that reach the accuracy), and over these runs
  the mean and the standard deviation (of the sample; NaN for one run) of
  `rounds` and `simulated_seconds` (NaN without simulated time).

  Args:
    groups: Result of `groups.group`.
    values: Result of `tables.per_run`.
    target: The accuracy, in (0, 1].
  """
  rows = []
  for group in groups:
    own = values[values['name'] == group.name]
    for classifier in own['classifier'].unique():
      column = f'{classifier}_accuracy'
      reached = pandas.DataFrame(
        [
          first
          for run in group.finished
          if (first := _first(run.history, column, target)) is not None
        ],
        columns=['round', 'simulated_seconds'],
        dtype=float,
      )
      row = {
        'name': group.name,
        'classifier': classifier,
        'n': len(group.finished),
        'reached': len(reached),
      }
      for name, of_runs in (
        ('rounds', reached['round']),
        ('simulated_seconds', reached['simulated_seconds']),
      ):
        row[f'{name}_mean'] = of_runs.mean()
        row[f'{name}_std'] = of_runs.std(ddof=1)
      rows.append(row)
  return pandas.DataFrame(rows, columns=list(_COLUMNS))


def _first(
  history: Sequence[Mapping[str, Any]], column: str, target: float
) -> tuple[float, float] | None:
  """Returns round and simulated seconds of the first row at the target."""
  for row in history:
    if row.get(column, -math.inf) >= target:
      return row['round'], row.get('simulated_seconds', math.nan)
  return None


def for_reading(table: pandas.DataFrame) -> pandas.DataFrame:
  """Returns the table of `over_seeds` as text."""
  columns = {
    'method': table['name'],
    'classifier': table['classifier'],
    'reached': [f'{r} of {n}' for r, n in zip(table['reached'], table['n'])],
    'rounds': _texts(table, 'rounds'),
  }
  if table['simulated_seconds_mean'].notna().any():
    columns['simulated seconds'] = _texts(table, 'simulated_seconds')
  return pandas.DataFrame(columns)


def note(target: float, table: pandas.DataFrame) -> str:
  """Returns the note of the table.

  Args:
    target: The accuracy.
    table: Result of `over_seeds`.
  """
  text = (
    f'First evaluated round with an accuracy of {target:g} or more over all '
    'test examples: mean ± standard deviation (of the sample) over the seeds '
    'that reach it. A mean says little where some do not.'
  )
  if table['simulated_seconds_mean'].notna().any():
    text += ' Simulated seconds are those of the clients and their deadline.'
  return text


def _texts(table: pandas.DataFrame, name: str) -> list[str]:
  found = []
  for mean, std in zip(table[f'{name}_mean'], table[f'{name}_std']):
    if math.isnan(mean):
      found.append('–')
    else:
      found.append(f'{mean:.1f}' + ('' if math.isnan(std) else f' ± {std:.1f}'))
  return found
