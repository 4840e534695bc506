"""Memory stays flat over rounds."""

import pytest

from tests.launch import launching
from tff_fedsa.runs import recorders


@pytest.mark.slow
@pytest.mark.parametrize(
  'runtime, rounds, growth', [('in_process', 300, 0.01), ('native', 140, 0.02)]
)
def test_many_rounds_take_no_more_memory_than_100(
  tmp_path, runtime, rounds, growth
):
  # Its own process: what other tests hold and start does not count.
  launching.launch_process(
    'train',
    '--flagfile=flags/fedsa.digits.flags',
    # Few steps of a small model: what a round leaves behind counts.
    '--family=digits_mlp',
    '--max_examples=800',
    '--alpha=1.0',
    f'--runtime={runtime}',
    f'--root_output_dir={tmp_path}',
    '--experiment_name=memory',
    f'--total_rounds={rounds}',
    '--noprogress',
  )
  rows = recorders.read_csv(str(tmp_path / 'memory/metrics.csv'))

  assert [row['round'] for row in rows] == list(range(rounds + 1))
  # The stock runtime is a child process that computes all rounds.
  for row in (rows[50], rows[-1]):
    assert (row['memory_children_mb'] > 50) == (runtime == 'native')

  def resident(first, last):
    # Cycles wait for Python's collector, which comes every 30 to 60 rounds:
    # what counts is the least.
    return min(
      row['memory_python_mb'] + row['memory_children_mb']
      for row in rows[first : last + 1]
    )

  quarter = rounds // 4
  early, late = resident(50, 50 + quarter), resident(rounds - quarter, rounds)
  assert late < (1 + growth) * early
