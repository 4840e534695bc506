"""Values that were sent stay in the object store: each node gets them once."""

import collections
import hashlib
import threading
from typing import Any
import weakref

from etils import epy
import numpy as np

from tff_fedsa.execution.ray import messages

with epy.lazy_imports():
  import ray

# So many computations after its only use a value is forgotten.
_MAX_COMPUTATIONS = 200


class Sent:
  """A value in the object store of this machine.

  Attributes:
    digest: Digest of its content.
    ref: Reference of the store.
    num_bytes: Its size.
    nodes: Nodes that have received it.
    is_repeated: Whether it was sent in several computations.
    used_in: Number of the latest computation.
  """

  def __init__(self, digest: bytes, ref: Any, num_bytes: int):
    self.digest = digest
    self.ref = ref
    self.num_bytes = num_bytes
    self.nodes: set[str] = set()
    self.is_repeated = False
    self.used_in = 0


class SentValues:
  """Puts each content into the store once, and forgets what is not repeated.

  Contents are compared by digest. So an array that was changed in place is
  sent again, and equal arrays are sent once. Ray moves values to the disk when
  its store is full.
  """

  def __init__(self, max_bytes: int):
    self._max_bytes = max_bytes
    self._bytes = 0
    self._computation = 0
    self._known: collections.OrderedDict[bytes, Sent] = (
      collections.OrderedDict()
    )
    # Data sets never change. Their bytes take long to make.
    self._of_objects: dict[int, tuple[Any, Sent]] = {}
    self._lock = threading.Lock()

  def put(self, leaf: messages.Leaf) -> Sent:
    """Returns the stored value of an encoded leaf."""
    digest = _digest(leaf)
    with self._lock:
      sent = self._known.get(digest)
      if sent is not None:
        sent.is_repeated |= sent.used_in != self._computation
        sent.used_in = self._computation
        self._known.move_to_end(digest)
        return sent
    sent = Sent(digest, ray.put(leaf), messages.num_bytes(leaf))
    with self._lock:
      if digest in self._known:
        return self._known[digest]
      sent.used_in = self._computation
      self._known[digest] = sent
      self._bytes += sent.num_bytes
      while self._bytes > self._max_bytes and len(self._known) > 1:
        _, oldest = self._known.popitem(last=False)
        self._bytes -= oldest.num_bytes
    return sent

  def next_computation(self) -> None:
    """Forgets values of one former computation, e.g. models and states."""
    with self._lock:
      self._computation += 1
      for digest, sent in list(self._known.items()):
        if self._computation - sent.used_in <= _MAX_COMPUTATIONS:
          break
        if not sent.is_repeated:
          del self._known[digest]
          self._bytes -= sent.num_bytes

  def of_object(self, owner: Any) -> Any:
    """Returns what `remember` was given for an object, or None."""
    entry = self._of_objects.get(id(owner))
    return None if entry is None else entry[1]

  def remember(self, owner: Any, sent: Any) -> None:
    """Keeps a result for an unchangeable object, as long as that exists."""
    key, known = id(owner), self._of_objects
    known[key] = (weakref.ref(owner, lambda _: known.pop(key, None)), sent)


def _digest(leaf: messages.Leaf) -> bytes:
  if isinstance(leaf, bytes):
    return hashlib.blake2b(leaf, digest_size=20).digest()
  array = np.ascontiguousarray(leaf)
  found = hashlib.blake2b(
    f'{array.dtype.str}{array.shape}'.encode(), digest_size=20
  )
  content: Any = array.reshape(-1).view(np.uint8)
  found.update(content)
  return found.digest()
