"""Accuracy over epsilon: the table and the figure of made-up runs."""

import math

import pytest

from tests import programs
from tff_fedsa.reporting import runs as runs_lib

privacy_curves = programs.load('benchmarks.privacy_curves')


def _run(algorithm, epsilon, accuracy, status='finished', **more):
  flags = {
    'algorithm': algorithm,
    'dp': 'central',
    'dp_cohort': '50',
    'dp_population': '2500',
    **more,
  }
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
    '| FedSA | central | 50 of 2500 | 1 | 2 |  | 70.0 ± 10.0 | 60.0 ± 10.0 |'
    in lines
  )
  assert '| FedSA | none |  | inf | 1 |  | 90.0 ± 0.0 | 80.0 ± 0.0 |' in lines
  _, anchor, head = privacy_curves.draw(accuracies).axes
  assert len(anchor.containers) == 1 and len(head.containers) == 2


def test_frozen_anchors_are_a_method_of_their_own():
  accuracies = privacy_curves.collect(
    [
      _run('fedsa', 1.0, 0.5, anchor_decay='0.9999'),
      _run('fedsa', 1.0, 0.7, anchor_decay='1.0'),
    ]
  )
  lines = privacy_curves.table(accuracies).splitlines()
  assert lines[2].startswith('| FedSA | central | 50 of 2500 | 1 | 1 |')
  assert lines[3].startswith('| FedSA, frozen anchors | central | 50 of')
  _, anchor, _ = privacy_curves.draw(accuracies).axes
  assert len(anchor.containers) == 2


def test_other_noise_is_in_the_table_only():
  accuracies = privacy_curves.collect(
    [
      _run('fedsa', 1.0, 0.5),
      _run('fedsa', 1.0, 0.6, dp_clip_quantile='0.5'),
      _run('fedsa', 1.0, 0.7, dp='distributed'),
      _run('fedsa', 1.0, 0.1, dp='local', dp_cohort=None),
    ]
  )
  lines = privacy_curves.table(accuracies).splitlines()
  for start in (
    '| FedSA | central | 50 of 2500 | 1 | 1 |',
    '| FedSA | central, adaptive clipping | 50 of 2500 | 1 | 1 |',
    '| FedSA | distributed | 50 of 2500 | 1 | 1 |',
    '| FedSA | local |  | 1 | 1 |',
  ):
    assert sum(line.startswith(start) for line in lines) == 1
  _, anchor, _ = privacy_curves.draw(accuracies).axes
  assert len(anchor.containers) == 1


def test_unfinished_runs_are_refused():
  with pytest.raises(runs_lib.ReportError, match='failed'):
    privacy_curves.collect([_run('fedsa', 1.0, 0.5, status='failed')])
