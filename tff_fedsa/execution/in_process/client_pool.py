"""Computes clients, a bounded number at a time on each device."""

from collections.abc import Callable, Sequence
from concurrent import futures
import logging
import threading
from typing import Any, NamedTuple, Optional, Protocol

import tensorflow as tf

from tff_fedsa.execution.in_process import cancellation


class Pool(Protocol):
  """Computes clients, here or elsewhere: see `ClientPool`."""

  devices: list[str]

  def map(
    self, fn: Callable[..., Any], arguments: Sequence[tuple]
  ) -> list[Any]: ...

  def close(self) -> None: ...


class _Exhausted(NamedTuple):
  """In place of the result of a client for which memory was too small."""

  error: Exception


_REMEDY = (
  'Memory is too small for a client. What helps: --max_concurrent_clients=1, '
  'no --batch_clients, a smaller --client_batch_size, smaller images or '
  'models, more devices.'
)


class ClientPool:
  """Runs a function for each client; client i on device i mod n.

  Attributes:
    devices: Names of the devices. The server's work runs on the first.
    clients_per_device: Clients at a time on each device. It falls when memory
      is too small.
  """

  def __init__(self, devices: Sequence[str], clients_per_device: int):
    """Starts the threads, `clients_per_device` for each device."""
    self.devices = list(devices)
    self.clients_per_device = clients_per_device
    self._threads = self._start(clients_per_device)
    self._lock = threading.Lock()

  def map(
    self,
    fn: Callable[..., Any],
    arguments: Sequence[tuple],
    names: Optional[Sequence[str]] = None,
  ) -> list[Any]:
    """Returns `fn(*arguments[i])` for each client i.

    Clients for which a device has too little memory are computed again, with
    half as many at a time from then on. Each client starts from its arguments,
    so results do not change.

    Args:
      fn: The function.
      arguments: Those of each client.
      names: What errors call the clients. Default: client 0 of 10, and so on.

    Raises:
      tf.errors.ResourceExhaustedError: If memory is too small for that, too.
      Exception: The error of the first client (by number), with a note that
        names it and its device. The other clients are stopped.
      cancellation.Cancelled: If the call was cancelled from outside.
    """
    at_a_time = self.clients_per_device
    if names is None:
      count = len(arguments)
      names = [f'client {client} of {count}' for client in range(count)]
    results = self._map(fn, arguments, names, range(len(names)), at_a_time > 1)
    exhausted = [i for i, one in results.items() if isinstance(one, _Exhausted)]
    if exhausted:
      self._use_fewer(at_a_time, exhausted, results[exhausted[0]].error)
      results |= self._map(fn, arguments, names, exhausted, False)
    return [results[client] for client in range(len(arguments))]

  def _map(
    self,
    fn: Callable[..., Any],
    arguments: Sequence[tuple],
    names: Sequence[str],
    clients: Sequence[int],
    may_exhaust: bool,
  ) -> dict[int, Any]:
    """Returns results by client, `_Exhausted` ones only if `may_exhaust`."""
    call = cancellation.current()

    def run(client: int) -> Any:
      device = self.devices[client % len(self.devices)]
      if call.is_cancelled:
        raise cancellation.Cancelled
      try:
        with call.active(), tf.device(device):
          return fn(*arguments[client])
      except Exception as error:
        if call.is_cancelled:
          # The client was stopped because of another client, or by the user.
          raise cancellation.Cancelled from error
        if isinstance(error, tf.errors.ResourceExhaustedError):
          if may_exhaust:
            return _Exhausted(error)
          error.add_note(_REMEDY)
        call.cancel()
        error.add_note(f'raised by {names[client]} on {device}')
        raise

    running = {
      client: self._threads[client % len(self.devices)].submit(run, client)
      for client in clients
    }
    futures.wait(running.values())
    errors = [future.exception() for future in running.values()]
    for error in errors:
      if error is not None and not isinstance(error, cancellation.Cancelled):
        raise error
    if any(errors):
      raise cancellation.Cancelled
    return {client: future.result() for client, future in running.items()}

  def _use_fewer(
    self, before: int, exhausted: Sequence[int], error: Exception
  ) -> None:
    """Halves the clients at a time, unless another call already has."""
    with self._lock:
      if self.clients_per_device == before:
        old = self._threads
        self.clients_per_device = before // 2
        self._threads = self._start(self.clients_per_device)
        for threads in old:
          threads.shutdown(wait=False)
    logging.warning(
      'Memory was too small for %d clients at a time on a device: %d of them '
      'are computed again, and %d at a time from now on '
      '(--max_concurrent_clients). %s',
      before,
      len(exhausted),
      self.clients_per_device,
      str(error).partition('\n')[0],
    )

  def _start(self, clients_per_device: int) -> list[futures.Executor]:
    return [
      futures.ThreadPoolExecutor(
        clients_per_device, thread_name_prefix=f'clients-{device}'
      )
      for device in self.devices
    ]

  def close(self) -> None:
    """Ends the threads."""
    for threads in self._threads:
      threads.shutdown(wait=False, cancel_futures=True)
