"""The actor: computes clients' functions in its process, on its device."""

import collections
import os
import platform
import threading
import time
from typing import Any, Optional

from etils import epy

from tff_fedsa.execution import imports

with epy.lazy_imports():
  import ray
  import tensorflow as tf
  import tensorflow_federated as tff
  from tensorflow_federated.proto.v0 import computation_pb2

  from tff_fedsa.execution.in_process import cancellation
  from tff_fedsa.execution.in_process import contexts
  from tff_fedsa.execution.in_process import function_removals
  from tff_fedsa.execution.in_process import interpreter
  from tff_fedsa.execution.in_process import intrinsics
  from tff_fedsa.execution.ray import messages

_MAX_CANCELLED = 1000


def versions() -> dict[str, str]:
  """Returns the versions on which results depend."""
  import tff_fedsa

  return {
    'python': platform.python_version(),
    'tensorflow': tf.__version__,
    'tensorflow_federated': tff.__version__,
    'tff_fedsa': tff_fedsa.__version__,
  }


class Worker:
  """Computes clients with the in-process runtime."""

  def __init__(
    self,
    clients_at_a_time: int,
    intra_op_threads: Optional[int],
    deterministic_ops: bool,
    tf32: bool,
  ):
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
    imports.quickly('tff_fedsa.execution.in_process.contexts')
    if deterministic_ops:
      tf.config.experimental.enable_op_determinism()
    tf.config.experimental.enable_tensor_float_32_execution(tf32)
    self._runtime = contexts.create_in_process_context(
      max_concurrent_clients=clients_at_a_time,
      intra_op_threads=intra_op_threads,
    ).runtime
    self._interpreter = interpreter.Interpreter(
      self._runtime.functions, intrinsics.Intrinsics(self._runtime.pool, 0)
    )
    self._functions: dict[bytes, tuple[Any, tff.FunctionType]] = {}
    self._building = threading.Lock()
    self._running: dict[int, set[Any]] = collections.defaultdict(set)
    self._cancelled: collections.OrderedDict[int, None] = (
      collections.OrderedDict()
    )
    self._lock = threading.Lock()

  def describe(self) -> dict[str, Any]:
    """Returns what the driver has to know."""
    return {
      'versions': versions(),
      'devices': self._runtime.pool.devices,
      'pid': os.getpid(),
    }

  def ping(self) -> None:
    """Shows that the actor is alive."""

  def cancel(self, call_id: int) -> None:
    """Stops the clients of one call, also those that arrive later."""
    with self._lock:
      self._cancelled[call_id] = None
      if len(self._cancelled) > _MAX_CANCELLED:
        self._cancelled.popitem(last=False)
      running = list(self._running.get(call_id, ()))
    for one in running:
      one.cancel()

  def run(
    self,
    call_id: int,
    function: tuple[bytes, Any],
    inline: list[Any],
    refs: dict[int, Any],
    wait_seconds: float,
  ) -> Any:
    """Computes one client.

    Args:
      call_id: Number of the call of the computation, for `cancel`.
      function: Digest and reference of a serialized TFF computation.
      inline: Encoded leaves of the argument, None in place of `refs`.
      refs: References of the other leaves, by their index.
      wait_seconds: Time for leaves to arrive from other nodes.

    Returns:
      A message, or a message and all results that can be large. The message is
      a dict with one of `leaves` (None in place of large ones), `missing`
      (indices of arguments that did not arrive), `error` and `cancelled`.
    """
    num_large = 0
    try:
      fn, function_type = self._function(*function)
      large = messages.large_leaves(function_type.result)
      num_large = len(large)
      leaves = list(inline)
      missing = _fetch(refs, leaves, wait_seconds)
      if missing:
        return _answer({'missing': missing}, num_large)
      arguments: tuple = ()
      if function_type.parameter is not None:
        types = messages.leaf_types(function_type.parameter)
        arguments = (
          messages.to_value(
            map(messages.decode, leaves, types), function_type.parameter
          ),
        )
      started = time.perf_counter()
      result = self._compute(call_id, fn, arguments)
      encoded = [
        messages.encode(leaf, leaf_type)
        for leaf, leaf_type in zip(
          messages.leaves_of(result),
          messages.leaf_types(function_type.result),
        )
      ]
      seconds = time.perf_counter() - started
    except cancellation.Cancelled:
      return _answer({'cancelled': True}, num_large)
    except Exception as error:
      return _answer({'error': _sendable(error)}, num_large)
    slots: list[Any] = [None] * num_large
    specs: list[Any] = [None] * num_large
    for slot, index in enumerate(large):
      array = encoded[index]
      if messages.num_bytes(array) >= messages.LARGE_BYTES:
        slots[slot], encoded[index] = array, None
        specs[slot] = (array.dtype, array.shape)
    message = {
      'leaves': messages.share_equal(encoded),
      'specs': specs,
      'seconds': seconds,
    }
    return (message, *slots) if num_large else message

  def _function(self, digest: bytes, refs: list[Any]) -> tuple[Any, Any]:
    with self._building:
      known = self._functions.get(digest)
      if known is None:
        block = tff.framework.ComputationBuildingBlock.from_proto(
          computation_pb2.Computation.FromString(ray.get(refs[0]))
        )
        known = self._interpreter.build(block)({}), block.type_signature
        self._functions[digest] = known
      return known

  def _compute(self, call_id: int, fn: Any, arguments: tuple) -> Any:
    call = cancellation.Cancellation()
    with self._lock:
      if call_id in self._cancelled:
        raise cancellation.Cancelled
      self._running[call_id].add(call)
    try:
      with call.active(), function_removals.postponed():
        return self._runtime.pool.map(fn, [arguments])[0]
    finally:
      with self._lock:
        self._running[call_id].discard(call)
        if not self._running[call_id]:
          del self._running[call_id]


def _answer(message: dict[str, Any], num_large: int) -> Any:
  return (message, *[None] * num_large) if num_large else message


def _fetch(
  refs: dict[int, Any], leaves: list[Any], seconds: float
) -> list[int]:
  """Puts arrived values into `leaves`, and returns which did not arrive."""
  deadline = time.monotonic() + seconds
  missing = []
  for index, ref in refs.items():
    try:
      leaves[index] = ray.get(
        ref, timeout=max(0.1, deadline - time.monotonic())
      )
    except ray.exceptions.RayError:
      missing.append(index)
  return missing


def _sendable(error: Exception) -> Exception:
  """Returns an error that can be sent, without notes on this process."""
  error.__notes__ = []
  try:
    ray.cloudpickle.loads(ray.cloudpickle.dumps(error))
  except Exception:
    return RuntimeError(f'{type(error).__name__}: {error}')
  return error
