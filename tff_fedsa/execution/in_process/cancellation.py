"""Stopping the TensorFlow functions that run in other threads."""

from collections.abc import Iterator
import contextlib
import threading

from tensorflow.python.eager import cancellation

_current = threading.local()


class Cancelled(Exception):
  """The call was stopped before this client's turn, or during it."""


class Cancellation:
  """One for each call of a computation: stops all that runs for it."""

  def __init__(self) -> None:
    self._lock = threading.Lock()
    self._managers: set[cancellation.CancellationManager] = set()
    self._is_cancelled = False

  @property
  def is_cancelled(self) -> bool:
    return self._is_cancelled

  def cancel(self) -> None:
    """Stops the functions that run, each between two of its operations."""
    with self._lock:
      self._is_cancelled = True
      managers = list(self._managers)
    for manager in managers:
      manager.start_cancel()

  @contextlib.contextmanager
  def manager(self) -> Iterator[cancellation.CancellationManager]:
    """Yields TensorFlow's manager for one run of a function.

    Not one for all: TensorFlow itself cancels the manager of a function that
    fails, and the others could not tell whose fault it was.

    Raises:
      Cancelled: If the call is cancelled already.
    """
    manager = cancellation.CancellationManager()
    with self._lock:
      if self._is_cancelled:
        raise Cancelled
      self._managers.add(manager)
    try:
      yield manager
    finally:
      with self._lock:
        self._managers.remove(manager)

  @contextlib.contextmanager
  def active(self) -> Iterator[None]:
    """Functions that this thread runs meanwhile are stopped by `cancel`."""
    before = getattr(_current, 'value', None)
    _current.value = self
    try:
      yield
    finally:
      _current.value = before


def current() -> Cancellation:
  """Returns the cancellation that is active in this thread."""
  value = getattr(_current, 'value', None)
  if value is None:
    raise RuntimeError('Nothing is being called in this thread.')
  return value
