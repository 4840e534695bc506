"""Both stores keep states, take snapshots and go back to them exactly."""

import errno
import os

import numpy as np
import pytest

from tff_fedsa import files
from tff_fedsa.client import client_state
from tff_fedsa.client import client_store


def _state(value):
  return client_state.ClientState(
    architecture=np.int32(1),
    weights=np.full([5], value, np.float32),
    optimizer=np.zeros([0], np.float32),
    prototypes=np.full([2, 3], -value, np.float32),
    counts=np.float32([1, 0]),
    seed=np.int32([7, 8]),
  )


def _assert_equal(found, expected):
  for name in client_state.ClientState._fields:
    a, b = np.asarray(getattr(found, name)), np.asarray(getattr(expected, name))
    np.testing.assert_array_equal(a, b)
    assert (a.dtype, a.shape) == (b.dtype, b.shape), name


@pytest.fixture(params=['memory', 'disk'])
def store(request, tmp_path):
  def initial_state_fn(client_id):
    return _state(client_id)

  if request.param == 'memory':
    return client_store.MemoryStore(initial_state_fn)
  return client_store.DiskStore(initial_state_fn, str(tmp_path / 'states'))


def test_a_client_that_was_never_put_has_its_initial_state(store):
  _assert_equal(store.get(4), _state(4))
  assert store.client_ids() == []


def test_put_replaces(store):
  store.put(4, _state(0.5))
  store.put(2, _state(0.25))
  store.put(4, _state(0.75))
  _assert_equal(store.get(4), _state(0.75))
  assert store.client_ids() == [2, 4]


def _saved(tmp_path, name='saved'):
  (tmp_path / name).mkdir(exist_ok=True)
  return str(tmp_path / name)


def test_loading_forgets_later_puts(store, tmp_path):
  directory = _saved(tmp_path)
  store.put(1, _state(0.5))
  saved = store.save(directory)
  store.put(1, _state(9))
  store.put(3, _state(9))
  store.load(directory, saved)
  assert store.client_ids() == [1]
  _assert_equal(store.get(1), _state(0.5))
  _assert_equal(store.get(3), _state(3))
  # What is saved is not the store: a later put leaves it alone.
  store.put(1, _state(8))
  store.load(directory, saved)
  _assert_equal(store.get(1), _state(0.5))


def test_only_what_changed_is_written(store, tmp_path, monkeypatch):
  directory = _saved(tmp_path)
  for client_id in range(5):
    store.put(client_id, _state(client_id))
  first = store.save(directory)
  store.put(3, _state(9))
  written = []
  replace = os.replace
  monkeypatch.setattr(
    os, 'replace', lambda a, b: (written.append(b), replace(a, b))
  )
  second = store.save(directory)
  assert [os.path.basename(path) for path in written] == [second[3].name]
  assert {i for i in first if first[i] != second[i]} == {3}
  # The first is whole still.
  store.load(directory, first)
  _assert_equal(store.get(3), _state(3))
  assert store.save(directory) == first


def test_another_directory_gets_everything(store, tmp_path):
  store.put(1, _state(0.5))
  store.put(2, _state(0.25))
  store.save(_saved(tmp_path))
  saved = store.save(_saved(tmp_path, 'other'))
  store.clear()
  store.load(str(tmp_path / 'other'), saved)
  assert store.client_ids() == [1, 2]
  _assert_equal(store.get(1), _state(0.5))
  # Neither was taken from the other.
  assert len(os.listdir(tmp_path / 'saved')) == 2


def test_memory_writes_again_what_was_removed(tmp_path):
  directory = _saved(tmp_path)
  store = client_store.MemoryStore(_state)
  store.put(1, _state(0.5))
  (file,) = store.save(directory).values()
  os.remove(os.path.join(directory, file.name))
  assert store.save(directory) == {1: file}
  assert os.listdir(directory) == [file.name]


def test_live_states_and_saved_ones_share_no_file(store, tmp_path):
  directory = _saved(tmp_path)
  store.put(1, _state(0.5))
  saved = store.save(directory)
  inode = (tmp_path / 'saved' / saved[1].name).stat().st_ino
  store.load(directory, saved)
  live = [
    path.stat()
    for path in tmp_path.rglob('*.npz')
    if path.parent.name != 'saved'
  ]
  assert inode not in [one.st_ino for one in live]
  assert (tmp_path / 'saved' / saved[1].name).stat().st_nlink == 1


def test_a_new_store_is_empty_whatever_lies_in_its_directory(tmp_path):
  first = client_store.DiskStore(_state, str(tmp_path))
  first.put(11, _state(0.5))
  second = client_store.DiskStore(_state, str(tmp_path))
  assert second.client_ids() == []
  _assert_equal(second.get(11), _state(11))
  second.clear()
  assert os.listdir(tmp_path) == []


@pytest.mark.parametrize('damage', ['missing', 'flipped', 'cut'])
def test_damage_is_named_and_leaves_the_store_alone(store, tmp_path, damage):
  directory = _saved(tmp_path)
  store.put(1, _state(0.5))
  store.put(2, _state(0.5))
  saved = store.save(directory)
  store.put(1, _state(9))
  path = tmp_path / 'saved' / saved[2].name
  content = bytearray(path.read_bytes())
  if damage == 'missing':
    path.unlink()
  elif damage == 'flipped':
    content[200] ^= 1
    path.write_bytes(content)
  else:
    path.write_bytes(content[:-1])
  with pytest.raises(client_store.DamagedStateError, match=saved[2].name):
    store.load(directory, saved)
  assert store.client_ids() == [1, 2]
  _assert_equal(store.get(1), _state(9))


@pytest.mark.parametrize(
  'changes, said',
  [
    (
      {'weights': np.zeros([6], np.float32)},
      r'Client 1: expected weights float32\[5\], found float32\[6\]',
    ),
    (
      {'weights': np.zeros([5], np.float64)},
      r'expected weights float32\[5\], found float64\[5\]',
    ),
    (
      {'prototypes': np.zeros([3, 2], np.float32)},
      r'expected prototypes float32\[2, 3\], found float32\[3, 2\]',
    ),
    (
      {'private': np.zeros([1, 1], np.float32)},
      r'expected private float32\[0\], found float32\[1, 1\]',
    ),
  ],
)
def test_states_of_other_models_are_refused(store, tmp_path, changes, said):
  directory = _saved(tmp_path)
  store.put(1, _state(0.5)._replace(**changes))
  saved = store.save(directory)
  with pytest.raises(client_store.OtherStateError, match=said):
    store.load(directory, saved)


def test_what_a_method_keeps_besides_may_grow(store, tmp_path):
  directory = _saved(tmp_path)
  state = _state(0.5)._replace(private=np.ones([7], np.float32))
  store.put(1, state)
  store.load(directory, store.save(directory))
  _assert_equal(store.get(1), state)


def test_other_fields_are_refused():
  arrays = _state(1)._asdict()
  arrays['momentum'] = arrays.pop('optimizer')
  with pytest.raises(client_store.OtherStateError, match='momentum'):
    client_store.decode(files.npz_bytes(arrays))


def test_states_move_between_file_systems(tmp_path, monkeypatch):
  directory = _saved(tmp_path)
  store = client_store.DiskStore(_state, str(tmp_path / 'states'))
  store.put(0, _state(0.5))
  replace = os.replace

  def refuse(source, target):
    if os.path.dirname(source) != os.path.dirname(target):
      raise OSError(errno.EXDEV, 'Invalid cross-device link')
    replace(source, target)

  monkeypatch.setattr(os, 'replace', refuse)
  saved = store.save(directory)
  _assert_equal(store.get(0), _state(0.5))
  store.put(0, _state(9))
  store.load(directory, saved)
  _assert_equal(store.get(0), _state(0.5))


@pytest.mark.parametrize('turns', [(0, 1), (0, 0, 1), (1, 0, 1, 1)])
def test_population_bytes_are_those_of_all_states(turns):
  def initial_state_fn(client_id):
    size = (5, 1000)[turns[client_id % len(turns)]]
    return _state(0)._replace(weights=np.zeros([size], np.float32))

  for num_clients in (1, 2, 5):
    expected = sum(
      np.asarray(part).nbytes
      for client_id in range(num_clients)
      for part in initial_state_fn(client_id)
    )
    found = client_store.population_bytes(initial_state_fn, num_clients, turns)
    assert found == expected
