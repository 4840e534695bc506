"""Clients by id, and their states as a value that may be saved."""

import numpy as np
import pytest

from tests.pipelines import small
from tff_fedsa.client import client_state
from tff_fedsa.client import client_store
from tff_fedsa.pipelines import population


def _state(number):
  return client_state.ClientState(
    architecture=np.int32(0),
    weights=np.full([3], number, np.float32),
    optimizer=np.zeros([0], np.float32),
    prototypes=np.zeros([2, 3], np.float32),
    counts=np.zeros([2], np.float32),
    seed=np.array([0, number], np.int32),
  )


@pytest.fixture(params=['memory', 'disk'])
def clients(request, tmp_path):
  if request.param == 'memory':
    store = client_store.MemoryStore(_state)
  else:
    store = client_store.DiskStore(_state, str(tmp_path))
  return population.Population(['a', 'b', 'c'], store)


def _numbers(clients):
  return [int(s.weights[0]) for s in clients.states(clients.client_ids)]


def test_ids_are_positions_in_the_store(clients):
  clients.put(['c', 'a'], [_state(7), _state(8)])
  assert _numbers(clients) == [8, 1, 7]
  assert clients.store.client_ids() == [0, 2]


def test_states_go_through_bytes(clients):
  clients.put(['b'], [_state(7)])
  saved = clients.client_states().to_bytes()
  clients.put(['a', 'b'], [_state(8), _state(9)])
  assert _numbers(clients) == [8, 9, 2]
  loaded = population.ClientStates.from_bytes(saved)
  clients.restore(loaded)
  # `a` had not been put: it is as at first again.
  assert _numbers(clients) == [0, 7, 2]
  # They are the current ones now, and saving them again costs nothing.
  assert clients.client_states() is loaded
  assert loaded.to_bytes() is saved or loaded.to_bytes() == saved


def test_current_states_are_a_reference(clients):
  current = clients.client_states()
  assert current is clients.client_states()
  assert current.store is clients.store
  clients.restore(current)  # nothing to do


def test_states_that_are_gone_say_so(clients):
  old = clients.client_states()
  kept = old.frozen()
  clients.put(['a'], [_state(7)])
  with pytest.raises(RuntimeError, match='the store holds the latest only'):
    old.to_bytes()
  with pytest.raises(RuntimeError, match='frozen'):
    clients.restore(old)
  assert _numbers(clients) == [7, 1, 2]
  clients.restore(kept)
  assert _numbers(clients) == [0, 1, 2]


def test_reset_forgets_everything(clients):
  clients.put(['a', 'c'], [_state(7), _state(8)])
  clients.reset()
  assert _numbers(clients) == [0, 1, 2]
  assert clients.store.client_ids() == []


def test_wrong_ids_are_named(clients):
  with pytest.raises(ValueError, match=r"client ids \[0\]; .* such as 'a'"):
    clients.states([0])
  with pytest.raises(ValueError, match='takes part once in a round'):
    clients.states(['a', 'b', 'a'])
  with pytest.raises(ValueError, match='each once'):
    population.Population(['a', 'a'], clients.store)


def test_clients_of_a_task():
  experiment = small.experiment()
  clients = experiment.population()
  assert clients.client_ids == ['0', '1', '2', '3']
  assert clients.train_fn('2') is experiment.task.clients[2].train
  assert clients.test_fn('2') is experiment.task.clients[2].test
