"""Time of runs to an accuracy: rounds, bytes, and simulated seconds."""

from collections.abc import Sequence
import math

import pandas

from tff_fedsa.reporting import groups as groups_lib
from tff_fedsa.reporting import runs as runs_lib
from tff_fedsa.reporting import tables

_COLUMNS = (
  'name',
  'classifier',
  'n',
  'reached',
  'rounds_mean',
  'rounds_std',
  'megabytes_mean',
  'megabytes_std',
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
  `rounds`, `megabytes` (sent and received by all clients so far) and
  `simulated_seconds` (NaN without simulated time).

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
          if (first := _first(run, column, target)) is not None
        ],
        columns=['round', 'megabytes', 'simulated_seconds'],
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
        ('megabytes', reached['megabytes']),
        ('simulated_seconds', reached['simulated_seconds']),
      ):
        row[f'{name}_mean'] = of_runs.mean()
        row[f'{name}_std'] = of_runs.std(ddof=1)
      rows.append(row)
  return pandas.DataFrame(rows, columns=list(_COLUMNS))


def _first(
  run: runs_lib.Run, column: str, target: float
) -> tuple[float, float, float] | None:
  """Returns round, megabytes and seconds of the first row at the target."""
  for row in run.history:
    if row.get(column, -math.inf) >= target:
      sent = 0.0
      if row['round']:
        sent = float(tables.megabytes_by_round(run)[row['round']])
      return row['round'], sent, row.get('simulated_seconds', math.nan)
  return None


def for_reading(table: pandas.DataFrame) -> pandas.DataFrame:
  """Returns the table of `over_seeds` as text."""
  columns = {
    'method': table['name'],
    'classifier': table['classifier'],
    'reached': [f'{r} of {n}' for r, n in zip(table['reached'], table['n'])],
    'rounds': _texts(table, 'rounds'),
    'MB': _texts(table, 'megabytes', digits=2),
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
    'that reach it. A mean says little where some do not. MB (10^6 bytes) of '
    'all clients, both ways.'
  )
  if table['simulated_seconds_mean'].notna().any():
    text += ' Simulated seconds are those of the clients and their deadline.'
  return text


def _texts(table: pandas.DataFrame, name: str, digits: int = 1) -> list[str]:
  found = []
  for mean, std in zip(table[f'{name}_mean'], table[f'{name}_std']):
    if math.isnan(mean):
      found.append('–')
    else:
      text = '' if math.isnan(std) else f' ± {std:.{digits}f}'
      found.append(f'{mean:.{digits}f}{text}')
  return found
