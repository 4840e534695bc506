"""Where client states live between rounds, by client id."""

import abc
from collections.abc import Callable
import os
import re
import shutil
from typing import Any

import numpy as np

from tff_fedsa import files
from tff_fedsa.client import client_state

_FILE = re.compile(r'client_(\d+)\.npz')


class ClientStateStore(abc.ABC):
  """Keeps the state of every client that has been put.

  A client that was never put has the state that `initial_state_fn` makes, so
  cost follows the clients that took part, not the population.
  """

  def __init__(
    self, initial_state_fn: Callable[[int], client_state.ClientState]
  ):
    self._initial_state_fn = initial_state_fn

  @abc.abstractmethod
  def get(self, client_id: int) -> client_state.ClientState:
    """Returns the client's state."""

  @abc.abstractmethod
  def put(self, client_id: int, state: client_state.ClientState) -> None:
    """Replaces the client's state."""

  @abc.abstractmethod
  def client_ids(self) -> list[int]:
    """Returns the clients that have been put, ascending."""

  @abc.abstractmethod
  def snapshot(self, directory: str) -> None:
    """Writes all states that have been put into an existing directory."""

  @abc.abstractmethod
  def restore(self, directory: str) -> None:
    """Goes back to a snapshot exactly: later puts are forgotten."""


class MemoryStore(ClientStateStore):
  """Keeps states in memory."""

  def __init__(
    self, initial_state_fn: Callable[[int], client_state.ClientState]
  ):
    super().__init__(initial_state_fn)
    self._states: dict[int, client_state.ClientState] = {}

  def get(self, client_id: int) -> client_state.ClientState:
    if client_id not in self._states:
      return self._initial_state_fn(client_id)
    return self._states[client_id]

  def put(self, client_id: int, state: client_state.ClientState) -> None:
    self._states[client_id] = _as_arrays(state)

  def client_ids(self) -> list[int]:
    return sorted(self._states)

  def snapshot(self, directory: str) -> None:
    for client_id, state in self._states.items():
      _write(_path(directory, client_id), state)

  def restore(self, directory: str) -> None:
    self._states = {
      client_id: _read(_path(directory, client_id))
      for client_id in _client_ids(directory)
    }


class DiskStore(ClientStateStore):
  """Keeps one file per client in a directory, for states larger than memory.

  Files are replaced, never changed, so a snapshot is a set of hard links.
  """

  def __init__(
    self,
    initial_state_fn: Callable[[int], client_state.ClientState],
    directory: str,
  ):
    """Initializes `DiskStore`.

    Args:
      initial_state_fn: Makes the state of a client that was never put.
      directory: Created if missing; states that it holds are kept.
    """
    super().__init__(initial_state_fn)
    self._directory = directory
    os.makedirs(directory, exist_ok=True)

  def get(self, client_id: int) -> client_state.ClientState:
    path = _path(self._directory, client_id)
    if not os.path.exists(path):
      return self._initial_state_fn(client_id)
    return _read(path)

  def put(self, client_id: int, state: client_state.ClientState) -> None:
    _write(_path(self._directory, client_id), state)

  def client_ids(self) -> list[int]:
    return _client_ids(self._directory)

  def snapshot(self, directory: str) -> None:
    _link_all(self._directory, directory)

  def restore(self, directory: str) -> None:
    for client_id in self.client_ids():
      os.remove(_path(self._directory, client_id))
    _link_all(directory, self._directory)


def population_bytes(
  initial_state_fn: Callable[[int], client_state.ClientState],
  num_clients: int,
  num_models: int,
) -> int:
  """Returns the bytes of the states of all clients, as they begin.

  Args:
    initial_state_fn: Makes a client's first state.
    num_clients: M.
    num_models: Client i has the architecture i mod num_models.
  """
  total = 0
  for architecture in range(min(num_models, num_clients)):
    state = initial_state_fn(architecture)
    num_bytes = sum(np.asarray(part).nbytes for part in state)
    total += num_bytes * len(range(architecture, num_clients, num_models))
  return total


def _path(directory: str, client_id: int) -> str:
  return os.path.join(directory, f'client_{client_id:06d}.npz')


def _client_ids(directory: str) -> list[int]:
  found = (_FILE.fullmatch(name) for name in os.listdir(directory))
  return sorted(int(match.group(1)) for match in found if match)


def _as_arrays(state: Any) -> client_state.ClientState:
  return client_state.ClientState(*(np.asarray(part) for part in state))


def _write(path: str, state: client_state.ClientState) -> None:
  files.write_npz(path, _as_arrays(state)._asdict())


def _read(path: str) -> client_state.ClientState:
  arrays = files.read_npz(path)
  return client_state.ClientState(
    *(arrays[field] for field in client_state.ClientState._fields)
  )


def _link_all(source: str, target: str) -> None:
  for client_id in _client_ids(source):
    _link(_path(source, client_id), _path(target, client_id))


def _link(source: str, target: str) -> None:
  try:
    os.link(source, target)
  except OSError:
    # Another file system, or one without hard links.
    shutil.copyfile(source, target)
