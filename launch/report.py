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
  architectures.csv             accuracy by the clients' architectures, if there
                                are several
  runs.csv                      one row per run and classifier
  test_sets.csv, .tex           an averaged model's accuracy per test set, if
                                there are several (domains)
  time_to_accuracy.csv, .tex    with --target_accuracy
  report.html                   all of this in one file, to look at or to send
  *.png                         curves, clients, gains over Local, differences
                                by setting, own and all classes, bytes,
                                simulated time, feature spaces; with --formats
                                also as PDF and SVG

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
  'Configuration to which the others are compared, as the table names it. Or, '
  'in a sweep over settings, a method or a row of the pivot table: it is the '
  'reference within each setting. Default: fedsa, if the runs have it.',
)
_STATISTIC = flags.DEFINE_enum(
  'statistic',
  'last',
  ['last', 'best', 'mean_of_last_10', 'worst_10_percent'],
  'Accuracy of which differences are tested, and that tables of methods by '
  'settings show.',
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
_FORMATS = flags.DEFINE_list(
  'formats',
  ['png'],
  'Formats of the figures: png, pdf, svg. Text in PDF and SVG stays text, '
  'with fonts that journals accept.',
)
flags.register_validator(
  _FORMATS,
  lambda formats: formats and set(formats) <= {'png', 'pdf', 'svg'},
  message='it must list some of png, pdf, svg',
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
  from tff_fedsa.reporting import html_report

  settings = _settings()
  groups = _groups(directories, settings)
  choices = None
  if _CHOOSE.value:
    groups, choices = choice.chosen(
      groups,
      _CHOOSE.value,
      ignored=settings.ignored,
      measurement=settings.same,
    )
  output = _OUTPUT_DIR.value or os.path.join(directories[0], 'report')
  compared = comparison.Comparison(
    groups, _REFERENCE.value, _STATISTIC.value, _TEST.value
  )
  drawn = compared.figures()
  if _PROJECTION.value != 'none':
    for group in groups:
      if group.finished:
        drawn |= _of_checkpoint(group)
  title = os.path.basename(os.path.abspath(directories[0]))
  texts = compared.texts(title, target=_TARGET_ACCURACY.value)
  if choices is not None:
    texts['report.md'] += f'\n{choice.to_text(choices)}'
  inline = {
    f'{name}.png': (figures.encode(figure, 'png'), caption)
    for name, (figure, caption) in drawn.items()
  }
  runs_of = [run for group in groups for run in group.runs]
  if len(runs_of) == 1:
    inline |= _own_figures(runs_of[0].path)
  texts['report.html'] = html_report.render(title, texts['report.md'], inline)
  # Markdown cannot show PDF.
  shown = [form for form in _FORMATS.value if form != 'pdf'][:1]
  texts['report.md'] += ''.join(
    f'\n![{caption}]({name}.{form})\n'
    for name, (_, caption) in drawn.items()
    for form in shown
  )
  os.makedirs(output, exist_ok=True)
  for name, text in texts.items():
    files.write_bytes(os.path.join(output, name), text.encode())
  for name, (figure, _) in drawn.items():
    for form in dict.fromkeys(_FORMATS.value):
      figures.save(figure, os.path.join(output, f'{name}.{form}'))
  print(texts['report.md'])
  print(f'written to {output}')


def _groups(directories: Sequence[str], settings: _Settings) -> list[Any]:
  """Returns the groups of runs, if they can be compared."""
  from tff_fedsa.reporting import documents
  from tff_fedsa.reporting import groups as groups_lib
  from tff_fedsa.reporting import runs

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


def _own_figures(path: str) -> dict[str, tuple[bytes, str]]:
  """Returns the figures that a run has drawn itself, with captions."""
  folder = directory.open_existing(path).figures
  found = {}
  if os.path.isdir(folder):
    for name in sorted(os.listdir(folder)):
      stem, extension = os.path.splitext(name)
      if extension == '.png':
        with open(os.path.join(folder, name), 'rb') as file:
          found[f'run_{name}'] = file.read(), stem.replace('_', ' ')
  return found


def _of_checkpoint(group: Any) -> dict[str, Any]:
  """Returns figures of the first finished run's models, with captions."""
  from tff_fedsa import experiment
  from tff_fedsa.reporting import client_figures
  from tff_fedsa.reporting import comparison_figures

  run = group.finished[0]
  names = comparison_figures.classifiers_of(group)
  if not _FEATURES.value and 'prototype' not in names:
    return {}
  if not os.path.isdir(directory.open_existing(run.path).checkpoints):
    print(f'no checkpoint in {run.path}: no feature space', file=sys.stderr)
    return {}
  loaded = experiment.load_run(run.path)
  task = loaded.experiment.task
  clients = range(min(_FEATURES.value, task.num_clients))
  features = [_features(loaded, client_id) for client_id in clients]
  architectures = [
    loaded.experiment.architecture_of(i) for i in range(task.num_clients)
  ]
  title = f'{group.name}, seed {run.seed}, round {loaded.round_num}'
  name = re.sub(r'[^\w.=+-]+', '_', group.name)
  drawn: dict[str, Any] = {}
  states = [loaded.store.get(i) for i in range(task.num_clients)]
  theirs = [(state.prototypes, state.counts) for state in states]
  space = _space(loaded, theirs, features, title)
  if space is not None:
    drawn[f'space_{name}'] = space, f'Feature space of {group.name}'
  if len(set(architectures)) > 1 and 'prototype' in names:
    drawn[f'prototype_distances_{name}'] = (
      client_figures.draw_prototype_distances(theirs, architectures, title),
      f'Do architectures agree? Distances of prototypes, {group.name}',
    )
  if sum(len(labels) for _, labels in features) > 1:
    drawn[f'features_{name}'] = (
      client_figures.features_by_architecture(
        features, architectures[: len(features)], task.class_names, title
      ),
      f'Features by architecture, {group.name}',
    )
  return drawn


def _space(loaded: Any, theirs: Any, features: Any, title: str) -> Any:
  """Draws the feature space of a run, if there are two directions."""
  import numpy as np

  from tff_fedsa.reporting import feature_space

  task, model = loaded.experiment.task, loaded.server_state.model
  shape = task.num_classes, loaded.experiment.models[0].feature_dim
  prototypes = getattr(model, 'prototypes', np.zeros(shape, np.float32))
  present = getattr(model, 'present', np.zeros(shape[0], bool))
  try:
    return feature_space.draw(
      getattr(model, 'anchors', None),
      np.asarray(prototypes),
      np.asarray(present),
      task.class_names,
      theirs,
      features=features,
      projection=_PROJECTION.value,
      title=title,
    )
  except ValueError as error:
    print(f'{loaded.directory}: no feature space: {error}', file=sys.stderr)
    return None


def _features(loaded: Any, client_id: int) -> tuple[Any, Any]:
  """Returns features and labels of test examples of a client."""
  test = loaded.experiment.task.clients[client_id].test
  inputs = test['x'][:_EXAMPLES_PER_CLIENT]
  features = loaded.client(client_id).features(inputs)
  return features, test['y'][:_EXAMPLES_PER_CLIENT]


if __name__ == '__main__':
  runner.run(main)
