"""Accuracy over epsilon: the table and the figure of made-up runs."""

import math

import pytest

from tests import programs
from tff_fedsa.reporting import runs as runs_lib

privacy_curves = programs.load('benchmarks.privacy_curves')


def _run(algorithm, epsilon, accuracy, status='finished'):
  flags = {'algorithm': algorithm, 'dp_cohort': '50', 'dp_population': '2500'}
  row = {'dp_epsilon': epsilon, 'head_accuracy': accuracy}
  if algorithm == 'fedsa':
    row['anchor_accuracy'] = accuracy + 0.1
  return runs_lib.Run('p', 'r', '0', flags, [row], None, None, status)


def test_table_and_figure_show_means_over_seeds():
  accuracies = privacy_curves.collect(
    [
      _run('fedsa', 1.0, 0.5),
      _run('fedsa', 1.0, 0.7),
      _run('fedsa', math.inf, 0.8),
      _run('fedproto', 1.0, 0.2),
    ]
  )
  lines = privacy_curves.table(accuracies).splitlines()
  assert (
    '| FedSA | 50 of 2500 | 1 | 2 |  | 70.0 ± 10.0 | 60.0 ± 10.0 |' in lines
  )
  assert '| FedSA | no noise | inf | 1 |  | 90.0 ± 0.0 | 80.0 ± 0.0 |' in lines
  _, anchor, head = privacy_curves.draw(accuracies).axes
  assert len(anchor.containers) == 1 and len(head.containers) == 2


def test_unfinished_runs_are_refused():
  with pytest.raises(runs_lib.ReportError, match='failed'):
    privacy_curves.collect([_run('fedsa', 1.0, 0.5, status='failed')])
