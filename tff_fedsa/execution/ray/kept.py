"""Results that stay in the object store of the node that computed them."""

from collections.abc import Callable
import os
import tempfile
from typing import Any, Optional
import weakref

from etils import epy
import numpy as np

from tff_fedsa.execution import arrays

with epy.lazy_imports():
  import ray


class Kept:
  """A result in the store, with what it takes to compute it again.

  Attributes:
    call: The call whose result it is; None if there is a copy at the driver.
    node: Node that computed it.
    ref: Reference of the store. None if it is lost, or no longer needed.
    num_bytes: Its size.
    depth: Number of calls, one after the other, that computing it again takes.
  """

  def __init__(self, call: Any, node: str, ref: Any, num_bytes: int):
    self.call: Optional[Any] = call
    self.node = node
    self.ref = ref
    self.num_bytes = num_bytes
    self.depth = call.depth
    # Nodes that have it.
    self.nodes = {node}
    self.is_needed = True
    self._copy: Optional[Callable[[], np.ndarray]] = None

  def release(self) -> None:
    """Frees the store. A later result may still be computed from `call`."""
    self.is_needed = False
    self.ref = None

  def lose(self) -> None:
    """Notes that the store has lost it, and brings a copy back if possible."""
    self.ref = None
    self.nodes = set()
    if self._copy is not None:
      self.ref = ray.put(self._copy())

  def keep_copy(self, load: Callable[[], np.ndarray]) -> None:
    """Forgets the call: after a loss, `load` returns the array."""
    self._copy = load
    self.call = None
    self.depth = 0


class KeptArray(arrays.RemoteArray):
  """What users hold of a `Kept`. The store is freed when the last is gone."""

  def __init__(
    self,
    kept: Kept,
    dtype: np.dtype,
    shape: tuple[int, ...],
    get: Callable[[Kept], np.ndarray],
  ):
    super().__init__(dtype, shape)
    self.kept = kept
    self._get = get
    weakref.finalize(self, kept.release).atexit = False

  def fetch(self) -> np.ndarray:
    return self._get(self.kept)


class Copies:
  """Copies of results on the disk of the driver."""

  def __init__(self) -> None:
    self._folder = tempfile.TemporaryDirectory(prefix='tff_fedsa_states_')
    self._count = 0

  def add(self, kept: Kept, array: np.ndarray) -> None:
    """Writes a copy of a result, from which it is restored after a loss."""
    self._count += 1
    path = os.path.join(self._folder.name, f'{self._count}.npy')
    np.save(path, array, allow_pickle=False)
    weakref.finalize(kept, _remove, path).atexit = False
    kept.keep_copy(lambda: np.load(path, allow_pickle=False))

  def close(self) -> None:
    """Removes all copies."""
    self._folder.cleanup()


def _remove(path: str) -> None:
  if os.path.exists(path):
    os.remove(path)
