"""Chooses the settings of each method on validation examples."""

import collections
from collections.abc import Collection, Mapping, Sequence
import statistics

import pandas

from tff_fedsa import settings as settings_lib
from tff_fedsa.algorithms import registry
from tff_fedsa.evaluation import client_evaluation
from tff_fedsa.reporting import groups as groups_lib
from tff_fedsa.reporting import rendering
from tff_fedsa.reporting import runs as runs_lib


def chosen(
  groups: Sequence[groups_lib.Group],
  settings: Collection[str],
  *,
  ignored: Collection[str] = (),
  measurement: Collection[str] = (),
) -> tuple[list[groups_lib.Group], pandas.DataFrame]:
  """Returns the best of all groups that differ in some settings only.

  A group's score is the accuracy of its main classifier on validation examples:
  of the round in which it is best, mean over finished runs. Test examples have
  no say.

  Args:
    groups: Result of `groups.group`.
    settings: Flags to choose.
    ignored: See `groups.group`.
    measurement: See `groups.group`.

  Returns:
    The chosen groups, whose names lack the chosen settings; and a table of text
    with `method` (the name), a column for each of `settings`, `validation` (the
    score) and `tried` (number of groups from which it was chosen).

  Raises:
    ReportError: If no run has one of the flags, or a finished run has no
      accuracy on validation examples.
  """
  for setting in settings:
    if not any(setting in groups_lib.flags_of(group) for group in groups):
      raise runs_lib.ReportError(f'--choose={setting}: no run has this flag.')
  candidates = collections.defaultdict(list)
  for group in groups:
    if group.finished:
      key = groups_lib.flags_of(group, (*ignored, *settings))
      candidates[frozenset(key.items())].append(group)
  best, rows = [], []
  for own in candidates.values():
    scores = [_score(group) for group in own]
    index = scores.index(max(scores))
    winner = own[index]._replace(name=_common_name(own, settings))
    flags = groups_lib.flags_of(winner)
    best.append(winner)
    rows.append(
      {
        'method': winner.name,
        **{
          setting: '' if _is_foreign(setting, flags) else flags.get(setting, '')
          for setting in settings
        },
        'validation': f'{scores[index]:.4f}',
        'tried': str(len(own)),
      }
    )
  best = groups_lib.arranged(
    best, ignored=(*ignored, *settings), measurement=measurement
  )
  return best, pandas.DataFrame(rows)


def _is_foreign(setting: str, flags: Mapping[str, str]) -> bool:
  """Returns whether a flag belongs to other methods than the run's."""
  owners = [
    method.name
    for method in registry.methods()
    for field in settings_lib.fields_of(method.config)
    if field.flag == setting
  ]
  return bool(owners) and flags.get('algorithm') not in owners


def _common_name(
  own: Sequence[groups_lib.Group], settings: Collection[str]
) -> str:
  """Returns the parts that the names of groups share."""
  shared = set.intersection(*(set(group.name.split(',')) for group in own))
  parts = [
    part
    for part in own[0].name.split(',')
    if part in shared and part.partition('=')[0] not in settings
  ]
  return ','.join(parts) or own[0].algorithm


def to_text(table: pandas.DataFrame) -> str:
  """Returns the table of `chosen` as a section in Markdown."""
  cells = rendering.to_markdown(table, ['method'])
  return (
    f'## Chosen settings\n\n{cells}\n\nFor each method, the settings with '
    'the best accuracy on validation examples: of the best round, mean over '
    'seeds. *tried*: settings that took part.\n'
  )


def _score(group: groups_lib.Group) -> float:
  return statistics.mean(_run_score(run) for run in group.finished)


def _run_score(run: runs_lib.Run) -> float:
  main = client_evaluation.main_classifier(
    client_evaluation.classifiers_in(run.history[-1])
  )
  column = client_evaluation.validation_column(main)
  found = [row[column] for row in run.history if column in row]
  if not found:
    raise runs_lib.ReportError(
      f'{run.path!r} has no accuracy on validation examples to choose by: '
      'train with --validation_fraction, or report without --choose.'
    )
  return max(found)
