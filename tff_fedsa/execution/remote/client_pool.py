"""Assigns clients to workers, and handles lost workers."""

import collections
from collections.abc import Callable, Sequence
from concurrent import futures
import os
import socket
import threading
import time
from typing import Any, Optional
import weakref

import tensorflow as tf
import tensorflow_federated as tff
from tensorflow_federated.python.core.impl.computation import computation_impl

from tff_fedsa.execution import functions
from tff_fedsa.execution import parcels
from tff_fedsa.execution.in_process import cancellation
from tff_fedsa.execution.in_process import client_pool
from tff_fedsa.execution.in_process import tensorflow_functions
from tff_fedsa.execution.remote import connection as connection_lib

_POLL_SECONDS = 0.1
_SECONDS_BETWEEN_CONNECTIONS = 1.0
# After so many losses with one client, the client is the likely cause.
_MAX_LOSSES_PER_CLIENT = 3


class WorkersLostError(ConnectionError):
  """No worker can be reached, or, at the start, not all."""


class Worker:
  """A worker, which may be lost and return.

  Attributes:
    address: 'host:port'.
    clients_at_a_time: Number of clients sent to the worker at a time.
    num_clients: Number of clients that it has computed.
  """

  def __init__(
    self, address: str, patience_seconds: float, clients_at_a_time: int
  ):
    """Starts to connect."""
    self.address = address
    self.clients_at_a_time = clients_at_a_time
    self.num_clients = 0
    self._patience = patience_seconds
    self._polling = threading.Lock()
    self._connected_at = time.monotonic()
    self.connection = connection_lib.Connection(address, patience_seconds)
    # Of the last connection that had been one.
    self._why_lost: Optional[str] = None

  @property
  def is_open(self) -> bool:
    return self.connection.is_open

  @property
  def state(self) -> str:
    """A description of the worker, for messages."""
    if self.is_open:
      return f'{self.address} (it answers)'
    self._note_loss()
    return f'{self.address} ({self._why_lost or _diagnose(self.address)})'

  def poll(self) -> None:
    """Checks whether the worker is alive. Reconnects if it is lost."""
    with self._polling:
      self.connection.poll()
      now = time.monotonic()
      if (
        self.connection.why_lost is not None
        and now - self._connected_at > _SECONDS_BETWEEN_CONNECTIONS
      ):
        self._note_loss()
        self._connected_at = now
        self.connection = connection_lib.Connection(
          self.address, self._patience
        )

  def _note_loss(self) -> None:
    if self.connection.was_open:
      self._why_lost = self.connection.why_lost


def _diagnose(address: str) -> str:
  """Returns the reason why a worker has never answered."""
  host, _, port = address.rpartition(':')
  try:
    socket.create_connection((host.strip('[]'), int(port)), 1.0).close()
  except OSError as error:
    return str(error)
  return "what listens there does not answer as TFF's worker"


class RemoteClientPool:
  """Runs a function for each client, on workers.

  A client goes to any free worker, because all give the same result. Clients of
  a lost worker go to other workers.

  Attributes:
    devices: Devices of the server's work, in this process.
    workers: The workers, in the order of their addresses.
  """

  def __init__(
    self,
    addresses: Sequence[str],
    clients_per_worker: Optional[int],
    deadline_seconds: float,
  ):
    """Connects to all workers.

    Args:
      addresses: 'host:port' of each worker.
      clients_per_worker: Clients sent to each worker at a time. Default: its
        cores.
      deadline_seconds: Time after which a silent worker is given up. If no
        worker is left, an error is raised.

    Raises:
      WorkersLostError: If a worker does not answer.
    """
    gpus = tf.config.list_logical_devices('GPU')
    self.devices = [(gpus or tf.config.list_logical_devices('CPU'))[0].name]
    self._here = client_pool.ClientPool(self.devices, os.cpu_count() or 1)
    # For 60 seconds: 5 between questions, 30 for an answer, 20 for any worker
    # to return.
    self.seconds_without_any = deadline_seconds / 3
    self.workers = [
      Worker(address, deadline_seconds / 2, clients_per_worker or 1)
      for address in addresses
    ]
    self._threads: dict[str, futures.ThreadPoolExecutor] = {}
    self._close_workers = weakref.finalize(self, _close, self.workers)
    try:
      self._wait_for_all(deadline_seconds / 6)
      if clients_per_worker is None:
        self._count_cores()
    except BaseException:
      self.close()
      raise
    for worker in self.workers:
      self._threads[worker.address] = futures.ThreadPoolExecutor(
        worker.clients_at_a_time, thread_name_prefix=f'clients-{worker.address}'
      )

  def _wait_for_all(self, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
      for worker in self.workers:
        worker.poll()
      if all(worker.is_open for worker in self.workers):
        return
      time.sleep(_POLL_SECONDS / 10)
    silent = [worker.state for worker in self.workers if not worker.is_open]
    raise WorkersLostError(
      f'{len(silent)} of {len(self.workers)} workers did not answer within '
      f'{seconds:.0f} s: {", ".join(silent)}. Start each on its host with '
      '`tff-fedsa worker --port=…`, see that this machine can reach '
      'that port (docs/runtimes.md), or leave the worker out.'
    )

  def _count_cores(self) -> None:
    """Sets the clients at a time of each worker to the cores of its machine."""
    with futures.ThreadPoolExecutor(len(self.workers)) as threads:
      counted = {
        threads.submit(_num_cores, worker): worker for worker in self.workers
      }
      while futures.wait(counted, _POLL_SECONDS).not_done:
        for worker in self.workers:
          worker.poll()  # Ends the waiting for a silent worker.
    for future, worker in counted.items():
      try:
        worker.clients_at_a_time = future.result()
      except connection_lib.WorkerLostError as error:
        raise WorkersLostError(
          f'{worker.address} was lost at the start: {error}'
        ) from error

  def map(self, fn: Any, arguments: Sequence[tuple]) -> list[Any]:
    """Returns `fn(*arguments[i])` for each client i.

    Raises:
      NotImplementedError: If workers cannot compute `fn`.
      WorkersLostError: If all workers are lost, or several were lost with the
        same client.
      Exception: The error of the first client (by number), with a note that
        names it and its worker. The other clients are stopped.
      cancellation.Cancelled: If the call was cancelled from outside.
    """
    function = functions.to_send(fn)
    if function is None or not arguments:
      return self._here.map(fn, arguments)
    return _Clients(self, function, arguments).run()

  def submit(
    self, worker: Worker, fn: Callable[..., Any], *arguments: Any
  ) -> futures.Future:
    """Runs a function in one of the worker's threads."""
    return self._threads[worker.address].submit(fn, *arguments)

  def close(self) -> None:
    """Ends the connections and the threads."""
    self._close_workers()
    self._here.close()
    for threads in self._threads.values():
      threads.shutdown(wait=False, cancel_futures=True)


class _Clients:
  """The clients of one call of `RemoteClientPool.map`."""

  def __init__(
    self,
    pool: RemoteClientPool,
    function: functions.Remote,
    arguments: Sequence[tuple],
  ):
    self._pool = pool
    self._function = function
    self._arguments = [
      argument[0] if argument else None for argument in arguments
    ]
    self._plan = None
    if function.type_signature.parameter is not None:
      self._plan = parcels.plan(
        self._arguments, function.type_signature.parameter
      )
    self._call = cancellation.current()
    self._waiting = collections.deque(range(len(arguments)))
    self._running: dict[futures.Future, tuple[int, Worker]] = {}
    self._results: list[Any] = [None] * len(arguments)
    self._errors: dict[int, BaseException] = {}
    self._lost_with: dict[int, list[str]] = collections.defaultdict(list)
    self._worker_seen_at = time.monotonic()

  def run(self) -> list[Any]:
    while self._waiting or self._running:
      self._send_out()
      done, _ = futures.wait(
        self._running, _POLL_SECONDS, futures.FIRST_COMPLETED
      )
      for future in done:
        self._receive(future)
    if self._errors:
      raise self._errors[min(self._errors)]
    if self._call.is_cancelled:
      raise cancellation.Cancelled
    return self._results

  def _send_out(self) -> None:
    """Gives waiting clients to free workers."""
    for worker in self._pool.workers:
      worker.poll()
    if self._call.is_cancelled:
      self._waiting.clear()
    load = collections.Counter(
      worker.address for _, worker in self._running.values()
    )
    while self._waiting:
      free = [
        worker
        for worker in self._pool.workers
        if worker.is_open and load[worker.address] < worker.clients_at_a_time
      ]
      if not free:
        break
      worker = min(free, key=lambda w: load[w.address] / w.clients_at_a_time)
      client = self._waiting.popleft()
      load[worker.address] += 1
      future = self._pool.submit(
        worker,
        worker.connection.run,
        self._function,
        self._plan,
        self._arguments[client],
        self._call,
      )
      self._running[future] = client, worker
    self._expect_a_worker()

  def _expect_a_worker(self) -> None:
    now = time.monotonic()
    if any(worker.is_open for worker in self._pool.workers):
      self._worker_seen_at = now
    elif not self._running and self._waiting:
      if now - self._worker_seen_at > self._pool.seconds_without_any:
        states = ', '.join(worker.state for worker in self._pool.workers)
        self._stop(
          self._waiting[0],
          WorkersLostError(
            f'All workers are lost: {states}. Start them again, and then the '
            'computation.'
          ),
        )
      else:
        time.sleep(_POLL_SECONDS)

  def _receive(self, future: futures.Future) -> None:
    client, worker = self._running.pop(future)
    error = future.exception()
    if error is None:
      worker.num_clients += 1
      self._results[client] = future.result()
    elif isinstance(error, connection_lib.WorkerLostError):
      lost_with = self._lost_with[client]
      lost_with.append(f'{worker.address} ({error})')
      if len(lost_with) < _MAX_LOSSES_PER_CLIENT:
        self._waiting.appendleft(client)
      else:
        # Clients on the same workers were lost as often, or soon will be.
        suspects = [
          other
          for other, losses in sorted(self._lost_with.items())
          if len(losses) >= _MAX_LOSSES_PER_CLIENT - 1
        ]
        # Clients on the same worker only see the end of the connection.
        reasons = dict.fromkeys(
          loss for suspect in suspects for loss in self._lost_with[suspect]
        )
        self._stop(
          client,
          WorkersLostError(
            f'One of the clients {suspects} seems to take its workers with it: '
            f'{", ".join(reasons)}. It may need more memory than a worker '
            'has, or return more than the 2 GB that a message holds.'
          ),
        )
    elif not isinstance(error, cancellation.Cancelled):
      error.add_note(
        f'raised by client {client} of {len(self._results)} on worker '
        f'{worker.address}'
      )
      self._stop(client, error)

  def _stop(self, client: int, error: BaseException) -> None:
    self._errors[client] = error
    self._call.cancel()


@tff.tensorflow.computation
def _count_cores():
  return tf.size(tf.io.matching_files('/sys/devices/system/cpu/cpu[0-9]*'))


def _num_cores(worker: Worker) -> int:
  """Asks a worker for the cores of its machine, by a computation."""
  function = tensorflow_functions.FunctionCache().get(
    computation_impl.ConcreteComputation.get_proto(_count_cores),
    _count_cores.type_signature,
  )
  call = cancellation.Cancellation()
  return max(1, int(worker.connection.run(function, None, None, call)))


def _close(workers: Sequence[Worker]) -> None:
  for worker in workers:
    worker.connection.close()
