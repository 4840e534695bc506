"""Reports user errors in one line, without a stack trace.

Four kinds of errors become one line: `UserError`s, errors of the disk or the
network, too little memory, and wrong flags. Every other error is a mistake of
the program and keeps its stack trace. With `--traceback` the four kinds show
their trace, too.
"""

import atexit
from collections.abc import Iterator, Sequence
import contextlib
import errno
import logging
import os
import re
import signal
import sys
import threading
import traceback
from typing import Any, Optional

from absl import flags

from tff_fedsa import settings
from tff_fedsa.runs import errors

_TRACEBACK = flags.DEFINE_boolean(
  'traceback',
  False,
  'Show the stack trace of every error, also of errors that are otherwise '
  'reported in one line.',
)

_MENDABLE = (
  errors.UserError,
  OSError,
  MemoryError,
  flags.Error,
)

# What to do if the system refuses a file, by `OSError.errno`.
_WAYS_OUT = {
  errno.ENOSPC: 'Free some space there',
  errno.EDQUOT: 'Free some of your quota there',
  errno.EROFS: 'Make it writable, or choose another directory',
  errno.EACCES: 'Make it accessible, or choose another directory',
  errno.EPERM: 'Make it accessible, or choose another directory',
  errno.ENOENT: 'Restore what is missing',
  errno.ENOTDIR: 'Restore the directory',
  errno.EIO: 'Check the disk',
}

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Ending:
  """The signal that asked the program to end, if there was one."""

  def __init__(self):
    self.received: Optional[signal.Signals] = None
    self.ends_by_signal = False


_ending = _Ending()


@contextlib.contextmanager
def reported(message: str = 'interrupted') -> Iterator[None]:
  """Ends the program with a message for errors that the user can mend.

  Ctrl-C, SIGTERM and SIGHUP raise KeyboardInterrupt within the `with`
  statement. After the statement they end the program: Ctrl-C by the signal
  itself, SIGTERM with status 143, SIGHUP with status 129.

  Args:
    message: What to say if a signal ended the program.
  """
  # The function that is registered first is called last.
  atexit.register(_end_by_signal)
  hook = sys.unraisablehook
  with _handled():
    try:
      sys.unraisablehook = _drop_interrupts
      yield
      raise_if_interrupted()
    except BaseException as error:
      # TensorFlow turns a KeyboardInterrupt within its C++ into other errors.
      if interrupted() or isinstance(error, KeyboardInterrupt):
        _ending.ends_by_signal = True
        logging.getLogger('asyncio').setLevel(logging.CRITICAL)
        sys.exit(_interruption(message, error))
      if not isinstance(error, Exception) or not isinstance(error, _MENDABLE):
        raise
      if _shows_traces():
        traceback.print_exc()
      if isinstance(error, BrokenPipeError):
        # Nobody reads: Python would complain once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
      sys.exit(f'error: {describe(error)}')
    finally:
      sys.unraisablehook = hook


def refuse_arguments(argv: Sequence[str]) -> None:
  """Ends the program with a message if it has arguments besides flags.

  Args:
    argv: The program and its arguments without flags.
  """
  if len(argv) > 1:
    sys.exit(
      f'error: Unexpected arguments: {" ".join(argv[1:])}. Flags begin with '
      '--; --help lists them.'
    )


def describe(error: BaseException) -> str:
  """Returns the one-line message of a user error.

  Args:
    error: The message of an `OSError` gets its path and a remedy. Other errors
      name a remedy themselves.
  """
  if isinstance(error, settings.SettingsError):
    return in_flags(error)
  if isinstance(error, MemoryError):
    reason = str(error) or 'memory is used up'
    return (
      f'Too little memory: {reason}. Smaller models, fewer clients or fewer '
      'examples need less.'
    )
  if not isinstance(error, OSError) or error.errno is None:
    return str(error)
  where = '' if error.filename is None else f'{error.filename!r}: '
  reason = error.strerror or os.strerror(error.errno)
  way_out = _WAYS_OUT.get(error.errno)
  if way_out is None:
    return f'{where}{reason}.'
  return f'{where}{reason}. {way_out} and give the same command again.'


def in_flags(error: settings.SettingsError) -> str:
  """Returns the message of an error, with flags in place of settings."""
  return re.sub(r'`(\w+)`', r'--\1', error.text)


def raise_if_interrupted() -> None:
  """Raises the KeyboardInterrupt of a signal again if it was swallowed.

  Python drops exceptions in destructors, and a destructor often runs.
  """
  if interrupted():
    raise KeyboardInterrupt


def interrupted() -> bool:
  """Tells if Ctrl-C, SIGTERM or SIGHUP has asked the program to end."""
  return _ending.received is not None


def _shows_traces() -> bool:
  # Programs with flags of their own may lack the flag.
  return (
    _TRACEBACK.name in flags.FLAGS
    and flags.FLAGS.is_parsed()
    and _TRACEBACK.value
  )


def _interruption(said: str, error: BaseException) -> str:
  """Returns the last line of a program that a signal ended."""
  received = _ending.received
  if received is not None and received != signal.SIGINT:
    said = f'{said} ({received.name})'
  if isinstance(error, errors.UserError | OSError):
    said = f'{said}; error: {describe(error)}'
  return said


@contextlib.contextmanager
def _handled() -> Iterator[None]:
  """Makes signals raise KeyboardInterrupt within a `with` statement."""
  before = {}
  if threading.current_thread() is threading.main_thread():
    for number in _SIGNALS:
      handler = signal.getsignal(number)
      # Background jobs ignore SIGINT, and jobs of `nohup` ignore SIGHUP.
      if handler is not signal.SIG_IGN:
        before[number] = handler
        signal.signal(number, _interrupt)
  try:
    yield
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)


def _interrupt(number: int, *unused_frame: Any) -> None:
  _ending.received = _ending.received or signal.Signals(number)
  raise KeyboardInterrupt


def _drop_interrupts(unraisable: Any) -> None:
  """Hides an interrupt in a destructor, because it is raised again later."""
  if not issubclass(unraisable.exc_type, KeyboardInterrupt):
    sys.__unraisablehook__(unraisable)


def _end_by_signal() -> None:
  """Ends an interrupted program after the runtimes' own functions at exit.

  Later, threads that are still in TensorFlow's C++ would abort it.
  """
  if not _ending.ends_by_signal:
    return
  sys.stdout.flush()
  sys.stderr.flush()
  number = _ending.received or signal.SIGINT
  if number == signal.SIGINT:
    # A shell stops its script only if the signal itself ended the program.
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
  os._exit(128 + number)
