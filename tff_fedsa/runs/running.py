"""Runs an experiment, in memory or in a directory, and loads it again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import contextlib
import csv
import dataclasses
import hashlib
import io
import os
from typing import Any, Optional, TYPE_CHECKING

import numpy as np

from tff_fedsa import files
from tff_fedsa import simulation
from tff_fedsa.client import client_store
from tff_fedsa.data import newcomers
from tff_fedsa.data import own_data
from tff_fedsa.data import partition as partition_lib
from tff_fedsa.data import tasks
from tff_fedsa.execution import devices
from tff_fedsa.field import outcomes
from tff_fedsa.reporting import figures as figures_lib
from tff_fedsa.runs import checkpoints
from tff_fedsa.runs import directory as directory_lib
from tff_fedsa.runs import errors
from tff_fedsa.runs import metrics
from tff_fedsa.runs import progress as progress_lib
from tff_fedsa.runs import recorders as recorders_lib
from tff_fedsa.runs import results
from tff_fedsa.runs import trackers
from tff_fedsa.runs import warm_start
from tff_fedsa.server import server_model

if TYPE_CHECKING:
  from tff_fedsa import experiment as experiment_lib
  from tff_fedsa.privacy import accounting

SelectionFn = Callable[..., Sequence[int]]
OnRound = Callable[[int, Optional[Mapping[str, Any]]], None]


def run_in_memory(
  experiment: experiment_lib.Experiment,
  *,
  progress: bool = True,
  selection_fn: Optional[SelectionFn] = None,
  on_round: OnRound = lambda *_: None,
  recorders: Sequence[recorders_lib.Recorder] = (),
) -> results.Result:
  """Runs an experiment in memory.

  Args:
    experiment: Experiment to run.
    progress: Whether to show a progress bar.
    selection_fn: See `simulation.run`.
    on_round: See `simulation.run`.
    recorders: Receive every row.

  Raises:
    UserError: If the settings ask for client states on disk.
  """
  if experiment.store.client_states == 'disk':
    raise errors.UserError(
      'client_states=disk needs the directory of a run: run(directory).'
    )
  store = client_store.MemoryStore(experiment.initial_state_fn)
  return _simulate(
    experiment,
    store,
    progress=progress,
    selection_fn=selection_fn,
    on_round=on_round,
    recorders=[*recorders, *_tracker(experiment)],
  )


def run_in_directory(
  experiment: experiment_lib.Experiment,
  *,
  progress: bool = True,
  selection_fn: Optional[SelectionFn] = None,
  on_round: OnRound = lambda *_: None,
  recorders: Sequence[recorders_lib.Recorder] = (),
  say: Callable[[str], None] = lambda _: None,
  interrupted: Callable[[], bool] = lambda: False,
) -> results.Result:
  """Runs an experiment in its directory, or resumes it.

  The directory holds what `tff-fedsa train` describes.

  Args:
    experiment: Experiment to run. It names the directory.
    progress: Whether to show a progress bar.
    selection_fn: See `simulation.run`.
    on_round: See `simulation.run`.
    recorders: Receive every row, besides metrics.csv and TensorBoard.
    say: Called with each line of text about the run.
    interrupted: Tells if a signal has asked the program to end. The run then
      ends after the round, as an interrupted one.

  Raises:
    KeyboardInterrupt: If `interrupted()` is true after a round.
    directory_lib.RunDirectoryError: If the directory cannot be written, another
      program owns it, or it holds a run with other settings or data.
  """
  # Find mistakes before creating the directory.
  warm_start.build_warm_start(experiment, experiment.run_directory)
  initial_model = experiment.process.initialize().model
  trained, _ = newcomers.split(
    experiment.task, experiment.simulation.held_out_clients
  )
  outcomes.build_field(
    trained,
    experiment.field,
    clients_per_round=experiment.simulation.clients_per_round,
    num_epochs=experiment.num_epochs,
    selection_fn=selection_fn,
  )
  run = experiment.run_directory

  def after_round(round_num: int, row: Optional[Mapping[str, Any]]) -> None:
    on_round(round_num, row)
    if interrupted():
      raise KeyboardInterrupt

  with directory_lib.owned(run, interrupted=interrupted) as owner:
    files.remove_leftovers(run.path)
    directory_lib.keep_flags(
      run,
      experiment.flags(),
      defaults=experiment.flag_defaults(),
      free=experiment.free_flags(),
    )
    _keep_inputs(run, experiment.task, getattr(initial_model, 'anchors', None))
    _keep_files(
      run, {**experiment.field.files, **experiment.local.files}, selection_fn
    )
    keep_account(run, experiment.account)
    _say_what(experiment, run, say)
    store = _open_store(experiment, run, say)
    config = experiment.simulation
    owner.start(config.total_rounds, config.patience)
    columns = metrics.COLUMNS
    if config.protocol == 'global':
      columns = metrics.GLOBAL_COLUMNS
    result = _simulate(
      experiment,
      store,
      progress=progress,
      selection_fn=selection_fn,
      on_round=after_round,
      directory=run.path,
      say=say,
      checkpoint_manager=checkpoints.CheckpointManager(run.checkpoints),
      recorders=[
        recorders_lib.CsvRecorder(run.metrics_csv, columns),
        recorders_lib.TensorBoardRecorder(run.tensorboard),
        *recorders,
        *_tracker(experiment, run.path),
      ],
    )
    _write(run, result)
    owner.finish(result.summary['rounds'], stopped_early=result.stopped_early)
  return result


def load(
  experiment: experiment_lib.Experiment, round_num: Optional[int] = None
) -> results.Result:
  """Loads a checkpoint of a run.

  Args:
    experiment: The experiment of the run. It names the directory.
    round_num: Round of the checkpoint. Default: the latest.

  Raises:
    directory_lib.RunDirectoryError: If the run has no checkpoint.
    checkpoints.CheckpointError: If the checkpoint is damaged.
    ValueError: If the checkpoint belongs to other models.
  """
  run = experiment.run_directory
  store = client_store.MemoryStore(experiment.initial_state_fn)
  # The manager creates a missing directory, but readers create nothing.
  checkpoint = None
  if os.path.isdir(run.checkpoints):
    checkpoint = checkpoints.CheckpointManager(run.checkpoints).restore(
      experiment.process.initialize(), store, round_num
    )
  if checkpoint is None:
    raise directory_lib.RunDirectoryError(
      f'The run at {run.path!r} has no checkpoint yet.'
    )
  status = directory_lib.read_status(run)
  per_client, per_test_set = _read_counts(run, checkpoint.round_num, status)
  return results.Result(
    experiment,
    status=status.state,
    round_num=checkpoint.round_num,
    server_state=checkpoint.server_state,
    store=store,
    rows=checkpoint.history,
    per_client=per_client,
    per_test_set=per_test_set,
    statistics=_read_statistics(run) if per_client or per_test_set else {},
    directory=run.path,
  )


def keep_account(
  run: directory_lib.RunDirectory, account: Optional[accounting.Account]
) -> None:
  """Records the noise and the sampling of a run, or checks them.

  Rounds of different noise would need another account. The noise may follow
  from --total_rounds, which may change.

  Args:
    run: Directory of the run.
    account: Account of the run; None without differential privacy.

  Raises:
    directory_lib.RunDirectoryError: If the run was started with another one.
  """
  if account is None:
    return
  if _differs(run.privacy_json, dataclasses.asdict(account)):
    raise directory_lib.RunDirectoryError(
      f'The rounds of the run at {run.path!r} have another noise than the next '
      'ones would have: --dp_epsilon was planned for another number of rounds. '
      'Give the former --total_rounds, or use another directory.'
    )


def _simulate(
  experiment: experiment_lib.Experiment,
  store: client_store.ClientStateStore,
  *,
  progress: bool,
  on_round: OnRound,
  recorders: Sequence[recorders_lib.Recorder] = (),
  directory: Optional[str] = None,
  say: Callable[[str], None] = lambda _: None,
  **options: Any,
) -> results.Result:
  process, config = experiment.process, experiment.simulation
  describe_model = server_model.build_server_metrics_fn(
    process.initialize().model
  )
  account = experiment.account

  def server_metrics_fn(server_state: Any) -> Mapping[str, Any]:
    columns = dict(describe_model(server_state))
    if account is not None:
      columns |= metrics.privacy_columns(server_state, account)
    return columns

  with contextlib.ExitStack() as stack:
    bar = stack.enter_context(
      progress_lib.Bar(config.total_rounds, enabled=progress)
    )
    for recorder in recorders:
      stack.callback(recorder.close)

    def after_round(round_num: int, row: Optional[Mapping[str, Any]]) -> None:
      # The progress bar says so itself.
      if round_num and not bar.started and not progress:
        say(f'resuming after round {round_num}')
      bar.update(round_num, row)
      on_round(round_num, row)

    simulated = simulation.run(
      process,
      experiment.evaluate,
      experiment.task,
      store,
      config,
      field=experiment.field,
      attack=experiment.attack,
      num_epochs=experiment.num_epochs,
      tests_averaged=experiment.tests_averaged,
      warm_start_fn=warm_start.build_warm_start(
        experiment, experiment.run_directory if directory else None, say
      ),
      server_metrics_fn=server_metrics_fn,
      recorders=recorders,
      on_round=after_round,
      **options,
    )
  status = directory_lib.FINISHED
  if simulated.stopped_early:
    status = directory_lib.STOPPED_EARLY
  return results.Result(
    experiment,
    status=status,
    round_num=simulated.history[-1]['round'],
    server_state=simulated.server_state,
    store=store,
    rows=simulated.history,
    per_client=simulated.per_client,
    per_test_set=simulated.per_test_set,
    statistics=simulated.statistics,
    directory=directory,
  )


def _tracker(
  experiment: experiment_lib.Experiment, directory: Optional[str] = None
) -> list[recorders_lib.Recorder]:
  config = experiment.run_config
  return trackers.build(
    config.tracker,
    title=config.experiment_name or experiment.algorithm,
    settings=experiment.flags(),
    directory=directory,
  )


def _say_what(
  experiment: experiment_lib.Experiment,
  run: directory_lib.RunDirectory,
  say: Callable[[str], None],
) -> None:
  runtime = experiment.runtime.runtime
  found = f'; {devices.detect()}' if runtime == 'in_process' else ''
  say(f'runtime: {runtime}{found}')
  say(tasks.report(experiment.task, batch_size=experiment.local.batch_size))
  models = [f'{m.name} ({m.num_trainable:,})' for m in experiment.models]
  say(f'models: {", ".join(models)}')
  if experiment.account is not None:
    total_rounds = experiment.simulation.total_rounds
    say(experiment.account.describe(total_rounds))
  say(f'run directory: {run.path}')


def _open_store(
  experiment: experiment_lib.Experiment,
  run: directory_lib.RunDirectory,
  say: Callable[[str], None],
) -> client_store.ClientStateStore:
  """Returns the store of client states, and says how large they are."""
  initial_state_fn = experiment.initial_state_fn
  num_bytes = client_store.population_bytes(
    initial_state_fn, experiment.task.num_clients, experiment.turns
  )
  on_disk = experiment.store.keeps_on_disk(num_bytes)
  where = run.client_states if on_disk else 'in memory'
  say(f'client states: {num_bytes / 1e9:.3f} GB, {where}')
  if on_disk:
    return client_store.DiskStore(initial_state_fn, run.client_states)
  return client_store.MemoryStore(initial_state_fn)


def _keep_inputs(
  run: directory_lib.RunDirectory,
  task: tasks.FederatedTask,
  anchors: Optional[np.ndarray],
) -> None:
  """Records data and anchors, or compares the data with those of the run."""
  if task.partition is not None:
    if os.path.exists(run.partition_npz):
      kept = partition_lib.load(run.partition_npz)
      pairs = zip(
        kept.train + kept.test,
        task.partition.train + task.partition.test,
        strict=False,
      )
      if kept.num_clients != task.num_clients or not all(
        np.array_equal(before, now) for before, now in pairs
      ):
        raise directory_lib.RunDirectoryError(
          f'The data give another partition than {run.partition_npz!r}: the '
          'run was started with other data. Use another --experiment_name.'
        )
    else:
      task.partition.save(run.partition_npz)
  else:
    found = {
      'name': task.name,
      'num_clients': task.num_clients,
      'sha256': own_data.digest(task),
    }
    if _differs(run.data_json, found):
      raise directory_lib.RunDirectoryError(
        f'The data are not those of {run.data_json!r}: the run was started '
        'with other data. Use another directory.'
      )
  if anchors is not None:
    content = io.BytesIO()
    np.save(content, anchors, allow_pickle=False)
    files.write_bytes(run.anchors_npy, content.getvalue())


def _differs(path: str, found: Mapping[str, Any]) -> bool:
  """Returns whether a run has another record; writes the record if none."""
  if os.path.exists(path):
    return files.read_json(path) != found
  files.write_json(path, found)
  return False


def _keep_files(
  run: directory_lib.RunDirectory,
  paths: Mapping[str, str],
  selection_fn: Optional[SelectionFn],
) -> None:
  """Records what settings name, beside the flags, or checks it."""
  found: dict[str, Any] = {}
  for name, path in paths.items():
    with open(path, 'rb') as file:
      found[name] = hashlib.sha256(file.read()).hexdigest()
  if selection_fn is not None:
    found['selection_fn'] = True
  kept: dict[str, Any] = {} if os.path.exists(run.status_json) else found
  if os.path.exists(run.selection_json):
    kept = files.read_json(run.selection_json)
  for name in sorted(set(kept) | set(found)):
    if kept.get(name) == found.get(name):
      continue
    if name == 'selection_fn':
      had, has = ('without', 'with') if name in found else ('with', 'without')
      raise directory_lib.RunDirectoryError(
        f'The run at {run.path!r} was started {had} a `selection_fn`, and '
        f'would go on {has} one. Start it as before, or use another directory.'
      )
    raise directory_lib.RunDirectoryError(
      f'The file {paths.get(name)!r} of --{name} has changed since the '
      f'run at {run.path!r} was started. Restore it, or use another '
      'directory.'
    )
  if found:
    files.write_json(run.selection_json, found)


def _write(run: directory_lib.RunDirectory, result: results.Result) -> None:
  """Writes the files of a finished run, except rows and checkpoints."""
  if result.per_test_set:
    _write_counts(
      run.per_test_set_csv,
      [{'test_set': name, **c} for name, c in result.per_test_set.items()],
    )
  else:
    architecture_of = result.experiment.architecture_of
    _write_counts(
      run.per_client_csv,
      [
        {'client': i, 'architecture': architecture_of(i), **counts}
        for i, counts in enumerate(result.per_client)
      ],
    )
  if result.statistics:
    content = io.BytesIO()
    np.savez_compressed(
      content,
      **{
        f'{classifier}.{name}': array
        for classifier, sums in result.statistics.items()
        for name, array in sums.items()
      },
    )
    files.write_bytes(run.statistics_npz, content.getvalue())
  for name, figure in result.figures().items():
    figures_lib.save(figure, os.path.join(run.figures, f'{name}.png'))
  files.write_json(run.summary_json, result.summary)


def _write_counts(path: str, rows: Sequence[Mapping[str, Any]]) -> None:
  text = io.StringIO(newline='')
  writer = csv.DictWriter(text, list(rows[0]), lineterminator='\n')
  writer.writeheader()
  writer.writerows(rows)
  files.write_bytes(path, text.getvalue().encode())


def _read_statistics(
  run: directory_lib.RunDirectory,
) -> dict[str, dict[str, np.ndarray]]:
  """Returns sums of the last evaluation, by classifier and statistic."""
  found: dict[str, dict[str, np.ndarray]] = {}
  if os.path.exists(run.statistics_npz):
    for key, array in files.read_npz(run.statistics_npz).items():
      classifier, _, name = key.partition('.')
      found.setdefault(classifier, {})[name] = array
  return found


def _read_counts(
  run: directory_lib.RunDirectory,
  round_num: int,
  status: directory_lib.Status,
) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
  """Returns counts by client and by test set, if they are from this round."""
  if not status.is_over or status.round_num != round_num:
    return [], {}
  per_client, per_test_set = [], {}
  if os.path.exists(run.per_client_csv):
    for row in _read_rows(run.per_client_csv):
      per_client.append(
        {
          n: recorders_lib.number(v)
          for n, v in row.items()
          if n not in ('client', 'architecture')
        }
      )
  if os.path.exists(run.per_test_set_csv):
    for row in _read_rows(run.per_test_set_csv):
      name = row.pop('test_set')
      per_test_set[name] = {n: recorders_lib.number(v) for n, v in row.items()}
  return per_client, per_test_set


def _read_rows(path: str) -> list[dict[str, str]]:
  with open(path, newline='', encoding='utf-8') as file:
    return list(csv.DictReader(file))
