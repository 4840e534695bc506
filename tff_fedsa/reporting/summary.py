"""Summarizes a run: last round, best round, mean of the last rows."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tff_fedsa.evaluation import client_evaluation
from tff_fedsa.evaluation import newcomers as newcomers_lib
from tff_fedsa.runs import errors

_LAST_ROWS = 10


def summarize(history: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """Summarizes the rows of a run.

  The best round of a classifier is the best on validation examples. Without
  validation examples it is the best on the test examples themselves, as in the
  reference. This flatters, so it is never shown without the last round.

  Args:
    history: Rows with `metrics.COLUMNS`, at least one.

  Returns:
    A JSON-able dict: `rounds`, and for each classifier in them `last`, `best`,
    `best_round`, `mean_of_last_10` (rows, trained ones only) and the last
    row's `clients_std`, `clients_min`, `clients_p10` (protocol `global`: in
    place of these, `by_domain` where there are domains). `newcomers` has the
    last accuracies of clients that never train, if there are any.

  Raises:
    ValueError: If there is no row.
  """
  if not history:
    raise errors.UserError('Expected at least one row of history, found none.')
  trained = [row for row in history if row['round'] > 0] or list(history)
  summary: dict[str, Any] = {'rounds': history[-1]['round']}
  for classifier in client_evaluation.classifiers_in(history[-1]):
    column = f'{classifier}_accuracy'
    values = np.array([row[column] for row in trained])
    chosen_by = client_evaluation.validation_column(classifier)
    if chosen_by not in history[-1]:
      chosen_by = column
    best = int(np.argmax([row[chosen_by] for row in trained]))
    summary[classifier] = {
      'last': float(values[-1]),
      'best': float(values[best]),
      'best_round': int(trained[best]['round']),
      'mean_of_last_10': float(values[-_LAST_ROWS:].mean()),
      **_spread(history[-1], classifier),
    }
  for name in ('bytes_up_per_client', 'bytes_down_per_client'):
    if name in history[-1]:
      summary[name] = history[-1][name]
  newcomers = {
    name: value
    for name, value in history[-1].items()
    if name.startswith(newcomers_lib.JOINED)
  }
  if newcomers:
    summary['newcomers'] = newcomers
  seconds = [row[n] for row in trained for n in row if n == 'seconds_training']
  if seconds:
    summary['seconds_per_round_median'] = float(np.median(seconds))
  return summary


def _spread(row: Mapping[str, Any], classifier: str) -> dict[str, Any]:
  """Returns a row's statistics over clients or domains."""
  column = f'{classifier}_accuracy'
  if classifier in client_evaluation.CLASSIFIERS:
    return {
      f'clients_{statistic}': float(row[f'{column}_{statistic}'])
      for statistic in ('std', 'min', 'p10')
    }
  domains = [name for name in row if name.startswith(f'{column}_')]
  if not domains:
    return {}
  return {
    'by_domain': {n.removeprefix(f'{column}_'): float(row[n]) for n in domains}
  }


def to_text(summary: Mapping[str, Any]) -> str:
  """Returns the summary as a table for a terminal."""
  found = [n for n in client_evaluation.GLOBAL_CLASSIFIERS if n in summary]
  lines = _global_lines(summary, found) if found else _personal_lines(summary)
  lines += _newcomer_lines(summary.get('newcomers', {}))
  if 'bytes_up_per_client' in summary:
    lines.append(
      f'per client and round: {summary["bytes_up_per_client"] / 1e3:.1f} kB '
      'up, '
      f'{summary["bytes_down_per_client"] / 1e3:.1f} kB down'
    )
  return '\n'.join(lines)


def _personal_lines(summary: Mapping[str, Any]) -> list[str]:
  classifiers = [n for n in client_evaluation.CLASSIFIERS if n in summary]
  width = max(11, *map(len, classifiers))
  lines = [
    f'accuracy after {summary["rounds"]} rounds (all clients, own test data)',
    f'{"classifier":<{width}} {"last":>6} {"best (round)":>14} '
    f'{"mean last 10":>13} {"worst client":>13} {"10th pct":>9}',
  ]
  for classifier in classifiers:
    values = summary[classifier]
    best = f'{values["best"]:.4f} ({values["best_round"]})'
    lines.append(
      f'{classifier:<{width}} {values["last"]:>6.4f} {best:>14} '
      f'{values["mean_of_last_10"]:>13.4f} {values["clients_min"]:>13.4f} '
      f'{values["clients_p10"]:>9.4f}'
    )
  return lines


def _newcomer_lines(newcomers: Mapping[str, float]) -> list[str]:
  """Returns a line per moment in which clients that never train are tested."""
  lines = []
  for prefix, when in (
    (newcomers_lib.JOINED, 'as they join'),
    (newcomers_lib.TRAINED, 'after a round of their own'),
  ):
    found = [
      f'{name} {newcomers[f"{prefix}{name}_accuracy"]:.4f}'
      for name in client_evaluation.CLASSIFIERS
      if f'{prefix}{name}_accuracy' in newcomers
    ]
    if found:
      lines.append(f'clients that never train, {when}: {", ".join(found)}')
  return lines


def _global_lines(
  summary: Mapping[str, Any], classifiers: Sequence[str]
) -> list[str]:
  domains = list(summary[classifiers[0]].get('by_domain', {}))
  widths = {domain: max(10, len(domain)) for domain in domains}
  tested = 'mean of the last columns' if domains else 'global test set'
  lines = [
    f'accuracy after {summary["rounds"]} rounds (averaged model, {tested})',
    f'{"classifier":<11} {"last":>6} {"best (round)":>14} {"mean last 10":>13}'
    + ''.join(f' {domain:>{widths[domain]}}' for domain in domains),
  ]
  for classifier in classifiers:
    values = summary[classifier]
    name = classifier.removeprefix(client_evaluation.GLOBAL_PREFIX)
    best = f'{values["best"]:.4f} ({values["best_round"]})'
    lines.append(
      f'{name:<11} {values["last"]:>6.4f} {best:>14} '
      f'{values["mean_of_last_10"]:>13.4f}'
      + ''.join(
        f' {values["by_domain"][name]:>{widths[name]}.4f}' for name in domains
      )
    )
  return lines
