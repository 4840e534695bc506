"""Users' errors are a line, the program's a trace; signals end in a line."""

import errno
import os
import pathlib
import signal
import subprocess
import sys
import textwrap

from absl import flags
import pytest

from launch import errors
from tff_fedsa import settings
from tff_fedsa.runs import errors as errors_lib

_ROOT = pathlib.Path(__file__).parents[2]


def _said(error):
  with pytest.raises(SystemExit) as ended:
    with errors.reported():
      raise error
  return ended.value.code


def test_users_errors_are_a_line():
  assert _said(errors_lib.UserError('Give another.')) == 'error: Give another.'
  assert _said(flags.Error('no such flag')) == 'error: no such flag'
  assert _said(FileNotFoundError('no such run')) == 'error: no such run'
  assert _said(ConnectionError('no worker')) == 'error: no worker'


def test_settings_are_named_as_flags():
  error = settings.SettingsError('Expected `alpha` > 0, found -1.')
  assert str(error) == 'Expected alpha > 0, found -1.'
  assert _said(error) == 'error: Expected --alpha > 0, found -1.'


def test_arguments_that_are_no_flags_end_the_program_with_a_line():
  errors.refuse_arguments(['train'])
  with pytest.raises(SystemExit, match='^error: Unexpected arguments: alpha=1'):
    errors.refuse_arguments(['train', 'alpha=1'])


@pytest.mark.parametrize('kind', [ValueError, TypeError, KeyError])
def test_program_errors_keep_their_trace(kind):
  with pytest.raises(kind):
    with errors.reported():
      raise kind('of the program')


def test_a_value_error_of_a_library_is_the_programs():
  import numpy as np

  with pytest.raises(ValueError, match='negative'):
    with errors.reported():
      np.zeros(-1)


@pytest.mark.parametrize(
  'number, way_out',
  [
    (errno.ENOSPC, 'Free some space'),
    (errno.EDQUOT, 'Free some of your quota'),
    (errno.EROFS, 'Make it writable'),
    (errno.EACCES, 'Make it accessible'),
    (errno.ENOENT, 'Restore what is missing'),
    (errno.ENOTDIR, 'Restore the directory'),
    (errno.EIO, 'Check the disk'),
  ],
)
def test_failures_of_the_disk_name_path_and_way_out(number, way_out):
  said = _said(OSError(number, os.strerror(number), 'runs/a/metrics.csv'))
  assert said.startswith(
    f"error: 'runs/a/metrics.csv': {os.strerror(number)}. {way_out}"
  )
  assert '\n' not in said


def test_too_little_memory_is_a_line():
  said = _said(MemoryError('Unable to allocate 3.73 TiB'))
  assert said.startswith(
    'error: Too little memory: Unable to allocate 3.73 TiB'
  )
  assert 'memory is used up' in errors.describe(MemoryError())


def test_failures_without_a_path_say_what_the_system_said():
  assert 'No space left' in _said(OSError(errno.ENOSPC, 'No space left'))
  assert _said(OSError(errno.EMFILE, 'Too many open files')) == (
    'error: Too many open files.'
  )


_PROGRAM = """
import os, signal, sys
from absl import flags
from launch import errors
from tff_fedsa import settings
from tff_fedsa.runs import errors as errors_lib
flags.FLAGS(sys.argv)
signal.signal(signal.SIGINT, signal.default_int_handler)
with errors.reported('stopped'):
"""


def _run(body, *arguments):
  code = _PROGRAM + textwrap.indent(textwrap.dedent(body), '  ')
  return subprocess.run(
    [sys.executable, '-c', code, *arguments],
    cwd=_ROOT,
    capture_output=True,
    text=True,
  )


def test_traceback_shows_the_trace_of_users_errors():
  body = "raise errors_lib.UserError('Give another.')"
  without, with_trace = _run(body), _run(body, '--traceback')
  assert without.stderr == 'error: Give another.\n'
  assert 'Traceback (most recent call last)' in with_trace.stderr
  assert with_trace.stderr.endswith('error: Give another.\n')
  assert without.returncode == with_trace.returncode == 1


@pytest.mark.parametrize(
  'name, status, said',
  [
    ('SIGINT', -signal.SIGINT, 'stopped\n'),
    ('SIGTERM', 143, 'stopped (SIGTERM)\n'),
    ('SIGHUP', 129, 'stopped (SIGHUP)\n'),
  ],
)
@pytest.mark.parametrize(
  'how',
  [
    'signal.raise_signal(signal.{})',
    # TensorFlow's C++ makes other errors of a KeyboardInterrupt.
    """
    try:
      signal.raise_signal(signal.{})
    except KeyboardInterrupt:
      raise SystemError('returned a result with an exception set')
    """,
    """
    try:
      signal.raise_signal(signal.{})
    except KeyboardInterrupt:
      pass  # Some libraries swallow it.
    """,
    """
    class Dropped:
      def __del__(self):
        signal.raise_signal(signal.{})
    Dropped()
    errors.raise_if_interrupted()
    """,
  ],
  ids=['plain', 'changed', 'swallowed', 'destructor'],
)
def test_signals_end_in_a_line(name, status, said, how):
  program = _run(how.format(name))
  assert (program.returncode, program.stderr) == (status, said)


def test_an_ignored_hangup_stays_ignored():
  program = _run(
    'signal.raise_signal(signal.SIGHUP)',
  )
  assert program.returncode == 129
  nohup = subprocess.run(
    ['nohup', sys.executable, '-c', _PROGRAM + '  os.kill(os.getpid(), 1)\n'],
    cwd=_ROOT,
    capture_output=True,
    text=True,
  )
  assert nohup.returncode == 0, nohup.stderr


def test_what_could_not_be_saved_is_said_in_the_same_line():
  program = _run(
    """
    try:
      signal.raise_signal(signal.SIGTERM)
    except KeyboardInterrupt:
      raise errors_lib.UserError('not saved')
    """
  )
  assert program.returncode == 143
  assert program.stderr == 'stopped (SIGTERM); error: not saved\n'


def test_a_closed_pipe_is_no_trace():
  program = subprocess.run(
    f'{sys.executable} -c "$CODE" | head -1; exit ${{PIPESTATUS[0]}}',
    shell=True,
    executable='/bin/bash',
    cwd=_ROOT,
    capture_output=True,
    text=True,
    env={
      **os.environ,
      'CODE': _PROGRAM + '  for i in range(10**5): print(i, flush=True)\n',
    },
  )
  assert program.returncode == 1
  assert program.stderr == 'error: Broken pipe.\n'
