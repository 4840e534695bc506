"""Both stores keep states, take snapshots and go back to them exactly."""

import os

import numpy as np
import pytest

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


def test_restore_forgets_later_puts(store, tmp_path):
  snapshot = tmp_path / 'snapshot'
  snapshot.mkdir()
  store.put(1, _state(0.5))
  store.snapshot(str(snapshot))
  store.put(1, _state(9))
  store.put(3, _state(9))
  store.restore(str(snapshot))
  assert store.client_ids() == [1]
  _assert_equal(store.get(1), _state(0.5))
  _assert_equal(store.get(3), _state(3))
  # The snapshot is not the store: a later put leaves it alone.
  store.put(1, _state(8))
  store.restore(str(snapshot))
  _assert_equal(store.get(1), _state(0.5))


def test_states_on_disk_outlive_the_store(tmp_path):
  first = client_store.DiskStore(_state, str(tmp_path))
  first.put(11, _state(0.5))
  second = client_store.DiskStore(_state, str(tmp_path))
  _assert_equal(second.get(11), _state(0.5))


def test_snapshots_work_without_hard_links(tmp_path, monkeypatch):
  def no_links(*_):
    raise OSError('not supported')

  monkeypatch.setattr(os, 'link', no_links)
  (tmp_path / 'snapshot').mkdir()
  store = client_store.DiskStore(_state, str(tmp_path / 'states'))
  store.put(0, _state(0.5))
  store.snapshot(str(tmp_path / 'snapshot'))
  store.put(0, _state(9))
  store.restore(str(tmp_path / 'snapshot'))
  _assert_equal(store.get(0), _state(0.5))


def test_population_bytes_are_those_of_all_states():
  def initial_state_fn(client_id):
    # Two architectures, of 5 and 1000 weights.
    size = 5 if client_id % 2 == 0 else 1000
    return _state(0)._replace(weights=np.zeros([size], np.float32))

  for num_clients in (1, 2, 5):
    expected = sum(
      np.asarray(part).nbytes
      for client_id in range(num_clients)
      for part in initial_state_fn(client_id)
    )
    found = client_store.population_bytes(initial_state_fn, num_clients, 2)
    assert found == expected
