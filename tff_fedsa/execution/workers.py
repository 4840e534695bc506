"""TFF's `worker_binary` as a child that ends with this process.

A worker that TFF starts survives the Python process. It keeps the standard
output open, so `python x.py | tail` hangs forever. Here the process that starts
a worker ends it: at exit, on an exception, on Ctrl-C, on SIGTERM, and (on
Linux) when Python itself is killed.
"""

import atexit
from concurrent import futures
import ctypes
import importlib.util
import os
import signal
import subprocess
import sys
import threading
from typing import Any
import weakref

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)

_workers: 'weakref.WeakSet[OwnedWorker]' = weakref.WeakSet()
# Linux kills a child with the *thread* that started it. So one thread starts
# all workers and lives as long as Python.
_starter = futures.ThreadPoolExecutor(1, thread_name_prefix='worker-starter')


class OwnedWorker(subprocess.Popen):
  """A child that ends with this process, and holds none of its pipes."""

  def __init__(
    self, args: list[str], *, log: Any = subprocess.DEVNULL, **unused: Any
  ):
    """Starts the worker.

    Args:
      args: Program and arguments.
      log: Stream for error messages, or None for that of this process.
      **unused: TFF's streams. They are ignored, because an open stdout of this
        process would be a hanging pipe.
    """
    _starter.submit(
      super().__init__,
      args,
      stdin=subprocess.DEVNULL,
      stdout=subprocess.DEVNULL,
      stderr=log,
      # With an arena per thread, glibc's heap grows over rounds (157 MB after
      # 50, 197 MB after 200). With one arena it does not grow and is no slower.
      env={'MALLOC_ARENA_MAX': '1', **os.environ},
      # A Ctrl-C in the terminal is for Python to handle, not for the worker.
      start_new_session=True,
      preexec_fn=_prepare,
    ).result()
    _workers.add(self)

  def has_ended(self, options: int = os.WNOHANG) -> bool:
    """Returns whether the worker has ended. `options=0` waits for the end."""
    # TFF signals the worker's pid again before it starts another worker. So TFF
    # must reap the dead process. Otherwise another process could have that pid.
    try:
      options |= os.WEXITED | os.WNOWAIT
      return os.waitid(os.P_PID, self.pid, options) is not None
    except ChildProcessError:
      return True


def binary_path() -> str:
  """Returns the path of TFF's `worker_binary`.

  Raises:
    FileNotFoundError: If TFF is not installed, or has no worker.
  """
  # Without importing TFF, which takes seconds.
  spec = importlib.util.find_spec('tensorflow_federated')
  if spec is None or spec.origin is None:
    raise FileNotFoundError('tensorflow_federated is not installed.')
  path = os.path.join(os.path.dirname(spec.origin), 'data', 'worker_binary')
  if not os.path.isfile(path):
    raise FileNotFoundError(f'TFF has no worker for this platform: {path}')
  return path


def end_with_this_process() -> None:
  """Ends all workers when this process ends, also on SIGTERM."""
  atexit.register(stop)
  if (
    threading.current_thread() is threading.main_thread()
    and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
  ):
    signal.signal(signal.SIGTERM, _exit_on_sigterm)


def stop() -> None:
  """Ends the workers of this process."""
  for worker in list(_workers):
    if not worker.has_ended():
      os.kill(worker.pid, signal.SIGKILL)
      worker.has_ended(0)


def pids() -> list[int]:
  """Returns the process ids of the running workers."""
  return [worker.pid for worker in _workers if not worker.has_ended()]


def die_with_parent() -> None:
  """Asks Linux to kill this process when its parent dies (a `preexec_fn`)."""
  _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _prepare() -> None:
  # TFF ends a worker by SIGINT and waits for its end. Background jobs of a
  # shell script ignore SIGINT, and a child would inherit that.
  signal.signal(signal.SIGINT, signal.SIG_DFL)
  die_with_parent()


def _exit_on_sigterm(signum: int, unused_frame: Any) -> None:
  # An exception, so that `finally` blocks and atexit handlers run.
  sys.exit(128 + signum)
