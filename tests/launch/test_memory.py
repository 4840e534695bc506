"""Memory stays flat over rounds."""

import os
import pathlib
import subprocess
import sys

import pytest

from tff_fedsa import metrics

# BUILD: //launch:train //flags:presets
_ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.slow
def test_200_rounds_take_no_more_memory_than_50(tmp_path):
  subprocess.run(
    [
      sys.executable,
      '-m',
      'launch.train',
      '--flagfile=flags/fedsa.digits.flags',
      f'--root_output_dir={tmp_path}',
      '--experiment_name=memory',
      '--total_rounds=200',
      '--noprogress',
    ],
    cwd=_ROOT,
    env={**os.environ, 'TF_CPP_MIN_LOG_LEVEL': '3'},
    check=True,
    timeout=500,
  )
  rows = metrics.read_csv(str(tmp_path / 'memory/metrics.csv'))

  def resident(round_num):
    row = rows[round_num]
    assert row['round'] == round_num
    # TFF's runtime is a child process that computes all rounds.
    assert row['memory_children_mb'] > 50
    return row['memory_python_mb'] + row['memory_children_mb']

  assert resident(200) < 1.02 * resident(50)
