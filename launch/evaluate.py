"""Evaluates a checkpoint of a run again, on the same test data.

  tff-fedsa evaluate --run_dir=runs/fedsa.digits

Prints the summary and a table. The table has one row per client, or, with the
protocol `global`, one row per test set and architecture. The run's directory
does not change.
"""

from collections.abc import Iterable, Mapping, Sequence
import math
from typing import Any

from absl import flags

from launch import errors
from launch import runner
from tff_fedsa import experiment

_RUN_DIR = flags.DEFINE_string(
  'run_dir', None, 'Directory of the run, as `tff-fedsa train` printed it.'
)
_ROUND = flags.DEFINE_integer(
  'round', None, 'Round of the checkpoint. Default: the latest.', lower_bound=0
)
flags.mark_flag_as_required('run_dir')


def main(argv: Sequence[str]) -> None:
  """Evaluates and prints."""
  errors.refuse_arguments(argv)
  with errors.reported():
    evaluate()


def evaluate() -> None:
  """Evaluates the checkpoint that the flags name, and prints the result."""
  # Slow to import: not for --help.
  from tff_fedsa import simulation
  from tff_fedsa.evaluation import client_evaluation
  from tff_fedsa.evaluation import global_evaluation

  loaded = experiment.load_run(_RUN_DIR.value, round_num=_ROUND.value)
  run, task = loaded.experiment, loaded.experiment.task
  model = loaded.server_state.model
  metrics = run.simulation.metrics
  print(f'{loaded.directory}, round {loaded.round_num}')
  if run.simulation.protocol == 'global':
    per_test_set = global_evaluation.evaluate_each(
      run.evaluate, model, task.global_test()
    )
    summary = global_evaluation.summarize(
      global_evaluation.by_name(per_test_set), metrics
    )
    _print_table(
      ('test set', 'averaged model'),
      per_test_set.items(),
      'mean over test sets',
      {
        n.removeprefix(client_evaluation.GLOBAL_PREFIX): v
        for n, v in summary.items()
      },
    )
  else:
    per_client = simulation.evaluate_clients(
      run.evaluate, task, loaded.store, model
    )
    _print_table(
      ('client', 'architecture'),
      (((i, run.architecture_of(i)), c) for i, c in enumerate(per_client)),
      'all examples',
      client_evaluation.summarize(per_client, metrics),
    )


def _print_table(
  headings: tuple[str, str],
  rows: Iterable[tuple[tuple[Any, str], Mapping[str, int]]],
  last: str,
  summary: Mapping[str, float],
) -> None:
  """Prints accuracies by client, or test set, and of all."""
  from tff_fedsa.evaluation import client_evaluation

  names = [
    n for n in client_evaluation.CLASSIFIERS if f'{n}_accuracy' in summary
  ]
  width = max(6, len(headings[0]))
  widths = {name: max(11, len(name)) for name in names}
  print(
    f'{headings[0]:>{width}} {headings[1]:<16} {"examples":>8} '
    + ' '.join(f'{name:>{widths[name]}}' for name in names)
  )
  for (what, model), counts in rows:
    print(
      f'{what:>{width}} {model:<16} {counts["num_examples"]:>8} '
      + ' '.join(
        f'{counts[name] / counts["num_examples"]:>{widths[name]}.4f}'
        for name in names
      )
    )
  print(
    f'{last:<{width + 26}} '
    + ' '.join(
      f'{summary[f"{name}_accuracy"]:>{widths[name]}.4f}' for name in names
    )
  )
  first = f'{names[0]}_'
  for column in summary:
    # Accuracies stand above, by client.
    metric = column.removeprefix(first)
    if metric != column and not metric.startswith('accuracy'):
      print(
        f'{metric.replace("_", " "):<{width + 26}} '
        + ' '.join(
          f'{summary.get(f"{name}_{metric}", math.nan):>{widths[name]}.4f}'
          for name in names
        )
      )


if __name__ == '__main__':
  runner.run(main)
