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


def test_cases_are_chosen_by_a_part_or_by_their_name():
  cases = dict.fromkeys(['secure', 'ddp_secure of 3', 'mean'], _EXACT)
  chosen = lambda *only: list(tff_processes.chosen(cases, only))
  assert chosen() == list(cases)
  assert chosen('secure') == ['secure']
  assert chosen('sec', 'mean') == list(cases)
  assert chosen('ddp') == ['ddp_secure of 3']


def _without_repetitions(cases):
  """Names of cases, one for each process and aggregator of TFF.

  Left out are those that take the way of others, e.g. with other numbers: a
  weighted process has a Keras model here and its unweighted twin a functional
  one, schedules have a functional model, and an aggregator that is part of
  another one isn't repeated. `python -m benchmarks.tff_processes` runs all.
  """
  return [
    name
    for name in cases
    if name not in _LEFT_OUT
    and (not name.startswith('ddp_secure') or name.endswith('of 3, hd'))
  ]


_TWINS = ('fed_avg', 'fed_prox', 'mime_lite')
_LEFT_OUT = {
  *(f'build_unweighted_{name}, Keras' for name in _TWINS),
  *(f'build_weighted_{name}, functional' for name in _TWINS),
  'build_weighted_fed_avg_with_optimizer_schedule, Keras',
  'build_mime_lite_with_optimizer_schedule, Keras',
  # build_unweighted_fed_avg, functional has them.
  'build_weighted_fed_avg by build_adam',
  'build_weighted_fed_avg by build_yogi',
  # Zeroing and clipping as in compression_aggregator.
  'robust_aggregator',
  # Capped and not secure; secure and not capped.
  'build_iblt_computation',
}


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_tffs_processes_in_fresh_processes(tmp_path):
  names = _without_repetitions(tff_cases.cases())
  assert set(tff_cases.cases()) > _LEFT_OUT
  # What depends on the order of sets differs from process to process: the
  # second run adds two processes to the first one's results.
  prox = [name for name in names if 'fed_prox' in name]
  for num_processes, only in ((1, names), (3, prox)):
    results = tff_processes.run_in_fresh_processes(
      num_processes, str(tmp_path), again=False, at_a_time=2, only=only
    )
    cases = {name: tff_cases.cases()[name] for name in only}
    assert cases
    assert tff_processes.wrong_cases(cases, *results) == []
