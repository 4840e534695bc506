"""A comparison as text: Markdown and LaTeX."""

from collections.abc import Mapping, Sequence
import math
from typing import Any, Optional

import pandas

from tff_fedsa.reporting import runs as runs_lib
from tff_fedsa.reporting import tables

_STATISTIC_TITLES = {
  'last': 'last',
  'best': 'best',
  'mean_of_last_10': 'mean of last 10',
  'worst_10_percent': 'worst 10 % clients',
}
_TEST_TITLES = {
  't': 'two-sided paired t-test',
  'wilcoxon': 'two-sided Wilcoxon signed-rank test (exact)',
}
# What LaTeX would not print as it stands.
_LATEX = {
  '\\': r'\textbackslash{}',
  '&': r'\&',
  '%': r'\%',
  '$': r'\$',
  '#': r'\#',
  '_': r'\_',
  '{': r'\{',
  '}': r'\}',
  '~': r'\textasciitilde{}',
  '^': r'\textasciicircum{}',
  '±': r'$\pm$',
  '–': '--',
  '−': r'$-$',
  '<': r'$<$',
}


class Table:
  """Cells, with a head: names to the left, numbers to the right."""

  def __init__(
    self,
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    num_names: int = 2,
  ):
    """Initializes `Table`.

    Args:
      head: Of the columns.
      rows: Their cells.
      num_names: How many columns, the first ones, hold names.
    """
    self._num_names = num_names
    self.head = list(head)
    self.rows = [list(row) for row in rows]

  def to_markdown(self) -> str:
    """Returns a pipe table, columns padded for reading as it stands."""
    rows = [
      [cell.replace('|', r'\|') for cell in row]
      for row in [self.head, *self.rows]
    ]
    widths = [max(2, *map(len, column)) for column in zip(*rows)]
    lines = [
      '| ' + ' | '.join(map(str.ljust, row, widths)) + ' |' for row in rows
    ]
    rule = [
      '-' * width if index < self._num_names else '-' * (width - 1) + ':'
      for index, width in enumerate(widths)
    ]
    lines.insert(1, '| ' + ' | '.join(rule) + ' |')
    return '\n'.join(lines)

  def to_latex(self, caption: str, label: str) -> str:
    r"""Returns a table environment; it needs `\usepackage{booktabs}`."""
    num_numbers = len(self.head) - self._num_names
    body = [
      ' & '.join(_latex(cell) for cell in row) + r' \\'
      for row in [self.head, *self.rows]
    ]
    return '\n'.join(
      [
        r'\begin{table}',
        r'  \centering',
        f'  \\caption{{{_latex(caption)}}}',
        f'  \\label{{{label}}}',
        f'  \\begin{{tabular}}{{{"l" * self._num_names}{"r" * num_numbers}}}',
        r'    \toprule',
        f'    {body[0]}',
        r'    \midrule',
        *(f'    {line}' for line in body[1:]),
        r'    \bottomrule',
        r'  \end{tabular}',
        r'\end{table}',
        '',
      ]
    )


def _latex(text: str) -> str:
  return ''.join(_LATEX.get(letter, letter) for letter in text)


def comparison_table(table: pandas.DataFrame) -> Table:
  """Returns accuracies and costs for reading.

  Args:
    table: Of `tables.over_seeds`.
  """
  # Averaged models have no worst clients.
  titles = {
    name: title
    for name, title in _STATISTIC_TITLES.items()
    if table[f'{name}_mean'].notna().any()
  }
  head = ['method', 'classifier', 'seeds', *titles.values()]
  head += ['kB up', 'kB down', 'MB in all', 'seconds']
  rows = []
  for row in table.to_dict('records'):
    cells = [row['name'], row['classifier'] or '–', _seeds(row)]
    if not row['classifier']:
      rows.append(cells + ['–'] * (len(head) - len(cells)))
      continue
    for name in titles:
      cells.append(_mean_and_std(row[f'{name}_mean'], row[f'{name}_std']))
    cells += [
      f'{row["bytes_up_per_client"] / 1e3:.1f}',
      f'{row["bytes_down_per_client"] / 1e3:.1f}',
      f'{row["bytes_total"] / 1e6:.1f}',
      f'{row["seconds"]:.0f}',
    ]
    rows.append(cells)
  return Table(head, rows)


def _seeds(row: Mapping[str, Any]) -> str:
  notes = [
    f'{row[status]} {status}'
    for status in ('failed', 'incomplete', 'diverged')
    if row[status]
  ]
  return f'{row["n"]}' + (f' ({", ".join(notes)})' if notes else '')


def _mean_and_std(mean: float, std: float) -> str:
  if math.isnan(mean):
    return '–'
  return f'{mean:.4f}' + ('' if math.isnan(std) else f' ± {std:.4f}')


def test_set_table(table: pandas.DataFrame) -> Table:
  """Returns accuracies by test set for reading, a column for each.

  Args:
    table: Of `tables.per_test_set`.
  """
  names = list(table['test_set'].unique())
  rows = []
  for pair, found in table.groupby(['name', 'classifier'], sort=False):
    of_set = found.set_index('test_set')
    rows.append(
      [
        *pair,
        *(
          _mean_and_std(*of_set.loc[name, ['last', 'last_std']])
          for name in names
        ),
      ]
    )
  return Table(['method', 'classifier', *names], rows)


def significance_table(table: pandas.DataFrame, reference: str) -> Table:
  """Returns differences and their p-values for reading.

  Args:
    table: Of `tables.significance`.
    reference: What they were compared with.
  """
  head = ['method', 'classifier', f"{reference}'s", 'n', 'difference', 'p']
  head.append('p (Holm)')
  rows = [
    [
      row['name'],
      row['classifier'],
      row['against'],
      str(row['n']),
      _difference(row['difference'], row['difference_std']),
      _p(row['p']),
      _p(row['p_holm']),
    ]
    for row in table.to_dict('records')
  ]
  return Table(head, rows, num_names=3)


def _difference(mean: float, std: float) -> str:
  if math.isnan(mean):
    return '–'
  text = f'{mean:+.4f}'.replace('-', '−')
  return text + ('' if math.isnan(std) else f' ± {std:.4f}')


def _p(value: float) -> str:
  if math.isnan(value):
    return '–'
  return '< 0.0001' if value < 0.0001 else f'{value:.4f}'


def comparison_note() -> str:
  """Returns what the columns of `comparison_table` mean."""
  return (
    'Accuracy over all test examples (of an averaged model, mean over its '
    'test sets): mean ± standard deviation (of the sample) over seeds. '
    '*last*: after the last round; *best*: of the round that is best on the '
    'test examples themselves, which flatters; *worst 10 % clients*: mean '
    'accuracy of the worst tenth of the clients after the last round. kB per '
    'client and round, MB of all clients and rounds both ways (10^3 and 10^6 '
    'bytes); seconds of training, all rounds, as the machine was loaded.'
  )


def significance_note(
  table: pandas.DataFrame, reference: str, statistic: str, test: str
) -> str:
  """Returns what was tested, and what that can show.

  Args:
    table: Of `tables.significance`.
    reference: As given to it.
    statistic: As given to it.
    test: As given to it.
  """
  counts = sorted(set(table['n']))
  pairs = ' or '.join(map(str, counts))
  text = (
    f'{_TEST_TITLES[test][0].upper()}{_TEST_TITLES[test][1:]} of the '
    f'difference to {reference} in the accuracy '
    f'*{_STATISTIC_TITLES[statistic]}*, paired over seeds, n = {pairs}; *p '
    '(Holm)* is corrected for all tests of this table, '
    f'{int(table["p"].notna().sum())}. Seeds repeat training, not the data: '
    'this says nothing of other partitions.'
  )
  least = counts[0] if counts else 0
  if least < 2:
    return text + ' With one seed there is nothing to test.'
  if test == 'wilcoxon':
    return text + (
      f' With {least} seeds the smallest p that this test can give is '
      f'{2 / 2**least:g}.'
    )
  return text + (
    f' With {least} seeds the power is '
    + ('small' if least < 6 else 'limited')
    + ': a difference is found in 4 of 5 cases (p < 0.05, uncorrected) only '
    f'if it is {tables.detectable(least):.1f} times its standard deviation '
    'over seeds. A large p does not say that two methods are equal.'
  )


def unfinished(groups: Sequence[runs_lib.Group]) -> list[str]:
  """Returns a line for each run that is not in the means, or diverged."""
  lines = []
  for group in groups:
    for run in group.runs:
      if run.status != runs_lib.FINISHED:
        detail = f': {run.detail}' if run.detail else ''
        lines.append(
          f'{group.name}, seed {run.seed}: {run.status}{detail} ({run.path})'
        )
      elif run.diverged:
        lines.append(
          f'{group.name}, seed {run.seed}: finished, but training diverged '
          f'{run.diverged} times and was left out ({run.path})'
        )
  return lines


def markdown(
  title: str,
  setting: str,
  comparison: pandas.DataFrame,
  test_sets: pandas.DataFrame,
  significance: Optional[str],
  troubles: Sequence[str],
  pictures: Mapping[str, str],
) -> str:
  """Returns the whole report.

  Args:
    title: Its heading.
    setting: What was measured: data, partition, rounds.
    comparison: Of `tables.over_seeds`.
    test_sets: Of `tables.per_test_set`.
    significance: Table and note, if there is one.
    troubles: Of `unfinished`.
    pictures: Captions by file name.
  """
  parts = [
    f'# {title}',
    setting,
    comparison_table(comparison).to_markdown(),
    comparison_note(),
  ]
  if len(test_sets):
    parts += [
      '## Test sets',
      test_set_table(test_sets).to_markdown(),
      'Accuracy of the averaged model after the last round, mean ± standard '
      'deviation over seeds; above is the mean over test sets.',
    ]
  if troubles:
    parts.append('## Runs with troubles')
    parts.append('\n'.join(f'- {line}' for line in troubles))
  if significance:
    parts += ['## Differences', significance]
  for name, caption in pictures.items():
    parts.append(f'![{caption}]({name})')
  return '\n\n'.join(parts) + '\n'
