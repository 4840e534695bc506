"""A comparison as text: Markdown and LaTeX."""

from collections.abc import Callable, Collection, Mapping, Sequence
import math
import os
from typing import Any, Optional

import numpy as np
import pandas

from tff_fedsa import settings
from tff_fedsa.data import generators
from tff_fedsa.data import task_spec
from tff_fedsa.reporting import groups as groups_lib
from tff_fedsa.reporting import pivots
from tff_fedsa.reporting import rendering
from tff_fedsa.reporting import runs as runs_lib
from tff_fedsa.reporting import significance as significance_lib

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
# Columns with names. The others hold numbers.
_NAMES = (
  'method',
  'setting',
  'classifier',
  'reference',
  "reference's",
  'reached',
)


def to_markdown(table: pandas.DataFrame) -> str:
  """Returns one of the tables below as Markdown."""
  return rendering.to_markdown(table, _NAMES)


def to_latex(table: pandas.DataFrame, caption: str, label: str) -> str:
  r"""Returns one of the tables below as LaTeX, for `booktabs`.

  Args:
    table: One of the tables below.
    caption: Text of the caption.
    label: For `\ref`.
  """
  return rendering.to_latex(table, _NAMES, caption, label)


def setting(groups: Sequence[groups_lib.Group]) -> str:
  """Returns a sentence about the measurement.

  Args:
    groups: Result of `groups.group`, at least one with a finished run.
  """
  runs = [run for group in groups for run in group.finished]
  finished = [run.flags for run in runs]

  def each(text_fn: Callable[[Mapping[str, str]], str]) -> str:
    return ' / '.join(dict.fromkeys(map(text_fn, finished)))

  seeds = _by_number({run.seed for group in groups for run in group.runs})
  dealt_by = _by_number({flags['partition_seed'] for flags in finished})
  return (
    f'{each(_data)}, {each(_partition)} (partition '
    f'seed{"s" if len(dealt_by) > 1 else ""} {", ".join(dealt_by)}), '
    f'{" / ".join(dict.fromkeys(map(_clients, runs)))}, '
    f'{each(lambda flags: flags["total_rounds"])} rounds, '
    f'test set: {each(lambda flags: flags["test_set"])}, protocol: '
    f'{each(lambda flags: flags.get("protocol", "personal"))}; seeds '
    f'{", ".join(seeds)}.'
  )


def _data(flags: Mapping[str, str]) -> str:
  limit = flags.get('max_examples')
  return flags['dataset'] + (f', {limit} examples' if limit else '')


def _partition(flags: Mapping[str, str]) -> str:
  if 'partition_file' in flags:
    return os.path.basename(flags['partition_file'])
  if _has_clients(flags):
    return 'clients of their own'
  parameter = {
    'dirichlet': 'alpha',
    'pathological': 'classes_per_client',
  }.get(flags['partition'])
  return flags['partition'] + (f' {flags[parameter]}' if parameter else '')


def _clients(run: runs_lib.Run) -> str:
  number = run.flags['num_clients']
  if _has_clients(run.flags) and run.per_client is not None:
    number = str(len(run.per_client))
  drawn = run.flags.get('clients_per_round')
  return f'{number} clients' + (f', {drawn} in each round' if drawn else '')


def _has_clients(flags: Mapping[str, str]) -> bool:
  """Returns whether examples are not dealt out to clients."""
  dataset = flags['dataset']
  try:
    spec = task_spec.TaskSpec(
      dataset=dataset, client_column=flags.get('client_column')
    )
  except settings.SettingsError:
    return False  # A data set that the user's own module registers.
  return spec.has_clients and dataset not in generators.NAMES


def _by_number(seeds: Collection[str]) -> list[str]:
  return sorted(seeds, key=lambda seed: (len(seed), seed))


def comparison_table(
  table: pandas.DataFrame, *, mark: bool = False
) -> pandas.DataFrame:
  """Returns accuracies and costs as text.

  Args:
    table: Result of `tables.over_seeds`.
    mark: True for Markdown with the best number of a column in bold and the
      second underlined. They are those of main classifiers.
  """
  # Averaged models have no worst clients.
  titles = {
    name: title
    for name, title in _STATISTIC_TITLES.items()
    if table[f'{name}_mean'].notna().any()
  }
  if table['validated'].dropna().eq(True).all():
    titles['best'] = 'chosen on validation'
  head = ['method', 'classifier', 'seeds', *titles.values()]
  head += ['binomial error', 'kB up', 'kB down', 'MB in all', 'seconds']
  is_main = table['is_main'].eq(True).to_numpy()[:, np.newaxis]
  means = table[[f'{name}_mean' for name in titles]].to_numpy(float)
  ranks = pivots.ranks(np.where(is_main & mark, means, math.nan), digits=4)
  rows = []
  for index, row in enumerate(table.to_dict('records')):
    cells = [row['name'], row['classifier'] or '–', _seeds(row)]
    if not row['classifier']:
      rows.append(cells + ['–'] * (len(head) - len(cells)))
      continue
    for name, rank in zip(titles, ranks[index]):
      text = _mean_and_std(row[f'{name}_mean'], row[f'{name}_std'])
      cells.append(rendering.marked_markdown(text, rank))
    cells += [
      '–' if math.isnan(row['binomial_std']) else f'{row["binomial_std"]:.4f}',
      f'{row["bytes_up_per_client"] / 1e3:.1f}',
      f'{row["bytes_down_per_client"] / 1e3:.1f}',
      f'{row["bytes_total"] / 1e6:.1f}',
      f'{row["seconds"]:.0f}',
    ]
    rows.append(cells)
  return pandas.DataFrame(rows, columns=head)


def _seeds(row: Mapping[str, Any]) -> str:
  notes = [
    f'{row[status]} {status}'
    for status in ('failed', 'incomplete', 'diverged')
    if row[status]
  ]
  return f'{row["n"]}' + (f' ({", ".join(notes)})' if notes else '')


def narrow_table(table: pandas.DataFrame) -> pandas.DataFrame:
  """Returns main accuracies in percent and costs, for one column of a paper.

  The cells are LaTeX: the best number is bold, the second is underlined.

  Args:
    table: Result of `tables.over_seeds`.
  """
  main = table[(table['classifier'] != '') & table['is_main'].eq(True)]
  statistics = [
    name
    for name in ('last', 'worst_10_percent')
    if main[f'{name}_mean'].notna().any()
  ]
  means = main[[f'{name}_mean' for name in statistics]].to_numpy(float)
  ranks = pivots.ranks(means)
  columns = {'method': [rendering.escape(name) for name in main['name']]}
  for column, name in enumerate(statistics):
    heading = {'last': 'accuracy'}.get(name, rendering.escape('worst 10 %'))
    columns[heading] = [
      pivots.latex_cell(mean, std, rank)
      for mean, std, rank in zip(
        means[:, column], main[f'{name}_std'], ranks[:, column]
      )
    ]
  columns['MB'] = [f'{sent / 1e6:.1f}' for sent in main['bytes_total']]
  return pandas.DataFrame(columns)


def _mean_and_std(mean: float, std: float) -> str:
  if math.isnan(mean):
    return '–'
  return f'{mean:.4f}' + ('' if math.isnan(std) else f' ± {std:.4f}')


def test_set_table(table: pandas.DataFrame) -> pandas.DataFrame:
  """Returns accuracies by test set as text, one column per test set.

  Args:
    table: Result of `tables.per_test_set`.
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
  return pandas.DataFrame(rows, columns=['method', 'classifier', *names])


def metrics_table(table: pandas.DataFrame) -> pandas.DataFrame:
  """Returns the metrics beside accuracy as text.

  Args:
    table: Result of `tables.further_metrics`.
  """
  columns = {'method': table['name'], 'classifier': table['classifier']}
  for name in table.columns:
    if f'{name}_std' in table:
      columns[name.replace('_', ' ')] = list(
        map(_mean_and_std, table[name], table[f'{name}_std'])
      )
  return pandas.DataFrame(columns)


def significance_table(table: pandas.DataFrame) -> pandas.DataFrame:
  """Returns differences and their p-values as text.

  Args:
    table: Result of `significance.compare`.
  """
  setting = {'setting': table['setting']} if table['setting'].any() else {}
  return pandas.DataFrame(
    {
      'method': table['name'],
      **setting,
      'classifier': table['classifier'],
      'reference': table['reference'],
      "reference's": table['against'],
      'n': table['n'].map(str),
      'difference': list(
        map(_difference, table['difference'], table['difference_std'])
      ),
      'p': table['p'].map(_p),
      'p (Holm)': table['p_holm'].map(_p),
    }
  )


def narrow_significance(table: pandas.DataFrame) -> pandas.DataFrame:
  """Returns differences of main classifiers, for one column of a paper.

  Args:
    table: Result of `significance.compare`.
  """
  main = table[table['is_main']]
  setting = {'setting': main['setting']} if main['setting'].any() else {}
  return pandas.DataFrame(
    {
      'method': main['row'],
      **setting,
      'difference': [
        _difference(100 * mean, 100 * std, digits=1)
        for mean, std in zip(main['difference'], main['difference_std'])
      ],
      'p (Holm)': main['p_holm'].map(_p),
    }
  )


def _difference(mean: float, std: float, digits: int = 4) -> str:
  if math.isnan(mean):
    return '–'
  text = f'{mean:+.{digits}f}'.replace('-', '−')
  return text + ('' if math.isnan(std) else f' ± {std:.{digits}f}')


def _p(value: float) -> str:
  if math.isnan(value):
    return '–'
  return '< 0.0001' if value < 0.0001 else f'{value:.4f}'


def comparison_note(*, marked: bool) -> str:
  """Returns the meaning of the columns of `comparison_table`."""
  return (
    (
      'The best number of a column is bold and the second underlined, among '
      "the methods' main classifiers. "
      if marked
      else ''
    )
    + 'Accuracy over all test examples (of an averaged model, mean over its '
    'test sets): mean ± standard deviation (of the sample) over seeds; over '
    'partitions, where seeds have different ones, after the mean over the runs '
    'of a partition. *binomial error*: the standard error of one run that a '
    'test set of this size has anyway. '
    '*last*: after the last round; *chosen on validation*: of the round that '
    'is best on validation examples; *best*: in runs without any, of the round '
    'that is best on the test examples themselves, which flatters; *worst 10 % '
    'clients*: mean accuracy of the worst tenth of the clients after the last '
    'round. kB per '
    'client and round, MB of all clients and rounds both ways (10^3 and 10^6 '
    'bytes); seconds of training, all rounds, as the machine was loaded.'
  )


def significance_note(
  table: pandas.DataFrame,
  reference: str,
  statistic: str,
  test: str,
  *,
  num_partitions: int = 1,
) -> str:
  """Returns a description of the test and of its power.

  Args:
    table: Result of `significance.compare`.
    reference: The argument of `significance.compare`.
    statistic: The argument of `significance.compare`.
    test: The argument of `significance.compare`.
    num_partitions: Number of partition seeds of the runs.
  """
  counts = sorted(set(table['n']))
  pairs = ' or '.join(map(str, counts))
  title = _TEST_TITLES[test]
  units = 'partitions' if num_partitions > 1 else 'seeds'
  within = (
    reference
    if set(table['reference']) == {reference} or not table['setting'].any()
    else f'{reference} in the same setting'
  )
  text = (
    f'{title[0].upper()}{title[1:]} of the difference to {within} in the '
    f'accuracy *{_STATISTIC_TITLES[statistic]}*, paired over {units}, n = '
    f'{pairs}; *p (Holm)* is corrected for all tests of this table, '
    f'{int(table["p"].notna().sum())}. '
  )
  text += (
    'Seeds repeat the training on the same partition: the test says nothing '
    'about other partitions.'
    if num_partitions == 1
    else 'Each pair is a partition of its own; several runs of a partition '
    'count once, with their mean.'
  )
  if (table['p'].isna() & (table['n'] > 1)).any():
    text += (
      ' A dash in place of p: the difference is the same in each of the '
      f'{units}, up to one test example, so that there is no spread to test it '
      'against; it is no proof.'
    )
  least = counts[0] if counts else 0
  if least < 2:
    return text + f' With one of the {units} there is nothing to test.'
  if test == 'wilcoxon':
    return text + (
      f' With {least} {units} the smallest p that this test can give is '
      f'{2 / 2**least:g}.'
    )
  return text + (
    f' With {least} {units} the power is '
    + ('small' if least < 6 else 'limited')
    + ': a difference is found in 4 of 5 cases (p < 0.05, uncorrected) only '
    f'if it is {significance_lib.detectable(least):.1f} times its standard '
    f'deviation over {units}. A large p does not say that two methods are '
    'equal.'
  )


def unfinished(groups: Sequence[groups_lib.Group]) -> list[str]:
  """Returns one line per run that diverged or is not in the means."""
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
  by_setting: Optional[str],
  comparison: pandas.DataFrame,
  test_sets: pandas.DataFrame,
  time_to_accuracy: Optional[str],
  further: Optional[str],
  fairness: Optional[str],
  significance: Optional[str],
  troubles: Sequence[str],
) -> str:
  """Returns the whole report.

  Args:
    title: Heading of the report.
    setting: Setting of the measurement: data, partition, rounds.
    by_setting: Pivot tables and note, if there are several settings.
    comparison: Result of `tables.over_seeds`.
    test_sets: Result of `tables.per_test_set`.
    time_to_accuracy: Table and note, if there is one.
    further: Table of metrics beside accuracy, if there are some.
    fairness: Table and note, if there is one.
    significance: Table and note, if there is one.
    troubles: Result of `unfinished`.
  """
  parts = [f'# {title}', setting]
  if by_setting:
    parts += [by_setting, '## All numbers']
  parts.append(to_markdown(comparison_table(comparison, mark=not by_setting)))
  parts.append(comparison_note(marked=not by_setting))
  if len(test_sets):
    parts += [
      '## Test sets',
      to_markdown(test_set_table(test_sets)),
      'Accuracy of the averaged model after the last round, mean ± standard '
      'deviation over seeds; above is the mean over test sets.',
    ]
  if time_to_accuracy:
    parts += ['## Time to accuracy', time_to_accuracy]
  if further:
    parts += [
      '## More metrics',
      further,
      'After the last round, of the test examples of all clients together: '
      'mean ± standard deviation (of the sample) over runs.',
    ]
  if fairness:
    parts += ['## Clients', fairness]
  if troubles:
    parts.append('## Runs with troubles')
    parts.append('\n'.join(f'- {line}' for line in troubles))
  if significance:
    parts += ['## Differences', significance]
  return '\n\n'.join(parts) + '\n'
