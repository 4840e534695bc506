"""Stops TensorFlow functions in other threads."""

from collections.abc import Iterator
import contextlib
import threading

from tensorflow.python.eager import cancellation

_current = threading.local()


class Cancelled(Exception):
  """The call was stopped before this client's turn, or during it."""


class Cancellation:
  """Stops all functions of one call of a computation."""

  def __init__(self) -> None:
    self._lock = threading.Lock()
    self._managers: set[cancellation.CancellationManager] = set()
    self._is_cancelled = False

  @property
  def is_cancelled(self) -> bool:
    return self._is_cancelled

  def cancel(self) -> None:
    """Stops the running functions, each between two operations."""
    with self._lock:
      self._is_cancelled = True
      managers = list(self._managers)
    for manager in managers:
      manager.start_cancel()

  @contextlib.contextmanager
  def manager(self) -> Iterator[cancellation.CancellationManager]:
    """Yields TensorFlow's manager for one run of a function.

    Each run has its own manager, because TensorFlow cancels the manager of a
    failing function. With a shared manager, the other runs would stop, too.

    Raises:
      Cancelled: If the call was cancelled before.
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
    """Lets `cancel` stop the functions of this thread within `with`."""
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
