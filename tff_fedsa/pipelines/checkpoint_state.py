"""Program state in checkpoints, for client states larger than memory."""

from typing import Optional

import tensorflow_federated as tff

from tff_fedsa.client import client_store
from tff_fedsa.pipelines import training_process
from tff_fedsa.runs import checkpoints
from tff_fedsa.runs import errors


class CheckpointStateManager(
  tff.program.ProgramStateManager[training_process.TrainingState]
):
  """A `tff.program.ProgramStateManager` that writes `tff-fedsa train`'s format.

  `tff.program.FileProgramStateManager` holds all client states in memory to
  write them, every time. Here they go from the store to files one by one, those
  only that changed, and files have checksums.
  """

  def __init__(self, directory: str, *, keep: int = 2):
    """Initializes `CheckpointStateManager`.

    Args:
      directory: Created if missing.
      keep: How many of the latest states stay, >= 1.
    """
    self._checkpoints = checkpoints.CheckpointManager(directory, keep=keep)

  async def get_versions(self) -> Optional[list[int]]:
    return self._checkpoints.rounds() or None

  async def load(
    self, version: int, structure: training_process.TrainingState
  ) -> training_process.TrainingState:
    """Loads a state; the client states go to the store of `structure`.

    Args:
      version: The round.
      structure: Latest result of `TrainingProcess.initialize`.

    Raises:
      tff.program.ProgramStateNotFoundError: If there is no such version.
      checkpoints.CheckpointError: If it is damaged.
    """
    if version not in self._checkpoints.rounds():
      raise tff.program.ProgramStateNotFoundError(version)
    checkpoint = self._checkpoints.restore(
      structure.server_state, _store(structure), version
    )
    assert checkpoint is not None, 'Its directory was there.'
    return structure._replace(server_state=checkpoint.server_state)

  async def load_latest(
    self, structure: training_process.TrainingState
  ) -> tuple[Optional[training_process.TrainingState], int]:
    """Loads the latest state that is whole; returns (None, 0) if none is there.

    Args:
      structure: Latest result of `TrainingProcess.initialize`.

    Raises:
      checkpoints.CheckpointError: If there are states, but none is whole.
    """
    checkpoint = self._checkpoints.restore(
      structure.server_state, _store(structure)
    )
    if checkpoint is None:
      return None, 0
    state = structure._replace(server_state=checkpoint.server_state)
    return state, checkpoint.round_num

  async def save(
    self, program_state: training_process.TrainingState, version: int
  ) -> None:
    """Saves a state that is its population's latest.

    A damaged state of the same version, which was skipped on loading, is
    replaced.

    Raises:
      checkpoints.CheckpointError: If it can't be written.
    """
    self._checkpoints.save(
      version, program_state.server_state, _store(program_state), []
    )


def _store(
  state: training_process.TrainingState,
) -> client_store.ClientStateStore:
  if state.client_states.store is None:
    raise errors.UserError(
      'Expected a state whose client states are in the store: the one that '
      '`initialize` or `next` returned last.'
    )
  return state.client_states.store
