"""Clients at a time, and what happens if memory is too small for them."""

import logging
import threading

import pytest
import tensorflow as tf

from tff_fedsa.execution.in_process import cancellation
from tff_fedsa.execution.in_process import client_pool


class _Memory:
  """A function of clients for which only some fit into memory at a time."""

  def __init__(self, fitting, *, hungry=()):
    self._fitting = fitting
    self._hungry = hungry
    self._lock = threading.Lock()
    self._full = threading.Barrier(2, timeout=120)
    self.active = 0
    self.calls = []

  def __call__(self, client):
    with self._lock:
      self.active += 1
      self.calls.append(client)
      exhausted = self.active > self._fitting or client in self._hungry
    try:
      if self._fitting == 1 and client < 2 and self.calls.count(client) == 1:
        # The first two are there at the same time.
        self._full.wait()
      if exhausted:
        raise tf.errors.ResourceExhaustedError(None, None, 'OOM\nmore')
      return client * 10
    finally:
      with self._lock:
        self.active -= 1


@pytest.fixture
def mapped():
  """Returns `mapped(pool, fn, num_clients)` within a call."""

  def run(pool, fn, num_clients):
    with cancellation.Cancellation().active():
      return pool.map(fn, [(i,) for i in range(num_clients)])

  return run


def test_clients_are_computed_again_if_memory_was_too_small(mapped, caplog):
  pool = client_pool.ClientPool(['/CPU:0'], 2)
  memory = _Memory(fitting=1)
  with caplog.at_level(logging.WARNING):
    assert mapped(pool, memory, 3) == [0, 10, 20]
  assert pool.clients_per_device == 1
  assert 'too small for 2 clients at a time' in caplog.text
  assert (
    'OOM' in caplog.text and 'more' not in caplog.messages[0].split('OOM')[1]
  )
  # One of the first two was computed twice, at least.
  assert len(memory.calls) > len(set(memory.calls)) == 3
  # From now on they fit.
  caplog.clear()
  memory.calls.clear()
  memory._fitting = 10
  assert mapped(pool, memory, 4) == [0, 10, 20, 30]
  assert len(memory.calls) == 4 and not caplog.records
  pool.close()


@pytest.mark.parametrize('at_a_time', [1, 4])
def test_one_client_that_never_fits_is_an_error_with_a_remedy(
  mapped, at_a_time
):
  pool = client_pool.ClientPool(['/CPU:0'], at_a_time)
  memory = _Memory(fitting=10, hungry=[1])
  with pytest.raises(tf.errors.ResourceExhaustedError) as raised:
    mapped(pool, memory, 3)
  notes = ' '.join(raised.value.__notes__)
  assert '--max_concurrent_clients=1' in notes
  assert 'raised by client 1 of 3' in notes
  assert memory.calls.count(1) == (1 if at_a_time == 1 else 2)
  pool.close()


def test_other_errors_are_not_tried_again(mapped):
  pool = client_pool.ClientPool(['/CPU:0'], 2)
  calls = []

  def fail(client):
    calls.append(client)
    raise ZeroDivisionError

  with pytest.raises(ZeroDivisionError):
    mapped(pool, fail, 2)
  assert len(calls) == len(set(calls)) and pool.clients_per_device == 2
  pool.close()
