"""Compares runs: tables, tests of differences and figures.

  tff-fedsa report runs/digits_dir01
  tff-fedsa report runs/fedsa.digits runs/fedproto.digits

Searches the given directories for runs of `tff-fedsa sweep` and `tff-fedsa
train`. Runs that differ only in their seeds form one configuration. The report
is printed, and written to --output_dir:

  report.md                     all tables
  comparison.csv, .tex          accuracies, bytes and seconds per configuration
  significance.csv, .tex        tests of the differences to --reference
  metrics.csv                   of runs with --metrics: macro-F1, AUROC, …
  fairness.csv, .tex            spread over clients, and gains over Local
  runs.csv                      one row per run and classifier
  test_sets.csv, .tex           an averaged model's accuracy per test set, if
                                there are several (domains)
  time_to_accuracy.csv, .tex    with --target_accuracy
  *.png                         curves, clients, communication, feature spaces

The report refuses to mix runs with different data, partitions, test sets,
protocols or numbers of rounds, and configurations that lack seeds of others.
It lists failed and unfinished runs and leaves them out of all means.
"""

from collections.abc import Mapping, Sequence
import os
import re
import sys
from typing import Any, NamedTuple

from absl import flags

from launch import errors
from launch import runner
from tff_fedsa.runs import directory

_OUTPUT_DIR = flags.DEFINE_string(
  'output_dir',
  None,
  'Directory for tables and figures. Default: report/ in the first directory.',
)
_ALLOW_MISSING = flags.DEFINE_boolean(
  'allow_missing',
  False,
  'Accept configurations that lack seeds of others. Each row shows its number '
  'of seeds.',
)
_REFERENCE = flags.DEFINE_string(
  'reference',
  None,
  'Configuration to which the others are compared, as the table names it. Or a '
  'method: in a sweep over settings, it is the reference within each setting. '
  'Default: fedsa, if the runs have it.',
)
_STATISTIC = flags.DEFINE_enum(
  'statistic',
  'last',
  ['last', 'best', 'mean_of_last_10', 'worst_10_percent'],
  'Accuracy of which differences are tested.',
)
_TEST = flags.DEFINE_enum(
  'test',
  't',
  ['t', 'wilcoxon'],
  'Test of differences, paired over seeds: t-test, or signed-rank test (which '
  'needs at least 6 seeds for p < 0.05).',
)
_PROJECTION = flags.DEFINE_enum(
  'projection',
  'pca',
  ['pca', 'tsne', 'none'],
  'Projection of feature spaces to two dimensions; none draws no feature '
  'space. Each figure shows the last checkpoint of a method with prototypes, '
  'for its first seed.',
)
_FEATURES = flags.DEFINE_integer(
  'features',
  0,
  'Number of clients whose test examples are drawn in feature spaces, of '
  'every method. Their models are run.',
  lower_bound=0,
)

_CHOOSE = flags.DEFINE_list(
  'choose',
  [],
  'Flags, separated by commas, whose values validation examples choose: of the '
  'configurations that differ in these flags only, the best one is compared. '
  'The runs need --validation_fraction.',
)
_TARGET_ACCURACY = flags.DEFINE_float(
  'target_accuracy',
  None,
  'Report the rounds and simulated seconds (see docs/field.md) after which '
  'runs reach this accuracy for the first time, in (0, 1].',
)
flags.register_validator(
  _TARGET_ACCURACY,
  lambda target: target is None or 0 < target <= 1,
  message='it must be in (0, 1]',
)

_EXAMPLES_PER_CLIENT = 200


class _Settings(NamedTuple):
  """The roles of flags in a comparison.

  Attributes:
    defaults: Default values by flag, as `hparams.csv` has them.
    same: Flags that must be the same in all compared runs.
    ignored: Flags without effect on results.
  """

  defaults: Mapping[str, str]
  same: Sequence[str]
  ignored: Sequence[str]


def main(argv: Sequence[str]) -> None:
  """Writes and prints the report."""
  if len(argv) < 2:
    sys.exit('error: expected directories of runs: `tff-fedsa report DIR…`')
  with errors.reported():
    report(argv[1:])


def report(directories: Sequence[str]) -> None:
  """Reports on the runs in these directories."""
  # Slow to import: not for --help.
  from tff_fedsa import files
  from tff_fedsa.reporting import choice
  from tff_fedsa.reporting import comparison
  from tff_fedsa.reporting import figures

  groups = _groups(directories)
  choices = None
  if _CHOOSE.value:
    settings = _settings()
    groups, choices = choice.chosen(
      groups,
      _CHOOSE.value,
      ignored=settings.ignored,
      measurement=settings.same,
    )
  output = _OUTPUT_DIR.value or os.path.join(directories[0], 'report')
  drawn = comparison.figures(groups)
  if _PROJECTION.value != 'none':
    for group in groups:
      figure = _space(group) if group.finished else None
      if figure is not None:
        name = re.sub(r'[^\w.=+-]+', '_', group.name)
        caption = f'Feature space of {group.name}'
        drawn[f'space_{name}.png'] = figure, caption
  texts = comparison.texts(
    groups,
    os.path.basename(os.path.abspath(directories[0])),
    reference=_REFERENCE.value,
    statistic=_STATISTIC.value,
    test=_TEST.value,
    target=_TARGET_ACCURACY.value,
    pictures={name: caption for name, (_, caption) in drawn.items()},
  )
  if choices is not None:
    texts['report.md'] += f'\n{choice.to_text(choices)}'
  os.makedirs(output, exist_ok=True)
  for name, text in texts.items():
    files.write_bytes(os.path.join(output, name), text.encode())
  for name, (figure, _) in drawn.items():
    figures.save(figure, os.path.join(output, name))
  print(texts['report.md'])
  print(f'written to {output}')


def _groups(directories: Sequence[str]) -> list[Any]:
  """Returns the groups of runs, if they can be compared."""
  from tff_fedsa.reporting import documents
  from tff_fedsa.reporting import groups as groups_lib
  from tff_fedsa.reporting import runs

  settings = _settings()
  found = runs.find(directories, settings.defaults)
  groups = groups_lib.group(
    found, ignored=settings.ignored, measurement=settings.same
  )
  groups_lib.check_comparable(groups, settings.same)
  troubles = documents.unfinished(groups)
  if not any(group.finished for group in groups):
    raise runs.ReportError(
      'None of the runs is finished:\n  ' + '\n  '.join(troubles)
    )
  missing = groups_lib.missing_seeds(groups)
  if missing and not _ALLOW_MISSING.value:
    raise runs.ReportError(
      'Configurations lack finished runs of seeds that others have:\n  '
      + '\n  '.join(f'{n}: seed {", ".join(s)}' for n, s in missing.items())
      + ''.join(f'\n{line}' for line in troubles)
      + '\nRun them (the same `tff-fedsa sweep` again), or report with '
      '--allow_missing, which shows n in each row.'
    )
  return groups


def _settings() -> _Settings:
  """Reads `_Settings` from the flags of an experiment."""
  from tff_fedsa import experiment
  from tff_fedsa import settings
  from tff_fedsa.data import task_spec

  task = settings.to_flags(task_spec.TaskSpec())
  free = {*experiment.Experiment.free_flags()} - {'total_rounds'}
  # Partitions are compared by content.
  same = {*task, 'protocol', 'total_rounds', 'clients_per_round'}
  same |= {'rounds_per_evaluation'}
  same -= {*free, 'partition_seed', 'partition_file'}
  ignored = {*free, 'runtime', 'intra_op_threads', 'partition_file', 'metrics'}
  defaults = experiment.Experiment.flag_defaults()
  return _Settings(
    {
      name: directory.text(value)
      for name, value in defaults.items()
      if value is not None
    },
    sorted(same),
    sorted(ignored),
  )


def _space(group: Any) -> Any:
  """Draws the feature space of the first finished run, if there is one."""
  import numpy as np

  from tff_fedsa import experiment
  from tff_fedsa.reporting import comparison_figures
  from tff_fedsa.reporting import feature_space

  run = group.finished[0]
  names = comparison_figures.classifiers_of(group)
  if not _FEATURES.value and 'prototype' not in names:
    return None
  if not os.path.isdir(directory.open_existing(run.path).checkpoints):
    print(f'no checkpoint in {run.path}: no feature space', file=sys.stderr)
    return None
  loaded = experiment.load_run(run.path)
  task, model = loaded.experiment.task, loaded.server_state.model
  shape = task.num_classes, loaded.experiment.models[0].feature_dim
  features = [
    _features(loaded, client_id)
    for client_id in range(min(_FEATURES.value, task.num_clients))
  ]
  states = [loaded.store.get(i) for i in range(task.num_clients)]
  prototypes = getattr(model, 'prototypes', np.zeros(shape, np.float32))
  present = getattr(model, 'present', np.zeros(shape[0], bool))
  try:
    return feature_space.draw(
      getattr(model, 'anchors', None),
      np.asarray(prototypes),
      np.asarray(present),
      task.class_names,
      [(state.prototypes, state.counts) for state in states],
      features=features,
      projection=_PROJECTION.value,
      title=f'{group.name}, seed {run.seed}, round {loaded.round_num}',
    )
  except ValueError as error:
    print(f'{run.path}: no feature space: {error}', file=sys.stderr)
    return None


def _features(loaded: Any, client_id: int) -> tuple[Any, Any]:
  """Returns features and labels of test examples of a client."""
  import numpy as np

  state = loaded.store.get(client_id)
  model = loaded.experiment.models[int(state.architecture)]
  test = loaded.experiment.task.clients[client_id].test
  weights = loaded.tested_weights(client_id)
  forward = model.build_forward(loaded.experiment.task.input_spec)
  features, _ = forward(*model.split(weights), test['x'][:_EXAMPLES_PER_CLIENT])
  return np.asarray(features), test['y'][:_EXAMPLES_PER_CLIENT]


if __name__ == '__main__':
  runner.run(main)
