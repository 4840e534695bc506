"""Kills `tests.pipelines.killable` and starts it again."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np

_ROOT = pathlib.Path(__file__).parents[2]


def _start(which, directory):
  return subprocess.Popen(
    [
      *(sys.executable, '-m', 'tests.pipelines.killable'),
      *(which, str(directory)),
    ],
    cwd=_ROOT,
    stdout=subprocess.DEVNULL,
    stderr=subprocess.STDOUT,
    env={**os.environ, 'TF_CPP_MIN_LOG_LEVEL': '3'},
  )


def kill_and_resume(which, directory, version):
  """Kills it when it has saved a version; returns what the second one made."""
  process = _start(which, directory)
  saved = directory / 'state' / f'program_state_{version}'
  deadline = time.monotonic() + 120
  while not saved.exists() and time.monotonic() < deadline:
    time.sleep(0.01)
  time.sleep(0.2)
  assert process.poll() is None, 'It had ended already.'
  process.send_signal(signal.SIGKILL)
  process.wait()
  assert saved.exists() and not (directory / 'final.npz').exists()
  assert _start(which, directory).wait(timeout=240) == 0
  with np.load(directory / 'final.npz') as arrays:
    return [arrays[name] for name in arrays.files]
