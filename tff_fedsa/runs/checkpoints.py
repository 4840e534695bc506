"""Checkpoints of a run: server state, all client states, history.

  checkpoints/
    round_000010/server.npz      arrays by their paths, e.g. `model/anchors`
                 history.json    the rows so far
                 manifest.json   checksums of both, and the file of each client
    clients/client_000003-1f0c….npz

Checkpoints share the files of client states: the name of a file follows from
its content, and files never change. So a checkpoint writes only what changed
since the previous one. It is written under another name and renamed when it is
complete. Older checkpoints stay valid at any time.

Version 1 of the format had client states in the directory of each round, and
arrays of the server's state by position. It can still be read.
"""

from collections.abc import Mapping
import contextlib
import hashlib
import json
import os
import re
import shutil
from typing import Any, NamedTuple, Optional
import zipfile

from absl import logging
import numpy as np
import tree

from tff_fedsa import files
from tff_fedsa.client import client_store
from tff_fedsa.runs import errors

_DIRECTORY = re.compile(r'round_(\d+)')
_TEMPORARY = 'incomplete-'
_CLIENTS = 'clients'
_SERVER = 'server.npz'
_HISTORY = 'history.json'
_MANIFEST = 'manifest.json'
_CHECKSUM = 'checksum'
_VERSION = 2
_MOST_NAMED = 5

# Exceptions of reading a damaged file.
_DAMAGES = (
  client_store.DamagedStateError,
  FileNotFoundError,
  IsADirectoryError,
  NotADirectoryError,
  ValueError,
  KeyError,
  TypeError,
  AttributeError,
  zipfile.BadZipFile,
)


class CheckpointError(errors.UserError):
  """A checkpoint cannot be written or read. The message gives the reason."""


class StructureError(CheckpointError):
  """A checkpoint is whole, but belongs to other models or another server."""


class Checkpoint(NamedTuple):
  """Content of a checkpoint, without the client states.

  Attributes:
    round_num: Rounds done.
    server_state: Server state, with the structure given to `restore`.
    history: The rows recorded so far.
  """

  round_num: int
  server_state: Any
  history: list[dict[str, Any]]


class CheckpointManager:
  """Saves checkpoints in a directory and restores the latest valid one."""

  def __init__(self, directory: str, *, keep: int = 2):
    """Initializes `CheckpointManager`.

    Args:
      directory: Created if missing.
      keep: Number of latest checkpoints that stay, >= 1.
    """
    if keep < 1:
      raise errors.UserError(f'Expected keep >= 1, found {keep}.')
    self._directory = directory
    self._clients = os.path.join(directory, _CLIENTS)
    self._keep = keep
    os.makedirs(directory, exist_ok=True)

  def rounds(self) -> list[int]:
    """Returns the rounds of all checkpoints, ascending."""
    try:
      names = os.listdir(self._directory)
    except FileNotFoundError:
      return []
    found = (_DIRECTORY.fullmatch(name) for name in names)
    return sorted(int(match.group(1)) for match in found if match)

  def save(
    self,
    round_num: int,
    server_state: Any,
    store: client_store.ClientStateStore,
    history: list[dict[str, Any]],
  ) -> None:
    """Writes a checkpoint, then removes older ones beyond `keep`.

    Checkpoints of later rounds are removed, too. They exist only if they are
    damaged and the run went back to an earlier round.

    Raises:
      CheckpointError: If it cannot be written (disk full, no permission). Older
        checkpoints do not change.
    """
    temporary = os.path.join(self._directory, f'{_TEMPORARY}{round_num:06d}')
    try:
      # Not its parents: a user who removed them wants no run here.
      with contextlib.suppress(FileExistsError):
        os.mkdir(self._clients)
      self._remove_incomplete()
      os.mkdir(temporary)
      arrays = _named_arrays(server_state)
      files.write_npz(os.path.join(temporary, _SERVER), arrays)
      files.write_json(os.path.join(temporary, _HISTORY), history)
      clients = store.save(self._clients)
      _write_manifest(
        temporary,
        {
          'version': _VERSION,
          'round_num': round_num,
          'sha256': {
            name: _checksum(os.path.join(temporary, name))
            for name in (_SERVER, _HISTORY)
          },
          'clients': {str(i): list(file) for i, file in clients.items()},
        },
      )
      for directory in (self._clients, temporary):
        files.sync_directory(directory)
      self._remove(round_num)
      os.rename(temporary, self._path(round_num))
      files.sync_directory(self._directory)
    except OSError as error:
      shutil.rmtree(temporary, ignore_errors=True)
      raise CheckpointError(
        f'Cannot write the checkpoint of round {round_num} to '
        f'{self._directory!r}: {error}. Free some space or fix the permissions '
        f'and start again: checkpoints of rounds {self.rounds()} are intact.'
      ) from error
    # A file that cannot be removed now is removed the next time.
    with contextlib.suppress(OSError):
      self._tidy(round_num)

  def restore(
    self,
    structure: Any,
    store: client_store.ClientStateStore,
    round_num: Optional[int] = None,
  ) -> Optional[Checkpoint]:
    """Restores a checkpoint, client states included.

    By default this is the latest whole checkpoint. A damaged checkpoint is
    skipped, with a warning that names file and reason.

    Args:
      structure: A server state with the structure to restore, e.g. the result
        of `process.initialize()`. None restores the client states alone.
      store: Receives the client states of the checkpoint.
      round_num: Round of the checkpoint. Default: the latest.

    Returns:
      The checkpoint, or None if there is none.

    Raises:
      CheckpointError: If no checkpoint is whole, or the requested one is
        missing or damaged.
      StructureError: If the checkpoint has another structure, or its client
        states belong to other models. The message names both.
    """
    rounds = self.rounds()
    if round_num is not None:
      if round_num not in rounds:
        raise CheckpointError(
          f'There is no checkpoint of round {round_num} in '
          f'{self._directory!r}; there are {rounds}.'
        )
      rounds = [round_num]
    for one in reversed(rounds):
      path = self._path(one)
      try:
        return self._restore(path, one, structure, store)
      except StructureError:
        raise
      except client_store.OtherStateError as error:
        raise StructureError(f'{path!r}: {error}') from error
      except _DAMAGES as error:
        logging.warning(
          'The checkpoint %s is damaged and is skipped: %s', path, error
        )
    if rounds:
      raise CheckpointError(
        f'None of the checkpoints {rounds} in {self._directory!r} is whole. '
        'Put back a copy of that directory if you have one. Or remove it: the '
        'run then starts again from its first round.'
      )
    return None

  def _restore(
    self,
    path: str,
    round_num: int,
    structure: Any,
    store: client_store.ClientStateStore,
  ) -> Checkpoint:
    manifest = _read_manifest(path)
    if manifest['round_num'] != round_num:
      raise CheckpointError(f'{_MANIFEST} is of round {manifest["round_num"]}')
    for name in (_SERVER, _HISTORY):
      if _checksum(os.path.join(path, name)) != manifest['sha256'][name]:
        raise CheckpointError(f'{name} is not what was written')
    arrays = files.read_npz(os.path.join(path, _SERVER))
    history = files.read_json(os.path.join(path, _HISTORY))
    if manifest['version'] == 1:
      directory = os.path.join(path, _CLIENTS)
      listed = {file.name for file in _state_files(manifest).values()}
      if listed != set(os.listdir(directory)):
        raise CheckpointError(
          f'{_MANIFEST} does not list all states of clients'
        )
      if structure is not None:
        arrays = _name_by_position(arrays, structure, path)
    else:
      directory = self._clients
    server_state = None
    if structure is not None:
      server_state = _fill(structure, arrays, path)
    store.load(directory, _state_files(manifest))
    return Checkpoint(round_num, server_state, history)

  def _path(self, round_num: int) -> str:
    return os.path.join(self._directory, f'round_{round_num:06d}')

  def _remove(self, round_num: int) -> None:
    """Removes a checkpoint in one step, then its files."""
    path = self._path(round_num)
    if os.path.lexists(path):
      removed = os.path.join(
        self._directory, f'{_TEMPORARY}removed-{round_num:06d}'
      )
      os.rename(path, removed)
      shutil.rmtree(removed)

  def _remove_incomplete(self) -> None:
    for name in os.listdir(self._directory):
      if name.startswith(_TEMPORARY):
        shutil.rmtree(os.path.join(self._directory, name))

  def _tidy(self, round_num: int) -> None:
    """Removes old checkpoints, and client files that no checkpoint needs."""
    rounds = self.rounds()
    for later in [one for one in rounds if one > round_num]:
      self._remove(later)
    for old in [one for one in rounds if one <= round_num][: -self._keep]:
      self._remove(old)
    used: set[str] = set()
    for kept in self.rounds():
      try:
        manifest = _read_manifest(self._path(kept))
      except (CheckpointError, *_DAMAGES):
        # Its needed files are unknown.
        return
      used.update(file.name for file in _state_files(manifest).values())
    for name in os.listdir(self._clients):
      if name not in used:
        os.remove(os.path.join(self._clients, name))


def _named_arrays(structure: Any) -> dict[str, np.ndarray]:
  """Returns the leaves of a structure by their paths.

  Raises:
    CheckpointError: If a leaf is not an array of numbers.
  """
  arrays = {}
  for path, leaf in tree.flatten_with_path(structure):
    array = np.asarray(leaf)
    name = '/'.join(_escape(part) for part in path) or 'state'
    if array.dtype.hasobject:
      raise CheckpointError(
        f'Cannot save the server state {name!r}: expected an array of numbers, '
        f'found {type(leaf).__name__}.'
      )
    arrays[name] = array
  return arrays


def _escape(part: Any) -> str:
  return str(part).replace('%', '%25').replace('/', '%2F')


def _fill(structure: Any, arrays: Mapping[str, np.ndarray], path: str) -> Any:
  """Returns the structure with the arrays of its paths as leaves.

  Raises:
    StructureError: If paths, shapes or dtypes differ. The message names all.
  """
  expected = _named_arrays(structure)
  different = []
  for name in dict.fromkeys([*expected, *arrays]):
    wanted, found = (
      f'{array.dtype}{list(array.shape)}' if array is not None else 'nothing'
      for array in (expected.get(name), arrays.get(name))
    )
    if wanted != found:
      different.append(f'{name}: expected {wanted}, found {found}')
  if different:
    more = len(different) - _MOST_NAMED
    raise StructureError(
      f'The checkpoint {path!r} is of another server state: '
      f'{"; ".join(different[:_MOST_NAMED])}'
      f'{f"; and {more} more" if more > 0 else ""}. Another method, other '
      'settings or another version of the code wrote it: use those, or start a '
      'new run (another --experiment_name).'
    )
  return tree.unflatten_as(structure, [arrays[name] for name in expected])


def _name_by_position(
  arrays: Mapping[str, np.ndarray], structure: Any, path: str
) -> dict[str, np.ndarray]:
  """Returns the arrays `leaf_0`, `leaf_1`, … of version 1 by their paths."""
  names = list(_named_arrays(structure))
  if len(arrays) != len(names):
    raise StructureError(
      f'The checkpoint {path!r} is of another server state: expected '
      f'{len(names)} arrays ({", ".join(names)}), found {len(arrays)}.'
    )
  return {name: arrays[f'leaf_{i}'] for i, name in enumerate(names)}


def _write_manifest(path: str, content: dict[str, Any]) -> None:
  text = json.dumps({**content, _CHECKSUM: _own_checksum(content)})
  files.write_bytes(os.path.join(path, _MANIFEST), text.encode())


def _read_manifest(path: str) -> dict[str, Any]:
  """Reads the manifest of a checkpoint.

  Raises:
    CheckpointError: If it is damaged, or has an unknown version.
  """
  manifest = files.read_json(os.path.join(path, _MANIFEST))
  version = manifest['version']
  if version not in (1, _VERSION):
    raise CheckpointError(
      f'expected format version {_VERSION}, found {version}'
    )
  if version == _VERSION:
    checksum = manifest.pop(_CHECKSUM)
    if checksum != _own_checksum(manifest):
      raise CheckpointError(f'{_MANIFEST} is not what was written')
  return manifest


def _own_checksum(content: Mapping[str, Any]) -> str:
  text = json.dumps(content, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()


def _state_files(
  manifest: Mapping[str, Any],
) -> dict[int, client_store.StateFile]:
  if manifest['version'] == 1:
    found = {}
    for name, sha256 in manifest['sha256'].items():
      match = re.fullmatch(rf'{_CLIENTS}/(client_(\d+)\.npz)', name)
      if match:
        found[int(match[2])] = client_store.StateFile(match[1], sha256)
    return found
  return {
    int(client_id): client_store.StateFile(*file)
    for client_id, file in manifest['clients'].items()
  }


def _checksum(path: str) -> str:
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()
