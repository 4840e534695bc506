"""TFF's stock C++ runtime, without child processes that outlive Python."""

import atexit
import contextlib
import os
import types
from typing import Any, Optional

import tensorflow_federated as tff
from tensorflow_federated.python.core.impl.context_stack import (
  runtime_error_context,
)
from tensorflow_federated.python.core.impl.executor_stacks import (
  executor_factory,
)

from tff_fedsa.execution import versions
from tff_fedsa.execution import workers
from tff_fedsa.runs import errors

# The latest context of `set_native_context`.
_current: Optional[Any] = None


def set_native_context(*, max_concurrent_clients: Optional[int] = None) -> None:
  """Makes TFF's stock C++ runtime the default. Its child ends with Python.

  Args:
    max_concurrent_clients: Clients computed at a time. Default: the cores that
      this process may use.

  Raises:
    ValueError: If `max_concurrent_clients` is less than 1.
    versions.VersionError: If TFF is not the one that this was written for.
  """
  global _current
  tff.backends.native.set_sync_local_cpp_execution_context(
    max_concurrent_computation_calls=_own_workers(max_concurrent_clients)
  )
  _current = tff.framework.get_context_stack().current


def is_current() -> bool:
  """Returns whether TFF's context was set by `set_native_context`."""
  now = tff.framework.get_context_stack().current
  return _current is not None and _current is now


def create_async_native_context(
  *, max_concurrent_clients: Optional[int] = None
) -> tff.framework.AsyncExecutionContext:
  """Returns an asynchronous context of TFF's stock C++ runtime.

  Its child ends with this process, as with `set_native_context`.

  Args:
    max_concurrent_clients: See `set_native_context`.

  Raises:
    ValueError: If `max_concurrent_clients` is less than 1.
    versions.VersionError: If TFF is not the one that this was written for.
  """
  return tff.backends.native.create_async_local_cpp_execution_context(
    max_concurrent_computation_calls=_own_workers(max_concurrent_clients)
  )


def stop_workers() -> None:
  """Ends the workers of this process. TFF restarts one if needed."""
  workers.stop()


def worker_pids() -> list[int]:
  """Returns the process ids of the running workers."""
  return workers.pids()


def _own_workers(max_concurrent_clients: Optional[int]) -> int:
  """Makes this process own every worker that TFF starts from now on.

  Returns:
    Clients computed at a time.
  """
  versions.require('native')
  if max_concurrent_clients is None:
    max_concurrent_clients = len(os.sched_getaffinity(0))
  if max_concurrent_clients < 1:
    raise errors.UserError(
      f'Expected max_concurrent_clients >= 1, found {max_concurrent_clients}.'
    )
  if executor_factory.subprocess.Popen is not workers.OwnedWorker:
    # The module uses `subprocess` only to start its worker.
    executor_factory.subprocess = types.SimpleNamespace(
      Popen=workers.OwnedWorker
    )
    workers.end_with_this_process()
    atexit.register(_leave)
  return max_concurrent_clients


def _leave() -> None:
  # TFF's own finalizer fails if it runs at interpreter exit. Without its
  # context it runs now.
  with contextlib.suppress(Exception):
    tff.framework.get_context_stack().set_default_context(
      runtime_error_context.create_runtime_error_context()
    )
