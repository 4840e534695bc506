"""The stock runtime's child process ends, however Python ends."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import psutil
import pytest
import tensorflow_federated as tff

from tff_fedsa.execution import native

_PROGRAM = textwrap.dedent("""
  import signal, sys, time
  from tff_fedsa.execution import imports
  from tff_fedsa.execution import native
  imports.quickly('tensorflow_federated')
  import numpy as np
  import tensorflow_federated as tff

  # Jobs in the background of a shell ignore it.
  signal.signal(signal.SIGINT, signal.default_int_handler)
  native.set_native_context(max_concurrent_clients=1)

  @tff.tensorflow.computation(np.int32)
  def add_one(x):
    return x + 1

  assert add_one(1) == 2
  print('worker', *native.worker_pids(), flush=True)
  if sys.argv[1] == 'raises':
    raise RuntimeError('on purpose')
  if sys.argv[1] != 'ends':
    time.sleep(600)
""")

_STATUSES = {'ends': 0, 'raises': 1, 'terminated': 128 + signal.SIGTERM}
_SIGNALS = {
  'interrupted': signal.SIGINT,
  'terminated': signal.SIGTERM,
  'killed': signal.SIGKILL,
}


@pytest.mark.parametrize(
  'endings',
  [
    ('killed',),
    pytest.param(
      ('ends', 'terminated', 'raises', 'interrupted'), marks=pytest.mark.slow
    ),
  ],
)
def test_no_way_of_dying_leaves_a_worker(endings):
  programs = {}
  for ending in endings:
    # Side by side: each takes seconds to import TFF.
    programs[ending] = subprocess.Popen(
      [sys.executable, '-c', _PROGRAM, ending],
      stdout=subprocess.PIPE,
      stderr=subprocess.DEVNULL,
      text=True,
      env={**os.environ, 'PYTHONPATH': os.getcwd()},
    )
  for ending, program in programs.items():
    word, pid = program.stdout.readline().split()
    assert word == 'worker'
    if ending in _SIGNALS:
      assert psutil.pid_exists(int(pid))
      program.send_signal(_SIGNALS[ending])
    # Reads to the end of the pipe: hangs if the worker holds it.
    program.communicate(timeout=60)
    deadline = time.monotonic() + 60
    while psutil.pid_exists(int(pid)) and time.monotonic() < deadline:
      time.sleep(0.1)
    assert not psutil.pid_exists(int(pid)), ending
    if ending in _STATUSES:
      assert program.returncode == _STATUSES[ending]


@pytest.mark.usefixtures('native_context')
def test_a_stopped_worker_is_started_again():
  @tff.tensorflow.computation(np.int32)
  def double(x):
    return 2 * x

  assert double(2) == 4
  (first,) = native.worker_pids()
  native.stop_workers()
  assert native.worker_pids() == []
  assert double(3) == 6
  assert native.worker_pids() != [first]


def test_bad_values_are_named():
  with pytest.raises(ValueError, match='max_concurrent_clients >= 1'):
    native.set_native_context(max_concurrent_clients=0)
