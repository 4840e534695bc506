"""Checkpoints of a run: server state, all client states, history.

A checkpoint is a directory `round_000010/` with `server.npz`,
`clients/client_000003.npz`, …, `history.json` and `manifest.json`, which holds
a checksum of every other file. It is written under another name and renamed
when it is complete, so whatever happens in between, the older ones stay valid.
"""

import hashlib
import os
import re
import shutil
from typing import Any, NamedTuple, Optional
import zipfile

from absl import logging
import numpy as np
import tensorflow as tf

from tff_fedsa import files
from tff_fedsa.client import client_store

_DIRECTORY = re.compile(r'round_(\d+)')
_TEMPORARY = 'incomplete-'
_MANIFEST = 'manifest.json'
_VERSION = 1


class CheckpointError(Exception):
  """A checkpoint could not be written or read; the message says why."""


class Checkpoint(NamedTuple):
  """What a checkpoint holds beside the client states.

  Attributes:
    round_num: Rounds done.
    server_state: Of the structure given to `restore`.
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
      keep: How many of the latest checkpoints stay, >= 1.
    """
    if keep < 1:
      raise ValueError(f'Expected keep >= 1, found {keep}.')
    self._directory = directory
    self._keep = keep
    os.makedirs(directory, exist_ok=True)

  def rounds(self) -> list[int]:
    """Returns the rounds of the checkpoints that are there, ascending."""
    found = (_DIRECTORY.fullmatch(name) for name in os.listdir(self._directory))
    return sorted(int(match.group(1)) for match in found if match)

  def save(
    self,
    round_num: int,
    server_state: Any,
    store: client_store.ClientStateStore,
    history: list[dict[str, Any]],
  ) -> None:
    """Writes a checkpoint, then removes those beyond `keep`.

    Raises:
      CheckpointError: If it can't be written (disk full, no permission); older
        checkpoints stay as they are.
    """
    temporary = os.path.join(self._directory, f'{_TEMPORARY}{round_num:06d}')
    final = self._path(round_num)
    try:
      self._remove_incomplete()
      os.makedirs(os.path.join(temporary, 'clients'))
      leaves = tf.nest.flatten(server_state)
      files.write_npz(
        os.path.join(temporary, 'server.npz'),
        {f'leaf_{i}': np.asarray(leaf) for i, leaf in enumerate(leaves)},
      )
      store.snapshot(os.path.join(temporary, 'clients'))
      files.write_json(os.path.join(temporary, 'history.json'), history)
      manifest = {
        'version': _VERSION,
        'round_num': round_num,
        'sha256': _checksums(temporary),
      }
      files.write_json(os.path.join(temporary, _MANIFEST), manifest)
      if os.path.exists(final):
        shutil.rmtree(final)
      os.rename(temporary, final)
    except OSError as error:
      shutil.rmtree(temporary, ignore_errors=True)
      raise CheckpointError(
        f'Cannot write the checkpoint of round {round_num} to '
        f'{self._directory!r}: {error}. Free some space or fix the permissions '
        f'and start again: checkpoints of rounds {self.rounds()} are intact.'
      ) from error
    for old in self.rounds()[: -self._keep]:
      shutil.rmtree(self._path(old), ignore_errors=True)

  def restore(
    self,
    structure: Any,
    store: client_store.ClientStateStore,
    round_num: Optional[int] = None,
  ) -> Optional[Checkpoint]:
    """Restores a checkpoint, client states included.

    By default the latest one that is whole: a damaged one is reported (a
    warning that names file and reason) and the one before it is taken.

    Args:
      structure: A server state of the structure to restore, e.g. the result
        of `process.initialize()`.
      store: Gets the client states of the checkpoint.
      round_num: Only this one will do.

    Returns:
      The checkpoint, or None if there is none.

    Raises:
      CheckpointError: If there are checkpoints, but none is whole, or not the
        one that was asked for.
    """
    rounds = self.rounds()
    if round_num is not None:
      if round_num not in rounds:
        raise CheckpointError(
          f'There is no checkpoint of round {round_num} in '
          f'{self._directory!r}; there are {rounds}.'
        )
      rounds = [round_num]
    for round_num in reversed(rounds):
      path = self._path(round_num)
      try:
        return self._restore(path, round_num, structure, store)
      except (
        CheckpointError,
        OSError,
        ValueError,
        KeyError,
        zipfile.BadZipFile,
      ) as error:
        logging.warning(
          'The checkpoint %s is damaged and is skipped: %s', path, error
        )
    if rounds:
      raise CheckpointError(
        f'None of the checkpoints {rounds} in {self._directory!r} is whole. '
        'Remove the directory to start again.'
      )
    return None

  def _restore(
    self,
    path: str,
    round_num: int,
    structure: Any,
    store: client_store.ClientStateStore,
  ) -> Checkpoint:
    manifest = files.read_json(os.path.join(path, _MANIFEST))
    if manifest['version'] != _VERSION:
      raise CheckpointError(
        f'expected format version {_VERSION}, found {manifest["version"]}'
      )
    found = _checksums(path)
    for name, expected in manifest['sha256'].items():
      if found.get(name) != expected:
        raise CheckpointError(f'{name} is missing or not what was written')
    arrays = files.read_npz(os.path.join(path, 'server.npz'))
    templates = tf.nest.flatten(structure)
    if len(arrays) != len(templates):
      raise CheckpointError(
        f'expected {len(templates)} arrays of server state, found {len(arrays)}'
      )
    leaves = []
    for index, template in enumerate(templates):
      leaf, template = arrays[f'leaf_{index}'], np.asarray(template)
      if (leaf.shape, leaf.dtype) != (template.shape, template.dtype):
        raise CheckpointError(
          f'expected server state {index} to be '
          f'{template.dtype}{list(template.shape)}, found '
          f'{leaf.dtype}{list(leaf.shape)}'
        )
      leaves.append(leaf)
    history = files.read_json(os.path.join(path, 'history.json'))
    store.restore(os.path.join(path, 'clients'))
    return Checkpoint(
      round_num, tf.nest.pack_sequence_as(structure, leaves), history
    )

  def _path(self, round_num: int) -> str:
    return os.path.join(self._directory, f'round_{round_num:06d}')

  def _remove_incomplete(self) -> None:
    for name in os.listdir(self._directory):
      if name.startswith(_TEMPORARY):
        shutil.rmtree(os.path.join(self._directory, name))


def _checksums(directory: str) -> dict[str, str]:
  """Returns SHA-256 by relative path of all files but the manifest."""
  checksums = {}
  for folder, _, names in os.walk(directory):
    for name in names:
      path = os.path.join(folder, name)
      relative = os.path.relpath(path, directory)
      if relative != _MANIFEST:
        with open(path, 'rb') as file:
          checksums[relative] = hashlib.file_digest(file, 'sha256').hexdigest()
  return checksums
