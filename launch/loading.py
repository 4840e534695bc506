"""A run of `launch.train`, loaded from its directory."""

from collections.abc import Iterator
import contextlib
from typing import Any, NamedTuple, Optional

from absl import flags

from launch import experiment
from tff_fedsa.runs import directory


class LoadedRun(NamedTuple):
  """What a checkpoint of a run holds, ready for use.

  Attributes:
    experiment: The `ExperimentFlags` with the run's flags.
    run: Its `RunDirectory`.
    round_num: Rounds done in the checkpoint.
    server_state: Its `composer.ServerState`.
    store: Its client states.
  """

  experiment: experiment.ExperimentFlags
  run: directory.RunDirectory
  round_num: int
  server_state: Any
  store: Any


def load(path: str, round_num: Optional[int] = None) -> LoadedRun:
  """Loads a checkpoint of a run; starts the runtime.

  Args:
    path: The run's directory.
    round_num: Which checkpoint; the latest by default.

  Raises:
    directory.RunDirectoryError: If there is no run at `path`, or it has no
      checkpoint.
    checkpoints.CheckpointError: If the checkpoint is damaged, or of other
      models.
  """
  # Slow to import.
  from tff_fedsa.client import client_store
  from tff_fedsa.runs import checkpoints

  run = directory.open_existing(path)
  run_flags = experiment.ExperimentFlags()
  flags.FLAGS([path, f'--flagfile={run.flags_file}'])
  run_flags.runtime_flags.build().start(without_workers=True)
  store = client_store.MemoryStore(run_flags.initial_state_fn)
  checkpoint = checkpoints.CheckpointManager(run.checkpoints).restore(
    run_flags.process.initialize(), store, round_num
  )
  if checkpoint is None:
    raise directory.RunDirectoryError(
      f'The run at {path!r} has no checkpoint yet.'
    )
  return LoadedRun(
    run_flags, run, checkpoint.round_num, checkpoint.server_state, store
  )


@contextlib.contextmanager
def loaded(path: str) -> Iterator[LoadedRun]:
  """Loads a run within a `with` statement, so that another one can follow.

  Args:
    path: The run's directory.

  Raises what `load` does.
  """
  before = set(flags.FLAGS)
  try:
    yield load(path)
  finally:
    # A run's flags are one set for the whole process.
    for name in set(flags.FLAGS) - before:
      delattr(flags.FLAGS, name)
