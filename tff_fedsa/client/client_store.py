"""Stores of client states between rounds, by client id."""

import abc
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent import futures
import contextlib
import hashlib
import os
import re
from typing import Any, NamedTuple

import numpy as np

from tff_fedsa import files
from tff_fedsa.client import client_state
from tff_fedsa.execution import arrays
from tff_fedsa.runs import errors

_LIVE_FILE = re.compile(r'client_\d+\.npz')
# A disk syncs many files at once nearly as fast as one.
_THREADS = 16

InitialStateFn = Callable[[int], client_state.ClientState]


class DamagedStateError(errors.UserError):
  """The file of a state is missing or has changed."""


class OtherStateError(errors.UserError):
  """A saved state belongs to another model or version of this code."""


class StateFile(NamedTuple):
  """A file that holds the state of one client.

  Attributes:
    name: Name of the file in its directory.
    sha256: SHA-256 of its content, hexadecimal.
  """

  name: str
  sha256: str


class ClientStateStore(abc.ABC):
  """Keeps client states by id.

  A client without a stored state has the state of `initial_state_fn`. So the
  cost depends on the clients that took part, not on the population.
  """

  def __init__(self, initial_state_fn: InitialStateFn):
    self._initial_state_fn = initial_state_fn

  @abc.abstractmethod
  def get(self, client_id: int) -> client_state.ClientState:
    """Returns the client's state."""

  @abc.abstractmethod
  def put(self, client_id: int, state: client_state.ClientState) -> None:
    """Replaces the client's state."""

  @abc.abstractmethod
  def client_ids(self) -> list[int]:
    """Returns the clients with a stored state, ascending."""

  @abc.abstractmethod
  def save(self, directory: str) -> dict[int, StateFile]:
    """Writes all stored states that a directory lacks.

    The name of a file follows from its content, and existing files never
    change. So a second save to the same directory writes only new states.

    Args:
      directory: Must exist. The caller may remove files that no later `save`
        returns and no `load` will name.

    Returns:
      The file of every client with a stored state.

    Raises:
      OSError: If a file can't be written.
    """

  @abc.abstractmethod
  def load(self, directory: str, saved: Mapping[int, StateFile]) -> None:
    """Restores exactly the states that `save` returned, and forgets later ones.

    If this fails, the store does not change.

    Args:
      directory: Directory of the files. The files must stay while the store
        exists.
      saved: The file of every client with a stored state.

    Raises:
      DamagedStateError: If a file is missing, or not what was written.
      OtherStateError: If shapes or dtypes differ from those of
        `initial_state_fn`. The message names the first difference.
    """

  @abc.abstractmethod
  def clear(self) -> None:
    """Forgets all states. Every client then has its initial state."""

  def _check(self, client_id: int, state: client_state.ClientState) -> None:
    expected = self._initial_state_fn(client_id)
    for name in client_state.ClientState._fields:
      mine = np.asarray(getattr(expected, name))
      found = getattr(state, name)
      # A method's private tensors are empty before the first round.
      grows = name == 'private' and mine.size == 0
      if mine.dtype != found.dtype or (
        mine.ndim != found.ndim if grows else mine.shape != found.shape
      ):
        raise OtherStateError(
          f'Client {client_id}: expected {name} {_spec(mine)}, found '
          f'{_spec(found)} in the checkpoint: the model or its settings have '
          'changed since. Restore them, or start a new run (another '
          '--experiment_name).'
        )


class MemoryStore(ClientStateStore):
  """Keeps states in memory; large arrays of the runtime ray where they are."""

  def __init__(self, initial_state_fn: InitialStateFn):
    super().__init__(initial_state_fn)
    # Loaded states are decoded on first use.
    self._states: dict[int, client_state.ClientState | bytes] = {}
    self._saved: dict[int, StateFile] = {}
    self._saved_in = ''

  def get(self, client_id: int) -> client_state.ClientState:
    state = self._states.get(client_id)
    if state is None:
      return self._initial_state_fn(client_id)
    if isinstance(state, bytes):
      state = self._states[client_id] = decode(state)
    return state

  def put(self, client_id: int, state: client_state.ClientState) -> None:
    self._saved.pop(client_id, None)
    self._states[client_id] = client_state.ClientState(
      *(
        part if isinstance(part, arrays.RemoteArray) else np.asarray(part)
        for part in state
      )
    )

  def client_ids(self) -> list[int]:
    return sorted(self._states)

  def save(self, directory: str) -> dict[int, StateFile]:
    if self._saved_in != directory:
      self._saved, self._saved_in = {}, directory
    present = set(os.listdir(directory))

    def write(client_id: int) -> None:
      state = self._states[client_id]
      content = state if isinstance(state, bytes) else encode(state)
      file = _state_file(client_id, content)
      files.write_bytes(os.path.join(directory, file.name), content)
      self._saved[client_id] = file

    _in_threads(
      write,
      (
        client_id
        for client_id in self._states
        if client_id not in self._saved
        or self._saved[client_id].name not in present
      ),
    )
    return dict(sorted(self._saved.items()))

  def load(self, directory: str, saved: Mapping[int, StateFile]) -> None:
    contents: dict[int, bytes] = {}

    def read(client_id: int) -> None:
      contents[client_id] = _read_whole(directory, saved[client_id])

    _in_threads(read, saved)
    sizes = {client_id: len(content) for client_id, content in contents.items()}
    for client_id in _one_of_each(sizes):
      self._check(client_id, decode(contents[client_id]))
    self._states = dict(contents)
    self._saved, self._saved_in = dict(saved), directory

  def clear(self) -> None:
    self._states, self._saved, self._saved_in = {}, {}, ''


class DiskStore(ClientStateStore):
  """Keeps one file per client on disk, for states that exceed memory.

  The directory holds the states since the latest `save`. `save` moves them to
  the checkpoint, so each state is in one place. A new store ignores files in
  its directory, because they belong to no checkpoint.
  """

  def __init__(self, initial_state_fn: InitialStateFn, directory: str):
    """Initializes `DiskStore`.

    Args:
      initial_state_fn: Returns the initial state of a client.
      directory: Created if missing. One store at a time may use it.
    """
    super().__init__(initial_state_fn)
    self._directory = directory
    self._paths: dict[int, str] = {}
    self._saved: dict[int, StateFile] = {}
    self._saved_in = ''
    os.makedirs(directory, exist_ok=True)

  def get(self, client_id: int) -> client_state.ClientState:
    path = self._paths.get(client_id)
    if path is None:
      return self._initial_state_fn(client_id)
    with open(path, 'rb') as file:
      return decode(file.read())

  def put(self, client_id: int, state: client_state.ClientState) -> None:
    path = os.path.join(self._directory, f'client_{client_id:06d}.npz')
    # Only saved files have to survive a power failure.
    files.write_bytes(path, encode(state), durable=False)
    self._saved.pop(client_id, None)
    self._paths[client_id] = path

  def client_ids(self) -> list[int]:
    return sorted(self._paths)

  def save(self, directory: str) -> dict[int, StateFile]:
    if self._saved_in != directory:
      self._saved, self._saved_in = {}, directory
    present = set(os.listdir(directory))

    def move(client_id: int) -> None:
      source = self._paths[client_id]
      with open(source, 'rb') as file:
        content = file.read()
        os.fsync(file.fileno())
      state_file = _state_file(client_id, content)
      target = os.path.join(directory, state_file.name)
      if os.path.dirname(source) != self._directory or not _moved(
        source, target
      ):
        files.write_bytes(target, content)
      self._paths[client_id] = target
      self._saved[client_id] = state_file

    # A removed file is an error, because no other copy of the state exists.
    _in_threads(
      move,
      [
        client_id
        for client_id in self._paths
        if client_id not in self._saved
        or self._saved[client_id].name not in present
      ],
    )
    return dict(sorted(self._saved.items()))

  def load(self, directory: str, saved: Mapping[int, StateFile]) -> None:
    sizes: dict[int, int] = {}

    def check(client_id: int) -> None:
      sizes[client_id] = len(_read_whole(directory, saved[client_id]))

    _in_threads(check, saved)
    paths = {
      client_id: os.path.join(directory, file.name)
      for client_id, file in saved.items()
    }
    for client_id in _one_of_each(sizes):
      with open(paths[client_id], 'rb') as file:
        self._check(client_id, decode(file.read()))
    self.clear()
    self._paths = paths
    self._saved, self._saved_in = dict(saved), directory

  def clear(self) -> None:
    self._paths, self._saved, self._saved_in = {}, {}, ''
    files.remove_leftovers(self._directory)
    for name in os.listdir(self._directory):
      if _LIVE_FILE.fullmatch(name):
        os.remove(os.path.join(self._directory, name))


def population_bytes(
  initial_state_fn: InitialStateFn, num_clients: int, turns: Sequence[int]
) -> int:
  """Returns the size of the initial states of all clients, in bytes.

  Args:
    initial_state_fn: Returns the initial state of a client.
    num_clients: M.
    turns: Client i has the architecture turns[i mod len(turns)].
  """
  total = 0
  for architecture in set(turns):
    clients = [i for i, turn in enumerate(turns) if turn == architecture]
    count = sum(len(range(i, num_clients, len(turns))) for i in clients)
    if count:
      state = initial_state_fn(clients[0])
      total += count * sum(np.asarray(part).nbytes for part in state)
  return total


def encode(state: client_state.ClientState) -> bytes:
  """Returns a state as the content of a `.npz` file."""
  return files.npz_bytes(_as_arrays(state)._asdict())


def decode(content: bytes) -> client_state.ClientState:
  """Returns a state from the result of `encode`.

  Raises:
    OtherStateError: If the content has other fields.
  """
  arrays = files.npz_arrays(content)
  if set(arrays) != set(client_state.ClientState._fields):
    raise OtherStateError(
      'Expected a client state with the fields '
      f'{", ".join(client_state.ClientState._fields)}, found '
      f'{", ".join(arrays)}: another version of tff_fedsa wrote it.'
    )
  return client_state.ClientState(**arrays)


def _as_arrays(state: Any) -> client_state.ClientState:
  return client_state.ClientState(*(np.asarray(part) for part in state))


def _spec(array: np.ndarray) -> str:
  return f'{array.dtype}{list(array.shape)}'


def _state_file(client_id: int, content: bytes) -> StateFile:
  digest = hashlib.sha256(content).hexdigest()
  return StateFile(f'client_{client_id:06d}-{digest[:16]}.npz', digest)


def _read_whole(directory: str, file: StateFile) -> bytes:
  """Reads a file.

  Raises:
    DamagedStateError: If the file is missing or has changed.
  """
  try:
    with open(os.path.join(directory, file.name), 'rb') as opened:
      content = opened.read()
  except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
    raise DamagedStateError(f'{file.name} is missing') from error
  if hashlib.sha256(content).hexdigest() != file.sha256:
    raise DamagedStateError(f'{file.name} is not what was written')
  return content


def _one_of_each(sizes: Mapping[int, int]) -> list[int]:
  """Returns one client per size: states of a size have equal shapes."""
  return list({size: client_id for client_id, size in sizes.items()}.values())


def _moved(source: str, target: str) -> bool:
  """Moves a file. Returns False if `target` is on another file system."""
  with contextlib.suppress(OSError):
    os.replace(source, target)
    return True
  return False


def _in_threads(work: Callable[[int], None], client_ids: Iterable[int]) -> None:
  """Calls `work` for all clients. Raises the first error after all ended."""
  client_ids = list(client_ids)
  if len(client_ids) < 2:
    for client_id in client_ids:
      work(client_id)
    return
  with futures.ThreadPoolExecutor(_THREADS) as threads:
    waiting = [threads.submit(work, client_id) for client_id in client_ids]
  for one in waiting:
    one.result()
