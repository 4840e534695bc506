"""Postpones removals from TensorFlow's registry while graphs are executed.

To prepare a graph with Keras's LSTM or GRU (anything with `api_implements`),
TensorFlow 2.14 lists the names of all functions of the process, and then looks
up each. It crashes if a function is gone meanwhile (`ReachableFunctions`,
core/framework/function.cc). A function goes when Python frees a `tf.function`,
in any thread.
"""

import collections
from collections.abc import Callable, Iterator
import contextlib
import threading
from typing import Any

from tensorflow.python.eager import context


class _Removals:
  """Replaces `remove_function` of TensorFlow's eager context."""

  def __init__(self, remove_function: Callable[[Any], None]):
    self._remove_function = remove_function
    # Python may free a function, and call this, while it holds the lock.
    self._lock = threading.RLock()
    self._num_calls = 0
    self._postponed: collections.deque[Any] = collections.deque()

  def __call__(self, name: Any) -> None:
    with self._lock:
      if self._num_calls:
        self._postponed.append(name)
      else:
        self._remove_function(name)

  @contextlib.contextmanager
  def postponed(self) -> Iterator[None]:
    with self._lock:
      self._num_calls += 1
    try:
      yield
    finally:
      with self._lock:
        self._num_calls -= 1
        while self._postponed and not self._num_calls:
          self._remove_function(self._postponed.popleft())


_installing = threading.Lock()


def postponed() -> contextlib.AbstractContextManager[None]:
  """Returns a context. Removals within it wait until all contexts end."""
  eager_context = context.context()
  with _installing:
    removals = eager_context.remove_function
    if not isinstance(removals, _Removals):
      removals = _Removals(removals)
      eager_context.remove_function = removals
  return removals.postponed()
