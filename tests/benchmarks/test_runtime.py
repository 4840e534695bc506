"""The benchmark of runtimes, as a user calls it, on its smallest cases."""

import pathlib
import subprocess
import sys

import pytest

_ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.slow
def test_a_row_for_each_case_and_equal_results():
  program = subprocess.run(
    [
      sys.executable,
      '-m',
      'benchmarks.runtime',
      '--cases=fed_avg_10,stateful_0.1mb,data_set_0.06mb',
      '--rounds=1',
    ],
    cwd=_ROOT,
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert program.returncode == 0, program.stderr[-2000:]
  _, _, *rows = program.stdout.strip().splitlines()
  cells = [[c.strip() for c in row.strip('|').split('|')] for row in rows]
  assert [row[0] for row in cells] == [
    'fed_avg_10',
    'stateful_0.1mb',
    'data_set_0.06mb',
  ]
  for row in cells:
    assert float(row[7]) < 1e-5, row  # difference
    assert all(float(seconds) > 0 for seconds in row[1:5])
