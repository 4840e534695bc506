"""The program of sizes, as a user calls it."""

import re
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_a_familys_states_are_measured():
  program = subprocess.run(
    [
      sys.executable,
      '-m',
      'benchmarks.model_sizes',
      '--family=resnet4,fedavg_cnn',
      '--num_clients=30',
    ],
    capture_output=True,
    text=True,
    check=True,
  )
  # 15 of 88,906 weights and 15 of 878,538, their tables, and little more.
  weights = 15 * (83_520 + 384 + 5_130 + 878_538)
  tables = 30 * (10 * 512 + 10)
  (found,) = re.findall(r'states of 30 clients: (\S+) GB', program.stdout)
  assert float(found) == pytest.approx(4 * (weights + tables) / 1e9, abs=2e-3)
  assert re.search(r'traced: \d+\.\d s', program.stdout)
