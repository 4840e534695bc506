"""Checkpoints: exact, atomic, and the one before a damaged one is taken."""

import json
import logging
import os
import pathlib
import shutil
from typing import Any, NamedTuple

import numpy as np
import pytest

from tff_fedsa import files
from tff_fedsa.client import client_state
from tff_fedsa.client import client_store
from tff_fedsa.runs import checkpoints


def _client(value):
  return client_state.ClientState(
    np.int32(0),
    np.full([3], value, np.float32),
    np.zeros([0], np.float32),
    np.zeros([2, 2], np.float32),
    np.zeros([2], np.float32),
    np.int32([0, 0]),
  )


def _server(value):
  return {'round': np.int32(value), 'anchors': np.full([2, 2], value / 3)}


def _save(manager, round_num):
  store = client_store.MemoryStore(_client)
  store.put(5, _client(round_num / 7))
  history = [{'round': r, 'accuracy': r / 3} for r in range(round_num + 1)]
  manager.save(round_num, _server(round_num), store, history)


def _assert_restored(restored, store, round_num):
  assert restored.round_num == round_num
  np.testing.assert_array_equal(
    restored.server_state['anchors'], _server(round_num)['anchors']
  )
  assert restored.history[-1] == {'round': round_num, 'accuracy': round_num / 3}
  assert store.client_ids() == [5]
  np.testing.assert_array_equal(
    store.get(5).weights, _client(round_num / 7).weights
  )


@pytest.fixture
def manager(tmp_path):
  manager = checkpoints.CheckpointManager(str(tmp_path), keep=2)
  for round_num in (0, 10, 20):
    _save(manager, round_num)
  return manager


@pytest.fixture
def store():
  return client_store.MemoryStore(_client)


def test_the_latest_is_restored_and_old_ones_go(manager, store):
  assert manager.rounds() == [10, 20]
  _assert_restored(manager.restore(_server(0), store), store, 20)


def test_a_named_round_is_restored(manager, store):
  _assert_restored(manager.restore(_server(0), store, 10), store, 10)
  with pytest.raises(
    checkpoints.CheckpointError, match=r'of round 7 .* there are \[10, 20\]'
  ):
    manager.restore(_server(0), store, 7)


def test_nothing_to_restore(tmp_path, store):
  manager = checkpoints.CheckpointManager(str(tmp_path / 'new'))
  assert manager.restore(_server(0), store) is None


def _truncate(path):
  path.write_bytes(path.read_bytes()[:-20])


def _flip(path):
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(content)


@pytest.mark.parametrize(
  'name, damage',
  [
    (name, damage)
    for name in (
      'round_000020/server.npz',
      'clients/client_000005-*.npz',
      'round_000020/history.json',
      'round_000020/manifest.json',
    )
    for damage in (_truncate, _flip, os.remove)
  ],
)
def test_a_damaged_checkpoint_is_skipped_and_named(
  manager, store, tmp_path, caplog, name, damage
):
  # The newest of them.
  damage(max(tmp_path.glob(name), key=lambda path: path.stat().st_mtime_ns))
  with caplog.at_level(logging.WARNING, logger='absl'):
    restored = manager.restore(_server(0), store)
  _assert_restored(restored, store, 10)
  assert 'round_000020 is damaged and is skipped' in caplog.text


def test_no_whole_checkpoint_is_an_error_that_says_what_to_do(
  manager, store, tmp_path
):
  for round_num in (10, 20):
    _truncate(tmp_path / f'round_0000{round_num}/server.npz')
  with pytest.raises(
    checkpoints.CheckpointError,
    match=r'None of .*\[10, 20\].* remove it: the run then starts again',
  ):
    manager.restore(_server(0), store)


class _Server(NamedTuple):
  anchors: Any
  prototypes: Any


class _Exchanged(NamedTuple):
  prototypes: Any
  anchors: Any


def test_values_are_known_by_their_paths(manager, store):
  server = {
    'round': np.int32(30),
    'model': _Server(np.ones([2]), np.zeros([2])),
  }
  manager.save(30, server, store, [])
  zeros = np.zeros([2])
  exchanged = {'model': _Exchanged(zeros, zeros), 'round': np.int32(0)}
  found = manager.restore(exchanged, store).server_state
  np.testing.assert_array_equal(found['model'].anchors, np.ones([2]))
  np.testing.assert_array_equal(found['model'].prototypes, np.zeros([2]))


@pytest.mark.parametrize(
  'structure, said',
  [
    (
      {'round': np.int32(0), 'anchors': np.zeros([2, 3])},
      r'anchors: expected float64\[2, 3\], found float64\[2, 2\]',
    ),
    (
      {'round': np.float32(0), 'anchors': np.zeros([2, 2])},
      r'round: expected float32\[\], found int32\[\]',
    ),
    (
      {'round': np.int32(0)},
      r'anchors: expected nothing, found float64\[2, 2\]',
    ),
    (
      {'round': np.int32(0), 'anchor': np.zeros([2, 2])},
      r'anchor: expected float64\[2, 2\], found nothing; anchors: expected '
      'nothing',
    ),
  ],
)
def test_another_structure_is_refused_by_name(manager, store, structure, said):
  with pytest.raises(checkpoints.StructureError, match=said):
    manager.restore(structure, store)


def test_states_of_other_models_are_refused(manager):
  def other(client_id):
    return _client(client_id)._replace(weights=np.zeros([4], np.float32))

  store = client_store.MemoryStore(other)
  with pytest.raises(
    checkpoints.StructureError, match=r'Client 5: expected weights float32\[4\]'
  ):
    manager.restore(_server(0), store)
  assert store.client_ids() == []


def test_what_is_no_number_is_refused_when_it_is_saved(manager, store):
  with pytest.raises(
    checkpoints.CheckpointError, match="'name'.* found object"
  ):
    manager.save(30, {'name': object()}, store, [])
  assert manager.rounds() == [10, 20]


@pytest.mark.parametrize(
  'change',
  [
    lambda manifest: manifest.update(sha256={}),
    lambda manifest: manifest.pop('sha256'),
    lambda manifest: manifest.pop('checksum'),
    lambda manifest: manifest.update(clients={}),
    lambda manifest: manifest.update(round_num=21),
    lambda manifest: manifest.update(version=3),
  ],
)
def test_a_manifest_that_was_changed_is_damage(
  manager, store, tmp_path, change
):
  path = tmp_path / 'round_000020/manifest.json'
  manifest = json.loads(path.read_text())
  change(manifest)
  path.write_text(json.dumps(manifest))
  _assert_restored(manager.restore(_server(0), store), store, 10)


def test_a_checkpoint_under_another_name_is_damage(manager, store, tmp_path):
  (tmp_path / 'round_000020').rename(tmp_path / 'round_000021')
  _assert_restored(manager.restore(_server(0), store), store, 10)


def test_an_unreadable_checkpoint_is_no_damage(manager, store, monkeypatch):
  """It must not be skipped: the next one would replace it."""

  def refuse(path):
    raise PermissionError(13, 'Permission denied', path)

  monkeypatch.setattr(files, 'read_json', refuse)
  with pytest.raises(PermissionError):
    manager.restore(_server(0), store)


_VERSION_1 = pathlib.Path(__file__).parents[1] / 'testdata/checkpoints_v1'


def _copy_version_1(tmp_path):
  directory = tmp_path / 'old'
  shutil.copytree(_VERSION_1, directory)
  return directory


def _version_1_structure(tmp_path):
  """A structure as that of `composer.ServerState` was."""
  arrays = files.read_npz(str(_VERSION_1 / 'round_000002/server.npz'))
  return [np.zeros_like(arrays[f'leaf_{i}']) for i in range(len(arrays))]


def _version_1_client(client_id):
  path = _VERSION_1 / f'round_000002/clients/client_{client_id:06d}.npz'
  return client_store.decode(path.read_bytes())


@pytest.mark.parametrize('where', ['memory', 'disk'])
def test_version_1_is_read_and_goes_on_as_version_2(tmp_path, where):
  directory = _copy_version_1(tmp_path)
  structure = _version_1_structure(tmp_path)
  store = (
    client_store.MemoryStore(_version_1_client)
    if where == 'memory'
    else client_store.DiskStore(_version_1_client, str(tmp_path / 'states'))
  )
  manager = checkpoints.CheckpointManager(str(directory), keep=1)
  restored = manager.restore(structure, store)
  assert restored.round_num == 2
  assert [row['round'] for row in restored.history] == [0, 1, 2]
  assert store.client_ids() == [2, 3]
  manager.save(3, restored.server_state, store, restored.history)
  assert manager.rounds() == [3]
  # The states were copied: those of version 1 are gone.
  store.clear()
  again = manager.restore(structure, store)
  for one, other in zip(again.server_state, restored.server_state, strict=True):
    np.testing.assert_array_equal(one, other)
  for client_id in (2, 3):
    for one, other in zip(
      store.get(client_id), _version_1_client(client_id), strict=True
    ):
      np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize('change', ['no checksums', 'no client', 'flipped'])
def test_damage_of_version_1_is_found(tmp_path, change):
  directory = _copy_version_1(tmp_path)
  path = directory / 'round_000002/manifest.json'
  manifest = json.loads(path.read_text())
  if change == 'no checksums':
    manifest['sha256'] = {}
  elif change == 'no client':
    del manifest['sha256']['clients/client_000003.npz']
  else:
    _flip(directory / 'round_000002/clients/client_000003.npz')
  path.write_text(json.dumps(manifest))
  manager = checkpoints.CheckpointManager(str(directory))
  with pytest.raises(checkpoints.CheckpointError, match=r'None of .*\[2\]'):
    manager.restore(
      _version_1_structure(tmp_path),
      client_store.MemoryStore(_version_1_client),
    )


def test_states_that_no_checkpoint_needs_are_removed(tmp_path):
  manager = checkpoints.CheckpointManager(str(tmp_path), keep=2)
  store = client_store.MemoryStore(_client)
  for round_num in range(1, 8):
    store.put(round_num % 3, _client(round_num))
    manager.save(round_num, _server(round_num), store, [])
  # Three clients, and the one that changed since the checkpoint before.
  assert len(os.listdir(tmp_path / 'clients')) == 4
  assert sorted(os.listdir(tmp_path)) == [
    'clients',
    'round_000006',
    'round_000007',
  ]


def test_going_back_takes_the_later_ones_away(manager, store, tmp_path):
  """They are damaged; counted as the latest, they would push out new ones."""
  _flip(tmp_path / 'round_000020/server.npz')
  restored = manager.restore(_server(0), store)
  manager.save(11, restored.server_state, store, restored.history)
  assert manager.rounds() == [10, 11]


@pytest.mark.parametrize('failing_write', [1, 2, 3, 4])
def test_a_full_disk_leaves_the_older_checkpoints(
  manager, store, tmp_path, monkeypatch, failing_write
):
  write_bytes, calls = files.write_bytes, []

  def full(path, content):
    calls.append(path)
    if len(calls) == failing_write:
      raise OSError(28, 'No space left on device', path)
    write_bytes(path, content)

  monkeypatch.setattr(files, 'write_bytes', full)
  with pytest.raises(
    checkpoints.CheckpointError,
    match=r'round 30 .*No space left.*\[10, 20\] are intact',
  ):
    _save(manager, 30)
  assert manager.rounds() == [10, 20]
  _assert_restored(manager.restore(_server(0), store), store, 20)


def test_what_a_killed_save_left_is_cleared(manager, store, tmp_path):
  (tmp_path / 'incomplete-000030').mkdir()
  (tmp_path / 'incomplete-000030/server.npz').write_bytes(b'half')
  _assert_restored(manager.restore(_server(0), store), store, 20)
  _save(manager, 30)
  assert sorted(os.listdir(tmp_path)) == [
    'clients',
    'round_000020',
    'round_000030',
  ]


def test_a_round_that_is_saved_again_is_replaced(manager, store):
  _save(manager, 20)
  _assert_restored(manager.restore(_server(0), store), store, 20)


def test_keep_is_checked(tmp_path):
  with pytest.raises(ValueError, match='keep >= 1, found 0'):
    checkpoints.CheckpointManager(str(tmp_path), keep=0)
