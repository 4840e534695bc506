"""Trains FedSA, or another method, on one partitioned data set.

  python -m launch.train --flagfile=flags/fedsa.digits.flags
  python -m launch.train --algorithm=fedproto --total_rounds=20

A run's directory, {root_output_dir}/{experiment_name}, holds:

  flags.txt            every flag, to be used as a --flagfile
  hparams.csv          the same as a table
  partition.npz        indices of every client's train and test examples
  initial_anchors.npy  where the anchors started, if the method has any
  metrics.csv          one row per evaluated round (docs/metrics.md)
  per_client.csv       the last evaluation, client by client; with
                       --protocol=global per_test_set.csv, domain by domain
  checkpoints/         server state, all client states, history
  tensorboard/         the same numbers: tensorboard --logdir=...
  figures/             curves, partition, clients, anchors or prototypes
  status.json          running, finished, stopped early, failed or interrupted
  run.lock             who trains it now
  summary.json         last, best and mean of the last 10, per classifier

With --directory_layout=by_kind checkpoints are in
{root_output_dir}/checkpoints/{experiment_name}, TensorBoard's events in
.../logdir/..., all else in .../results/..., as in google-research/federated.

Starting the same command again resumes after the latest checkpoint, with the
result of an uninterrupted run; with other flags it is refused.
"""

from collections.abc import Mapping, Sequence
import csv
import io
import os
import typing

from absl import app
from absl import logging

from launch import errors
from launch import experiment
from launch import runner
from tff_fedsa.runs import directory
from tff_fedsa.runs import progress

if typing.TYPE_CHECKING:
  import numpy as np

  from tff_fedsa import simulation
  from tff_fedsa.client import client_store
  from tff_fedsa.data import tasks

_EXPERIMENT = experiment.ExperimentFlags()


def main(argv: Sequence[str]) -> None:
  """Runs the experiment that the flags describe."""
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected arguments: {argv[1:]}')
  with errors.reported('interrupted; the same command resumes the run'):
    train()


def train() -> None:
  """Trains, and writes everything to the run's directory."""
  run = directory.RunDirectory(
    _EXPERIMENT.run_dir_flags.build(_EXPERIMENT.algorithm_flags.name),
    _EXPERIMENT.values()['directory_layout'],
  )
  # Now, since what comes before it is owned takes a while.
  directory.refuse_owned(run)
  _EXPERIMENT.runtime_flags.build().start()
  # Mistakes are found before there is a directory.
  initial_model = _EXPERIMENT.process.initialize().model
  with directory.owned(run) as owner:
    _train(run, owner, initial_model)


def _train(
  run: directory.RunDirectory, owner: directory.Owner, initial_model: typing.Any
) -> None:
  # Slow to import: not for --help.
  from tff_fedsa import files
  from tff_fedsa import simulation
  from tff_fedsa.data import tasks
  from tff_fedsa.execution import devices
  from tff_fedsa.reporting import summary as summary_lib
  from tff_fedsa.runs import checkpoints
  from tff_fedsa.runs import metrics
  from tff_fedsa.runs import recorders as recorders_lib
  from tff_fedsa.server import server_model

  config = _EXPERIMENT.simulation_flags.build()
  task, models = _EXPERIMENT.task, _EXPERIMENT.models
  directory.keep_flags(run, _EXPERIMENT.values(), **experiment.comparison())
  _keep_inputs(run, task, getattr(initial_model, 'anchors', None))
  batch_size = _EXPERIMENT.algorithm_flags.batch_size
  runtime = _EXPERIMENT.values()['runtime']
  found = f'; {devices.detect()}' if runtime == 'in_process' else ''
  print(f'runtime: {runtime}{found}')
  print(tasks.report(task, batch_size=batch_size))
  print(
    'models: '
    + ', '.join(f'{model.name} ({model.num_trainable:,})' for model in models)
  )
  print(f'run directory: {run.path}', flush=True)
  store = _open_store(run, task.num_clients)
  recorders: list[recorders_lib.Recorder] = [
    recorders_lib.CsvRecorder(
      run.metrics_csv,
      metrics.GLOBAL_COLUMNS
      if config.protocol == 'global'
      else metrics.COLUMNS,
    ),
    recorders_lib.TensorBoardRecorder(run.tensorboard),
  ]
  with progress.Bar(
    config.total_rounds, enabled=_EXPERIMENT.run_dir_flags.progress.value
  ) as bar:

    def on_round(round_num: int, row: 'typing.Optional[metrics.Row]') -> None:
      bar.update(round_num, row)
      errors.raise_if_interrupted()

    owner.start(config.total_rounds, config.patience)
    result = simulation.run(
      _EXPERIMENT.process,
      _EXPERIMENT.evaluate,
      task,
      store,
      config,
      server_metrics_fn=server_model.build_server_metrics_fn(initial_model),
      checkpoint_manager=checkpoints.CheckpointManager(run.checkpoints),
      recorders=recorders,
      on_round=on_round,
    )
  for recorder in recorders:
    recorder.close()
  if result.stopped_early:
    print(f'stopped early: no new best for {config.patience} rounds')
  for whose, column, rate in (
    ("clients'", 'clients_nonfinite', '--client_learning_rate'),
    ("the server's", 'server_nonfinite', 'learning rate for it'),
  ):
    diverged = sum(row.get(column) or 0 for row in result.history)
    if diverged:
      print(
        f'warning: {whose} training diverged {diverged} times and was left out '
        f'({column} in metrics.csv); try a smaller {rate}'
      )
  architectures = [
    _EXPERIMENT.architecture_of(client_id)
    for client_id in range(task.num_clients)
  ]
  if config.protocol == 'global':
    _write_counts(
      run.per_test_set_csv,
      [{'test_set': name, **c} for name, c in result.per_test_set.items()],
    )
  else:
    _write_counts(
      run.per_client_csv,
      [
        {'client': i, 'architecture': architectures[i], **counts}
        for i, counts in enumerate(result.per_client)
      ],
    )
  _draw(run, task, store, result, architectures)
  summary = summary_lib.summarize(result.history)
  files.write_json(run.summary_json, summary)
  owner.finish(summary['rounds'], stopped_early=result.stopped_early)
  print(summary_lib.to_text(summary))
  print(f'figures: {os.path.join(run.figures, "*.png")}')


def _open_store(
  run: directory.RunDirectory, num_clients: int
) -> 'client_store.ClientStateStore':
  """Returns where client states live, and says how large they are."""
  from tff_fedsa.client import client_store

  initial_state_fn = _EXPERIMENT.initial_state_fn
  num_bytes = client_store.population_bytes(
    initial_state_fn, num_clients, len(_EXPERIMENT.models)
  )
  on_disk = _EXPERIMENT.store_flags.build().keeps_on_disk(num_bytes)
  where = run.client_states if on_disk else 'in memory'
  print(f'client states: {num_bytes / 1e9:.3f} GB, {where}', flush=True)
  if on_disk:
    return client_store.DiskStore(initial_state_fn, run.client_states)
  return client_store.MemoryStore(initial_state_fn)


def _keep_inputs(
  run: directory.RunDirectory,
  task: 'tasks.FederatedTask',
  anchors: 'typing.Optional[np.ndarray]',
) -> None:
  """Writes partition and anchors, or checks them against those of the run."""
  import numpy as np

  from tff_fedsa.data import partition

  assert task.partition is not None, 'A task from flags has a partition.'
  if os.path.exists(run.partition_npz):
    kept = partition.load(run.partition_npz)
    pairs = zip(
      kept.train + kept.test,
      task.partition.train + task.partition.test,
      strict=False,
    )
    if kept.num_clients != task.num_clients or not all(
      np.array_equal(before, now) for before, now in pairs
    ):
      raise directory.RunDirectoryError(
        f'The data give another partition than {run.partition_npz!r}: the run '
        'was started with other data. Use another --experiment_name.'
      )
  else:
    task.partition.save(run.partition_npz)
  if anchors is not None:
    np.save(run.anchors_npy, anchors, allow_pickle=False)


def _write_counts(path: str, rows: Sequence[Mapping[str, typing.Any]]) -> None:
  from tff_fedsa import files

  text = io.StringIO(newline='')
  writer = csv.DictWriter(text, list(rows[0]), lineterminator='\n')
  writer.writeheader()
  writer.writerows(rows)
  files.write_bytes(path, text.getvalue().encode())


def _draw(
  run: directory.RunDirectory,
  task: 'tasks.FederatedTask',
  store: 'client_store.ClientStateStore',
  result: 'simulation.SimulationResult',
  architectures: Sequence[str],
) -> None:
  from tff_fedsa.algorithms import registry
  from tff_fedsa.reporting import feature_space
  from tff_fedsa.reporting import figures

  title = registry.get(_EXPERIMENT.algorithm_flags.name).title
  drawn = {
    'curves': figures.curves(result.history, f'{title} on {task.name}'),
    'partition': figures.partition(
      task.class_counts(), task.class_names, architectures
    ),
  }
  if result.per_client:
    drawn['per_client_accuracy'] = figures.per_client_accuracy(
      result.per_client, architectures
    )
  model = result.server_state.model
  # Two points at least, or there is nothing to see.
  if hasattr(model, 'prototypes') and (
    feature_space.finite_classes(model.prototypes, model.present).sum() > 1
  ):
    states = (store.get(client_id) for client_id in range(task.num_clients))
    anchors = getattr(model, 'anchors', None)
    name = 'prototypes' if anchors is None else 'anchors_and_prototypes'
    drawn[name] = feature_space.draw(
      anchors,
      model.prototypes,
      model.present,
      task.class_names,
      [(state.prototypes, state.counts) for state in states],
    )
  for name, figure in drawn.items():
    figures.save(figure, os.path.join(run.figures, f'{name}.png'))
  logging.debug('Drew %s.', list(drawn))


if __name__ == '__main__':
  runner.run(main)
