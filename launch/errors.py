"""What a user did wrong is said in one line, not in a stack trace."""

import atexit
from collections.abc import Iterator
import contextlib
import os
import signal
import sys
import threading
from typing import Any

from absl import flags

from tff_fedsa.runs import directory

_interrupted = threading.Event()
_ends_by_signal = threading.Event()


@contextlib.contextmanager
def reported(interrupted: str = 'interrupted') -> Iterator[None]:
  """Ends the program with a message for errors that the user can mend.

  Errors of the program itself keep their stack trace.

  Args:
    interrupted: Said on Ctrl-C, which ends the program as the signal does.
  """
  # The first that is registered is called last.
  atexit.register(_end_by_signal)
  # Jobs in the background of a shell ignore it.
  if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _interrupt)
  try:
    from tff_fedsa.runs import checkpoints  # Slow to import.

    raise_if_interrupted()
    yield
  except KeyboardInterrupt:
    _ends_by_signal.set()
    sys.exit(interrupted)
  except (
    checkpoints.CheckpointError,
    ConnectionError,
    FileNotFoundError,
    PermissionError,
    ValueError,
    flags.Error,
    directory.RunDirectoryError,
  ) as error:
    sys.exit(f'error: {error}')


def raise_if_interrupted() -> None:
  """Raises the KeyboardInterrupt of a Ctrl-C again if it was swallowed.

  Python drops exceptions of destructors, and there is often one running.
  """
  if _interrupted.is_set():
    raise KeyboardInterrupt


def _end_by_signal() -> None:
  """Ends an interrupted program after the runtimes' own functions at exit.

  Later, threads that are still in TensorFlow's C++ would abort it.
  """
  if _ends_by_signal.is_set():
    sys.stdout.flush()
    sys.stderr.flush()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGINT)


def _interrupt(*unused_signal: Any) -> None:
  _interrupted.set()
  raise KeyboardInterrupt
