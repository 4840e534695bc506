"""The benchmark of populations measures what it says."""

import pytest

from tests import programs

population = programs.load('benchmarks.population')


@pytest.mark.parametrize('where', ['memory', 'disk'])
def test_a_store_is_timed(tmp_path, where):
  times = population.time_store(200, where, str(tmp_path))
  assert all(seconds > 0 for seconds in times)
  rounds = sorted(p.name for p in (tmp_path / 'checkpoints').glob('round_*'))
  assert rounds == ['round_000001', 'round_000002']
  # All of them, and those that changed.
  assert len(list((tmp_path / 'checkpoints/clients').iterdir())) == 300


@pytest.mark.usefixtures('in_process_context')
@pytest.mark.slow
def test_rounds_are_timed(tmp_path):
  found = population.time_rounds(20, 10, 12, str(tmp_path))
  assert found.start > 0 and len(found.seconds) == 11
  before, after = found.usages
  assert before.descriptors > 0 and after.threads > 0


@pytest.mark.slow
def test_only_participants_have_states_on_ray(tmp_path):
  found = population.time_rounds_of('ray', 30, 2, 6, str(tmp_path))
  # Two of them in each round; all are evaluated before the first and after the
  # last one, which leaves no state.
  early, late = (usage.states for usage in found.usages)
  assert 2 <= early <= 4 and early <= late <= 12
  assert len(found.seconds) == 6


@pytest.mark.slow
def test_a_checkpoint_costs_what_changed(tmp_path):
  """The goals, with room for a busy machine."""
  times = population.time_store(10_000, 'disk', str(tmp_path))
  assert times.again < 3 and times.start < 15
