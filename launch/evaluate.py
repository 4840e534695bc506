"""Evaluates a checkpoint of a run again, on every client's test data.

  python -m launch.evaluate --run_dir=runs/fedsa.digits

Prints a table over clients and the summary; nothing in the run's directory
changes.
"""

from collections.abc import Sequence

from absl import app
from absl import flags

from launch import errors
from launch import loading
from launch import runner

_RUN_DIR = flags.DEFINE_string(
  'run_dir', None, 'Directory of the run, as launch.train printed it.'
)
_ROUND = flags.DEFINE_integer(
  'round', None, 'Round of the checkpoint. Default: the latest.', lower_bound=0
)
flags.mark_flag_as_required('run_dir')


def main(argv: Sequence[str]) -> None:
  """Evaluates and prints."""
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected arguments: {argv[1:]}')
  with errors.reported():
    evaluate()


def evaluate() -> None:
  """Evaluates the checkpoint that the flags name, and prints the result."""
  # Slow to import: not for --help.
  from tff_fedsa import evaluation
  from tff_fedsa import simulation

  loaded = loading.load(_RUN_DIR.value, _ROUND.value)
  task, models = loaded.experiment.task, loaded.experiment.models
  per_client = simulation.evaluate_clients(
    evaluation.build_evaluation(
      models, task.input_spec, loaded.experiment.process.server_model_type
    ),
    task,
    loaded.store,
    loaded.server_state.model,
  )
  names = [name for name in evaluation.CLASSIFIERS if name in per_client[0]]
  print(f'{loaded.run.path}, round {loaded.round_num}')
  print(
    f'{"client":>6} {"architecture":<16} {"examples":>8} '
    + ' '.join(f'{name:>11}' for name in names)
  )
  for client_id, counts in enumerate(per_client):
    accuracies = (counts[name] / counts['num_examples'] for name in names)
    print(
      f'{client_id:>6} {loaded.experiment.architecture_of(client_id):<16} '
      f'{counts["num_examples"]:>8} '
      + ' '.join(f'{accuracy:>11.4f}' for accuracy in accuracies)
    )
  summary = evaluation.summarize(per_client)
  print(
    f'{"all examples":<32} '
    + ' '.join(f'{summary[f"{name}_accuracy"]:>11.4f}' for name in names)
  )


if __name__ == '__main__':
  runner.run(main)
