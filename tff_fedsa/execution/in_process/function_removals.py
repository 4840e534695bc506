"""No function leaves TensorFlow's registry while graphs are executed.

A graph with one of Keras's LSTMs or GRUs (with whatever is `api_implements`) is
prepared with all functions of the process in view: TensorFlow 2.14 lists their
names, then looks each of them up, and crashes if one is gone meanwhile
(`ReachableFunctions`, core/framework/function.cc). One goes whenever Python
frees a `tf.function`, in whatever thread its garbage is collected.
"""

import collections
from collections.abc import Callable, Iterator
import contextlib
import threading
from typing import Any

from tensorflow.python.eager import context


class _Removals:
  """Stands for `remove_function` of TensorFlow's eager context."""

  def __init__(self, remove_function: Callable[[Any], None]):
    self._remove_function = remove_function
    # Python may free a function, and come here, with the lock held.
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
  """Returns a context; functions freed within it leave when all such end."""
  eager_context = context.context()
  with _installing:
    removals = eager_context.remove_function
    if not isinstance(removals, _Removals):
      removals = _Removals(removals)
      eager_context.remove_function = removals
  return removals.postponed()
