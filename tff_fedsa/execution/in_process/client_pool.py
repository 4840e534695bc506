"""Computes clients, a bounded number at a time on each device."""

from collections.abc import Callable, Sequence
from concurrent import futures
from typing import Any, Protocol

import tensorflow as tf

from tff_fedsa.execution.in_process import cancellation


class Pool(Protocol):
  """Computes clients, here or elsewhere: see `ClientPool`."""

  devices: list[str]

  def map(
    self, fn: Callable[..., Any], arguments: Sequence[tuple]
  ) -> list[Any]: ...

  def close(self) -> None: ...


class ClientPool:
  """Runs a function for each client; client i on device i mod n.

  Attributes:
    devices: Names of the devices. The server's work runs on the first.
    clients_per_device: Clients at a time on each device.
  """

  def __init__(self, devices: Sequence[str], clients_per_device: int):
    """Starts the threads, `clients_per_device` for each device."""
    self.devices = list(devices)
    self.clients_per_device = clients_per_device
    self._threads = [
      futures.ThreadPoolExecutor(
        clients_per_device, thread_name_prefix=f'clients-{device}'
      )
      for device in self.devices
    ]

  def map(
    self, fn: Callable[..., Any], arguments: Sequence[tuple]
  ) -> list[Any]:
    """Returns `fn(*arguments[i])` for each client i.

    Raises:
      Exception: The error of the first client (by number), with a note that
        names it and its device. The other clients are stopped.
      cancellation.Cancelled: If the call was cancelled from outside.
    """
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
        call.cancel()
        error.add_note(
          f'raised by client {client} of {len(arguments)} on {device}'
        )
        raise

    running = [
      self._threads[client % len(self.devices)].submit(run, client)
      for client in range(len(arguments))
    ]
    futures.wait(running)
    errors = [future.exception() for future in running]
    for error in errors:
      if error is not None and not isinstance(error, cancellation.Cancelled):
        raise error
    if any(errors):
      raise cancellation.Cancelled
    return [future.result() for future in running]

  def close(self) -> None:
    """Ends the threads."""
    for threads in self._threads:
      threads.shutdown(wait=False, cancel_futures=True)
