"""Sweeps that are killed, runs that are interrupted: at any moment."""

import pathlib
import random
import signal
import time

import pytest

from tests.launch import launching
from tff_fedsa.runs import directory
from tff_fedsa.runs import recorders
from tff_fedsa.sweeps import record

_SWEEP = """
[flags]
total_rounds = 60
rounds_per_checkpoint = 3
feature_dim = 8
num_clients = 4
max_examples = 300
family = 'digits_mlp'
client_states = 'disk'

[variants]
fedsa = {}
local = {algorithm = 'local'}
"""
_RUNS = ('fedsa/seed_0', 'local/seed_0')


def _last_rounds(root):
  """Returns the last rounds of the runs in their metrics.csv."""
  rounds = []
  for run in _RUNS:
    path = root / 'try' / run / 'metrics.csv'
    rows = recorders.read_csv(str(path)) if path.exists() else []
    rounds.append(rows[-1]['round'] if rows else -1)
  return rounds


def _wait_for_the_runs(root):
  """The processes of a killed sweep end soon after it, not at once."""
  deadline = time.monotonic() + 60
  for run in _RUNS:
    path = directory.RunDirectory(str(root / run))
    while directory.read_status(path).state == directory.RUNNING:
      assert time.monotonic() < deadline
      time.sleep(0.01)


@pytest.mark.slow
def test_a_sweep_that_is_killed_ends_as_one_that_is_not(tmp_path):
  file = tmp_path / 'try.toml'
  file.write_text(_SWEEP)

  def arguments(root):
    return (
      f'--sweep={file}',
      f'--root_output_dir={tmp_path / root}',
      '--seeds=0',
      '--max_parallel=2',
    )

  launching.train_runs(*arguments('whole'))
  rng = random.Random(0)
  kills = 0
  for _ in range(3):
    before = _last_rounds(tmp_path / 'killed')
    process = launching.start('sweep', *arguments('killed'))
    deadline = time.monotonic() + 120
    while (
      _last_rounds(tmp_path / 'killed') == before
      and process.poll() is None
      and time.monotonic() < deadline
    ):
      time.sleep(0.01)
    time.sleep(rng.random() * 0.3)
    if process.poll() is None:
      kills += 1
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    # What is on the disk can be read at any time.
    record.read(str(tmp_path / 'killed/try'))
    _wait_for_the_runs(tmp_path / 'killed/try')
  assert kills > 1
  launching.launch('sweep', *arguments('killed'))
  for run in _RUNS:
    found, expected = (
      launching.rows(tmp_path / root / 'try' / run / 'metrics.csv')
      for root in ('killed', 'whole')
    )
    assert found == expected


def _wait_for_handler(process):
  """Waits until a launcher imports TensorFlow: then it handles signals."""
  maps = pathlib.Path(f'/proc/{process.pid}/maps')
  deadline = time.monotonic() + 120
  while 'libtensorflow' not in maps.read_text():
    assert process.poll() is None and time.monotonic() < deadline
    time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize('seed', range(2))
def test_a_signal_at_any_moment_gives_one_line(tmp_path, seed):
  """From the import of TensorFlow to the last figure."""
  rng = random.Random(seed)
  process = launching.start(
    'train',
    '--feature_dim=8',
    '--num_clients=4',
    '--max_examples=300',
    '--family=digits_mlp',
    '--total_rounds=60',
    '--noprogress',
    f'--root_output_dir={tmp_path}',
    preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
  )
  _wait_for_handler(process)
  time.sleep(rng.random() * 14.0)
  process.send_signal(signal.SIGINT)
  output, _ = process.communicate(timeout=120)
  assert 'Traceback' not in output, output
  if process.returncode:
    assert process.returncode == -signal.SIGINT, output
    # The signal may come when all is done, and the interpreter is ending.
    said = output.splitlines()[-1]
    assert said.startswith(('interrupted', 'figures: ')), output
