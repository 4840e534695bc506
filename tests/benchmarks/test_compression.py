"""Accuracy over bytes: the table and the figure of made-up runs."""

import pytest

from tests import programs
from tff_fedsa.reporting import runs as runs_lib

compression = programs.load('benchmarks.compression')


def _run(algorithm, up, down, seed, accuracy, status='finished'):
  flags = {
    'algorithm': algorithm,
    'compress': up,
    'compress_down': down,
    'partition_seed': seed,
    'model_seed': '0',
  }
  size = 2600.0 if up == 'none' else 440.0
  row = {
    'head_accuracy': accuracy,
    'bytes_up_per_client': size,
    'bytes_down_per_client': 2600.0,
  }
  if algorithm == 'fedsa':
    row['anchor_accuracy'] = accuracy + 0.1
  return runs_lib.Run('p', 'r', seed, flags, [row], None, None, status)


def test_compression_is_compared_seed_by_seed():
  repeats = compression.collect(
    [
      _run('fedproto', 'none', 'none', '0', 0.2),
      _run('fedsa', 'uniform4', 'none', '0', 0.5),
      _run('fedsa', 'uniform4', 'none', '1', 0.7),
      _run('fedsa', 'none', 'none', '1', 0.71),
      _run('fedsa', 'none', 'none', '0', 0.5),
      _run('fedsa', 'none', 'none', '2', 0.9),
    ]
  )
  _, _, *lines = compression.table(repeats).splitlines()
  assert [line.split(' | ')[:2] for line in lines] == [
    ['| FedSA', 'none'],
    ['| FedSA', 'uniform4'],
    ['| FedProto', 'none'],
  ]
  assert lines[1] == (
    '| FedSA | uniform4 | 0.44 | 2.60 | 2 |  | 70.0 ± 10.0 (-0.5) | '
    '60.0 ± 10.0 (-0.5) |'
  )
  found = compression.differences(repeats, list(repeats)[1], 'head')
  assert found == pytest.approx([0.0, -1.0])
  _, anchor, head = compression.draw(repeats).axes
  assert len(anchor.containers) == 2 and len(head.containers) == 3


def test_unfinished_runs_are_refused():
  with pytest.raises(runs_lib.ReportError, match='failed'):
    compression.collect([_run('fedsa', 'none', 'none', '0', 0.5, 'failed')])
