"""Whatever the disk does, and whenever, a run loses nothing."""

import pytest

from tests import programs

faults = programs.load('benchmarks.faults')

_SCENARIOS = {scenario.name: scenario for scenario in faults.SCENARIOS}


@pytest.mark.parametrize('fault', faults.FAULTS)
@pytest.mark.parametrize('name', [n for n in _SCENARIOS if n != 'a report'])
def test_a_fault_loses_nothing(name, fault):
  # One of so many calls; a prime number, so that they are of all kinds.
  outcome = faults.try_all(_SCENARIOS[name], fault, every=31)
  assert outcome.calls > 0
  assert not outcome.wrong


@pytest.mark.slow
@pytest.mark.parametrize('fault', faults.FAULTS)
@pytest.mark.parametrize('name', _SCENARIOS)
def test_a_fault_at_any_call_loses_nothing(name, fault):
  outcome = faults.try_all(_SCENARIOS[name], fault)
  assert outcome.calls > 10
  assert not outcome.wrong


def _careless(path, unused_saved):
  """Writes in place: half of it may be there."""
  with open(path, 'wb') as file:
    file.write(b'0123456789')
  with open(path, 'rb') as file:
    return file.read()


def _is_whole(path, unused_saved):
  try:
    with open(path, 'rb') as file:
      return '' if len(file.read()) == 10 else 'half'
  except FileNotFoundError:
    return ''


@pytest.mark.parametrize('fault', ['killed', 'full'])
def test_what_writes_in_place_is_found_out(fault):
  careless = faults.Scenario('careless', _careless, _is_whole)
  outcome = faults.try_all(careless, fault)
  assert outcome.calls == 2 and outcome.wrong


def test_a_trace_is_found_out():
  def changes_errors(path, saved):
    try:
      return _careless(path, saved)
    except OSError as error:
      raise RuntimeError('of the program') from error

  scenario = faults.Scenario('changes errors', changes_errors, lambda *_: '')
  (first, *_) = faults.try_all(scenario, 'read-only').wrong
  assert 'a trace: RuntimeError' in first
