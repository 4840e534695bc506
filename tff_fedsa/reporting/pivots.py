"""Pivot tables of accuracies: methods are rows, settings are columns."""

from collections.abc import Callable, Mapping, Sequence
import math
from typing import NamedTuple

import numpy as np
import pandas

from tff_fedsa.evaluation import client_evaluation
from tff_fedsa.reporting import rendering

# The classifier by which the paper of each method reports it.
MAIN = 'main'

# Column of a sweep without settings.
_ONLY = 'accuracy'

# What a table says about a statistic.
_WHEN = {
  'last': ' after the last round',
  'best': ' in the best round',
  'mean_of_last_10': ', mean over the last ten evaluations',
  'worst_10_percent': ' of the worst tenth of the clients after the last round',
}

# Widths in points, at a size of 9 points. A column of LaTeX's article in two
# columns, of AAAI, ACM and IEEE is wider.
_COLUMN_WIDTH = 225.0
_WIDTH_OF_A_CHARACTER = 4.6
_WIDTH_OF_A_SUBSCRIPT = 4.0
_WIDTH_BETWEEN = 6.0


class Pivot(NamedTuple):
  """Accuracies of one classifier.

  Attributes:
    classifier: Its name, or `MAIN`.
    rows: Names of methods or variants.
    columns: Names of settings.
    means: float64[rows, columns], in [0, 1]; NaN where nothing was measured.
    stds: The same for deviations over units (see `tables.per_run`); NaN for a
      single unit.
    units: int64[rows, columns], how many partitions or seeds.
    errors: float64[columns], the largest binomial standard error of a cell.
  """

  classifier: str
  rows: Sequence[str]
  columns: Sequence[str]
  means: np.ndarray
  stds: np.ndarray
  units: np.ndarray
  errors: np.ndarray


def build(means: pandas.DataFrame, statistic: str = 'last') -> list[Pivot]:
  """Returns a pivot table for each classifier that methods can be compared by.

  The first has the main classifier of each method. The others compare like with
  like: a classifier that at least two methods have.

  Args:
    means: Result of `tables.over_seeds`.
    statistic: One of `tables.STATISTICS`.
  """
  measured = means[means['classifier'] != '']
  is_main = measured['is_main'].astype(bool)
  pivots = [_pivot(MAIN, means, measured[is_main], statistic)]
  mains = set(measured[is_main]['classifier'])
  for classifier in client_evaluation.ALL_CLASSIFIERS:
    own = measured[measured['classifier'] == classifier]
    # Where all have one main classifier, the first table shows it.
    if own['row'].nunique() > 1 and mains != {classifier}:
      pivots.append(_pivot(classifier, own, own, statistic))
  return pivots


def _pivot(
  classifier: str,
  of_all: pandas.DataFrame,
  own: pandas.DataFrame,
  statistic: str,
) -> Pivot:
  rows = list(of_all['row'].unique())
  columns = list(of_all['setting'].unique())
  shape = len(rows), len(columns)
  means, stds = np.full(shape, math.nan), np.full(shape, math.nan)
  errors, units = np.full(shape, math.nan), np.zeros(shape, int)
  for cell in own.to_dict('records'):
    place = rows.index(cell['row']), columns.index(cell['setting'])
    means[place] = cell[f'{statistic}_mean']
    stds[place] = cell[f'{statistic}_std']
    errors[place] = cell['binomial_std']
    units[place] = cell['units']
  return Pivot(
    classifier,
    rows,
    [column or _ONLY for column in columns],
    means,
    stds,
    units,
    np.array([_largest(errors[:, i]) for i in range(len(columns))]),
  )


def _largest(values: np.ndarray) -> float:
  known = values[~np.isnan(values)]
  return float(known.max()) if len(known) else math.nan


def ranks(means: np.ndarray, digits: int = 3) -> np.ndarray:
  """Returns 1 for the best, 2 for the second, else 0; int64[rows, columns].

  Numbers that look equal in the table are equal. A column with one number has
  no best.

  Args:
    means: float64[rows, columns]; larger is better, NaN is no number.
    digits: Decimal digits of the table, of fractions.
  """
  found = np.zeros(means.shape, int)
  shown = np.round(means, digits)
  for column in range(means.shape[1]):
    of_column = shown[:, column]
    known = np.unique(of_column[~np.isnan(of_column)])[::-1]
    if np.count_nonzero(~np.isnan(of_column)) < 2:
      continue
    for rank, value in enumerate(known[:2], start=1):
      found[of_column == value, column] = rank
  return found


def to_markdown(pivot: Pivot, titles: Mapping[str, str]) -> str:
  """Returns the table as Markdown, in percent.

  Args:
    pivot: A result of `build`.
    titles: Names of rows for reading.
  """

  def cell(row: int, column: int, rank: int) -> str:
    mean, std = 100 * pivot.means[row, column], 100 * pivot.stds[row, column]
    text = f'{mean:.1f}' + ('' if math.isnan(std) else f' ± {std:.1f}')
    if pivot.units[row, column] < pivot.units.max():
      text += f' (n = {pivot.units[row, column]})'
    return rendering.marked_markdown(text, rank)

  table = _texts(pivot, titles, cell)
  if not np.isnan(pivot.errors).all():
    table.loc[len(table)] = [
      'binomial error',
      *('–' if math.isnan(e) else f'{100 * e:.1f}' for e in pivot.errors),
    ]
  return rendering.to_markdown(table, ['method'])


def _texts(
  pivot: Pivot,
  titles: Mapping[str, str],
  cell: Callable[[int, int, int], str],
) -> pandas.DataFrame:
  ranked = ranks(pivot.means)
  return pandas.DataFrame(
    [
      [
        titles.get(name, name),
        *(
          '–'
          if math.isnan(pivot.means[row, column])
          else cell(row, column, ranked[row, column])
          for column in range(len(pivot.columns))
        ),
      ]
      for row, name in enumerate(pivot.rows)
    ],
    columns=['method', *pivot.columns],
  )


def to_latex(
  pivot: Pivot, titles: Mapping[str, str], caption: str, label: str
) -> str:
  r"""Returns a table that fits one column of a paper, in percent.

  Settings that do not fit beside each other stand in blocks below each other.
  It needs `\usepackage{booktabs}`.

  Args:
    pivot: A result of `build`.
    titles: Names of rows for reading.
    caption: Text of the caption, not yet escaped.
    label: For `\ref`.
  """
  flag, heads = _heads(pivot.columns)
  if flag:
    caption += f' Columns: {flag}.'
  if not np.isnan(pivot.errors).all():
    heads_of = zip(heads, pivot.errors)
    errors = [f'{100 * e:.1f} ({h})' for h, e in heads_of]
    if len(errors) == 1:
      errors = [f'{100 * pivot.errors[0]:.1f}']
    caption += f' Binomial error of a test: at most {", ".join(errors)}.'

  def cell(row: int, column: int, rank: int) -> str:
    return latex_cell(pivot.means[row, column], pivot.stds[row, column], rank)

  table = _texts(pivot, titles, cell)
  table['method'] = table['method'].map(rendering.escape)
  table = table.replace('–', '--')
  blocks = [
    rendering.tabular(
      table.iloc[:, [0, *(1 + i for i in block)]],
      ['method', *(rendering.escape(heads[i]) for i in block)],
    )
    for block in _blocks(pivot, list(table['method']), heads)
  ]
  return rendering.in_table('\n\n\\medskip\n'.join(blocks), caption, label)


def latex_cell(mean: float, std: float, rank: int) -> str:
  """Returns an accuracy with its deviation, in percent, as LaTeX.

  Args:
    mean: In [0, 1]; NaN is a dash.
    std: In [0, 1]; NaN is left out.
    rank: 1 for the best, 2 for the second, else 0.
  """
  if math.isnan(mean):
    return '--'
  text = rendering.marked_latex(f'{100 * mean:.1f}', rank)
  return text if math.isnan(std) else f'{text}$_{{\\pm {100 * std:.1f}}}$'


def _heads(columns: Sequence[str]) -> tuple[str, list[str]]:
  """Returns the flags that all columns name, and their values."""
  parts = [
    [part.partition('=') for part in column.split(', ')] for column in columns
  ]
  named = {tuple(name for name, _, _ in column) for column in parts}
  if (
    len(columns) > 1
    and len(named) == 1
    and all(equal for column in parts for _, equal, _ in column)
  ):
    flags = ', '.join(named.pop())
    return flags, [', '.join(v for _, _, v in column) for column in parts]
  return '', list(columns)


def _blocks(
  pivot: Pivot, rows: Sequence[str], heads: Sequence[str]
) -> list[list[int]]:
  """Returns which columns stand beside each other."""
  first = max(map(len, [*rows, 'method'])) * _WIDTH_OF_A_CHARACTER
  cell = 4 * _WIDTH_OF_A_CHARACTER
  if not np.isnan(pivot.stds).all():
    cell += 4 * _WIDTH_OF_A_SUBSCRIPT
  blocks: list[list[int]] = []
  used = math.inf
  for index, head in enumerate(heads):
    width = max(cell, len(head) * _WIDTH_OF_A_CHARACTER) + _WIDTH_BETWEEN
    if used + width > _COLUMN_WIDTH:
      blocks.append([])
      used = first
    blocks[-1].append(index)
    used += width
  return blocks


def title(pivot: Pivot) -> str:
  """Returns the heading of a table."""
  if pivot.classifier == MAIN:
    return 'The classifier that stands for each method'
  return f'The classifier {pivot.classifier} of all methods that have it'


def document(
  pivots: Sequence[Pivot], titles: Mapping[str, str], statistic: str = 'last'
) -> str:
  """Returns tables with headings and a note, as Markdown.

  Args:
    pivots: Result of `build`.
    titles: Names of rows for reading.
    statistic: The argument of `build`.
  """
  parts = ['## Accuracy by setting']
  for pivot in pivots:
    parts += [f'**{title(pivot)}**', to_markdown(pivot, titles)]
  parts.append(
    f'Percent of all test examples{_WHEN[statistic]}: mean ± standard '
    'deviation (of the sample) over partitions, or over seeds of one '
    'partition. The best number of a column is bold, the second underlined. '
    '*binomial error*: the largest standard error of one run that the size of '
    'the test set causes. A smaller difference may be chance.'
  )
  return '\n\n'.join(parts)
