"""Program state in checkpoints, for client states that exceed memory."""

from typing import Optional

import tensorflow_federated as tff

from tff_fedsa.client import client_store
from tff_fedsa.pipelines import training_process
from tff_fedsa.runs import checkpoints
from tff_fedsa.runs import errors


class CheckpointStateManager(
  tff.program.ProgramStateManager[training_process.TrainingState]
):
  """A `tff.program.ProgramStateManager` with the format of `tff-fedsa train`.

  `tff.program.FileProgramStateManager` writes all client states each time, and
  needs memory for all. Here the store writes them one by one, and only changed
  states. The files have checksums.
  """

  def __init__(self, directory: str, *, keep: int = 2):
    """Initializes `CheckpointStateManager`.

    Args:
      directory: Created if missing.
      keep: Number of latest states that stay, >= 1.
    """
    self._checkpoints = checkpoints.CheckpointManager(directory, keep=keep)

  async def get_versions(self) -> Optional[list[int]]:
    return self._checkpoints.rounds() or None

  async def load(
    self, version: int, structure: training_process.TrainingState
  ) -> training_process.TrainingState:
    """Loads a state. The store of `structure` receives the client states.

    Args:
      version: The round.
      structure: Latest result of `TrainingProcess.initialize`.

    Raises:
      tff.program.ProgramStateNotFoundError: If the version does not exist.
      checkpoints.CheckpointError: If the state is damaged.
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
    """Loads the latest whole state. Returns (None, 0) if there is none.

    Args:
      structure: Latest result of `TrainingProcess.initialize`.

    Raises:
      checkpoints.CheckpointError: If all states are damaged.
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
    """Saves the latest state of a population.

    It replaces a damaged state of the same version, which loading skipped.

    Raises:
      checkpoints.CheckpointError: If the state cannot be written.
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
