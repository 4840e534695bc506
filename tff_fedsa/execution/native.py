"""TFF's stock C++ runtime, with an end to the child process that it starts.

TFF starts a `worker_binary` and leaves it behind: it survives the Python
process and keeps its standard output open, so that `python x.py | tail` hangs
forever. Here whoever starts the worker ends it: at exit, on an exception, on
Ctrl-C, on SIGTERM, and (Linux) when Python itself is killed.
"""

import atexit
from concurrent import futures
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import types
from typing import Any, Optional
import weakref

import tensorflow_federated as tff
from tensorflow_federated.python.core.impl.context_stack import (
  runtime_error_context,
)
from tensorflow_federated.python.core.impl.executor_stacks import (
  executor_factory,
)

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)

_workers: 'weakref.WeakSet[_OwnedWorker]' = weakref.WeakSet()
# Linux kills a child with the *thread* that started it: workers are started
# by one thread that lives as long as Python does.
_starter = futures.ThreadPoolExecutor(1, thread_name_prefix='worker-starter')


def set_native_context(*, max_concurrent_clients: Optional[int] = None) -> None:
  """Makes TFF's stock C++ runtime the default, ending its child in the end.

  Args:
    max_concurrent_clients: Clients computed at a time; by default the number
      of cores this process may use.

  Raises:
    ValueError: If `max_concurrent_clients` is less than 1.
  """
  if max_concurrent_clients is None:
    max_concurrent_clients = len(os.sched_getaffinity(0))
  if max_concurrent_clients < 1:
    raise ValueError(
      f'Expected max_concurrent_clients >= 1, found {max_concurrent_clients}.'
    )
  _own_workers()
  tff.backends.native.set_sync_local_cpp_execution_context(
    max_concurrent_computation_calls=max_concurrent_clients
  )


def stop_workers() -> None:
  """Ends the workers that this process started; TFF restarts one if needed."""
  for worker in list(_workers):
    if not _has_ended(worker, os.WNOHANG):
      os.kill(worker.pid, signal.SIGKILL)
      _has_ended(worker)


def worker_pids() -> list[int]:
  """Returns the process ids of the workers that run now."""
  return [
    worker.pid for worker in _workers if not _has_ended(worker, os.WNOHANG)
  ]


class _OwnedWorker(subprocess.Popen):
  """A child that ends when this process does, and holds none of its pipes."""

  def __init__(self, args: list[str], **unused_streams: Any):
    # The worker's own log lines are of no use; an open stdout of ours is a
    # hanging pipe.
    _starter.submit(
      super().__init__,
      args,
      stdin=subprocess.DEVNULL,
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
      # With an arena per thread, glibc's heap grows round after round (157 MB
      # after 50, 197 after 200); with one it is flat and no slower.
      env={'MALLOC_ARENA_MAX': '1', **os.environ},
      # A Ctrl-C in the terminal is for Python to handle, not for the worker.
      start_new_session=True,
      preexec_fn=_die_with_parent,
    ).result()
    _workers.add(self)


def _has_ended(worker: _OwnedWorker, options: int = 0) -> bool:
  """Whether the worker has ended; waits for that unless `os.WNOHANG`."""
  # TFF signals the worker's pid again before it starts another one: the dead
  # process is left for TFF to reap, or that pid might be somebody else's.
  try:
    options |= os.WEXITED | os.WNOWAIT
    return os.waitid(os.P_PID, worker.pid, options) is not None
  except ChildProcessError:
    return True


def _die_with_parent() -> None:
  _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _own_workers() -> None:
  """Makes this process own every worker that TFF starts from now on."""
  if executor_factory.subprocess.Popen is _OwnedWorker:
    return
  # The module uses `subprocess` for nothing but starting its worker.
  executor_factory.subprocess = types.SimpleNamespace(Popen=_OwnedWorker)
  atexit.register(_leave)
  if (
    threading.current_thread() is threading.main_thread()
    and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
  ):
    signal.signal(signal.SIGTERM, _exit_on_sigterm)


def _leave() -> None:
  # TFF's own finalizer raises when it runs as late as at interpreter exit;
  # without its context it runs now.
  with contextlib.suppress(Exception):
    tff.framework.get_context_stack().set_default_context(
      runtime_error_context.create_runtime_error_context()
    )
  stop_workers()


def _exit_on_sigterm(signum: int, unused_frame: Any) -> None:
  # An exception, so that `finally` blocks and atexit handlers run.
  sys.exit(128 + signum)
