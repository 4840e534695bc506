"""Checkpoints: exact, atomic, and the one before a damaged one is taken."""

import logging
import os

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
    for name in ('server.npz', 'clients/client_000005.npz', 'history.json')
    for damage in (_truncate, _flip, os.remove)
  ]
  # What a checksum says of other files can't say it of itself.
  + [('manifest.json', _truncate), ('manifest.json', os.remove)],
)
def test_a_damaged_checkpoint_is_skipped_and_named(
  manager, store, tmp_path, caplog, name, damage
):
  damage(tmp_path / 'round_000020' / name)
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
    checkpoints.CheckpointError, match=r'None of .*\[10, 20\].* Remove'
  ):
    manager.restore(_server(0), store)


def test_another_structure_is_refused(manager, store):
  wrong = {'round': np.int32(0), 'anchors': np.zeros([2, 3])}
  with pytest.raises(checkpoints.CheckpointError):
    manager.restore(wrong, store)
  with pytest.raises(checkpoints.CheckpointError):
    manager.restore({'round': np.int32(0)}, store)


@pytest.mark.parametrize('failing_write', [1, 2, 3, 4])
def test_a_full_disk_leaves_the_older_checkpoints(
  manager, store, tmp_path, monkeypatch, failing_write
):
  write_bytes, calls = files.write_bytes, []

  def full(path, content):
    calls.append(path)
    if len(calls) == failing_write:
      raise OSError(28, 'No space left on device')
    write_bytes(path, content)

  monkeypatch.setattr(files, 'write_bytes', full)
  with pytest.raises(
    checkpoints.CheckpointError,
    match=r'round 30 .*No space left.*\[10, 20\] are intact',
  ):
    _save(manager, 30)
  assert sorted(os.listdir(tmp_path)) == ['round_000010', 'round_000020']
  _assert_restored(manager.restore(_server(0), store), store, 20)


def test_what_a_killed_save_left_is_cleared(manager, store, tmp_path):
  (tmp_path / 'incomplete-000030').mkdir()
  (tmp_path / 'incomplete-000030/server.npz').write_bytes(b'half')
  _assert_restored(manager.restore(_server(0), store), store, 20)
  _save(manager, 30)
  assert sorted(os.listdir(tmp_path)) == ['round_000020', 'round_000030']


def test_a_round_that_is_saved_again_is_replaced(manager, store):
  _save(manager, 20)
  _assert_restored(manager.restore(_server(0), store), store, 20)


def test_keep_is_checked(tmp_path):
  with pytest.raises(ValueError, match='keep >= 1, found 0'):
    checkpoints.CheckpointManager(str(tmp_path), keep=0)
