"""TFF's processes in fresh processes, and how results are compared."""

import types

import numpy as np
import pytest

from benchmarks import tff_cases
from tests import programs

tff_processes = programs.load('benchmarks.tff_processes')

_EXACT = types.SimpleNamespace(
  group='group', tolerance=0.0, reason='', draws=False
)
_NEARLY = types.SimpleNamespace(
  group='group', tolerance=1e-5, reason='kernels', draws=False
)
_DRAWN = types.SimpleNamespace(
  group='group', tolerance=None, reason='clock', draws=True
)


def _result(number, dtype=np.float32):
  return [np.array([number, 2.0], dtype)]


@pytest.mark.parametrize(
  'expected, found, difference',
  [
    (_result(1.0), _result(1.0), 0.0),
    (_result(1.0), _result(1.5), 0.25),
    (_result(1, np.int32), _result(2, np.int32), np.inf),
    (_result(1.0), _result(1.0, np.float64), np.inf),
    (_result(1.0), _result(np.nan), np.inf),
    (_result(1.0), [], np.inf),
    (_result(1.0), 'ValueError: message', np.inf),
    ([np.array(b'a', object)], [np.array(b'b', object)], np.inf),
    ([np.array(b'a', object)], [np.array(b'a', object)], 0.0),
  ],
)
def test_difference(expected, found, difference):
  assert tff_processes.difference(expected, found) == difference


def test_what_is_right():
  near, far = _result(1.000001), _result(1.1)
  assert not tff_processes.is_right(_EXACT, _result(1.0), near)
  assert tff_processes.is_right(_NEARLY, _result(1.0), near)
  assert not tff_processes.is_right(_NEARLY, _result(1.0), far)
  assert tff_processes.is_right(_DRAWN, _result(1.0), far)
  assert not tff_processes.is_right(_DRAWN, _result(1.0), _result(np.inf))


def test_the_worker_must_give_the_same_bits():
  cases = {'a': _NEARLY, 'b': _DRAWN}
  expected = {'a': _result(1.0), 'b': _result(1.0)}
  near = {'a': _result(1.000001), 'b': _result(3.0)}
  stock = [expected, expected]
  assert tff_processes.wrong_cases(cases, stock, expected, [near, near]) == []
  assert tff_processes.wrong_cases(cases, stock, near, [near]) == ['a']
  table = tff_processes.table(cases, stock, expected, [near, expected])
  assert '| group | a | 2 of 2 | 5e-07: kernels | bit for bit |' in table
  assert '| group | b | 2 of 2 | only in kind compared: clock |' in table


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize(
  'num_processes, only',
  [
    (1, ()),
    # What depends on the order of sets differs from process to process.
    (3, ('fed_prox',)),
  ],
)
def test_tffs_processes_in_fresh_processes(tmp_path, num_processes, only):
  cases = tff_processes.chosen(tff_cases.cases(), only)
  results = tff_processes.run_in_fresh_processes(
    num_processes, str(tmp_path), num_stock=1, at_a_time=2, only=only
  )
  assert cases
  assert tff_processes.wrong_cases(cases, *results) == []
