"""The benchmark compares two ways to the same weights."""

import numpy as np
import pytest

from tests import programs
from tff_fedsa.aggregation import screening

overhead = programs.load('benchmarks.overhead')


@pytest.mark.slow
@pytest.mark.usefixtures('in_process_context')
def test_both_contenders_do_the_same_steps():
  workload = overhead.Workload(
    'fedavg_cnn', batch_size=5, num_clients=2, num_examples=10, shuffle=False
  )
  contenders = [
    overhead.build_federated(workload),
    overhead.build_plain(workload, 2),
  ]
  timings, _ = overhead.compare(contenders, 1)
  for timing in timings:
    assert len(timing.seconds) == len(timing.cpu_seconds) == 1
    assert timing.seconds[0] > 0
  # One round from the start: then the server's anchors begin to move.
  ours, plain = (c.weights(c.next(c.initial)) for c in contenders)
  first = contenders[1].weights(contenders[1].initial)[0]
  assert len(ours) == len(plain) == 2
  for one, other in zip(ours, plain):
    step = np.max(np.abs(other - first))
    assert step > 1e-3
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * step)
  assert np.max(np.abs(ours[0] - ours[1])) > 1e-3


def test_splits_and_workloads_are_checked():
  assert overhead.parse_split('2x1') == (2, 1)
  for text in ('2', '2x', 'x1', '2*1'):
    with pytest.raises(ValueError, match='CLIENTSxTHREADS'):
      overhead.parse_split(text)
  with pytest.raises(ValueError, match='full batches'):
    overhead.Workload('fedavg_cnn', batch_size=3, num_examples=10)


@pytest.mark.usefixtures('in_process_context')
def test_rounds_without_the_check_are_the_same(monkeypatch):
  looked_at = []
  fault = screening.fault
  monkeypatch.setattr(
    screening,
    'fault',
    lambda *arguments: looked_at.append(arguments) or fault(*arguments),
  )
  unchecked = overhead.build_federated(
    overhead.Workload('digits_mlp', 5, 2, 10, checked=False)
  )
  assert not looked_at
  checked = overhead.build_federated(
    overhead.Workload('digits_mlp', 5, 2, 10, checked=True)
  )
  assert looked_at
  ours, plain = (c.weights(c.next(c.initial)) for c in (checked, unchecked))
  np.testing.assert_array_equal(ours, plain)


@pytest.mark.usefixtures('in_process_context')
def test_rounds_with_shared_weights_begin_with_them():
  alone, shared = (
    overhead.build_federated(
      overhead.Workload('digits_mlp', 5, 2, 10, share_weights=part)
    )
    for part in ('none', 'model')
  )
  before, after = (c.next(c.initial) for c in (alone, shared))
  # All begin the first round with the same weights, but not the second.
  np.testing.assert_array_equal(alone.weights(before), shared.weights(after))
  np.testing.assert_allclose(
    after[0].model.weights, np.mean(shared.weights(after), axis=0), atol=1e-6
  )
  before, after = alone.next(before), shared.next(after)
  assert not np.array_equal(alone.weights(before), shared.weights(after))


def test_a_contender_computes_in_its_own_context(runtimes):
  import tensorflow_federated as tff

  from tff_fedsa.execution.in_process import contexts

  with runtimes.default('in_process'):
    own = contexts.create_in_process_context(jit_compile=True)
    seen = []
    contender = overhead.Contender(
      0,
      lambda state: seen.append(tff.framework.get_context_stack().current),
      lambda _: [],
    )
    overhead._in_context(own, contender).next(0)
    assert seen == [own]


# What a version of the project needs for the comparison.
_TREE = {
  'benchmarks/__init__.py': '',
  'benchmarks/overhead.py': """
import os, types
Workload = dict
def build_federated(workload):
  print('no answer')
  def run_round(count):
    with open('../order', 'a') as file:
      file.write(f'{os.path.basename(os.getcwd())}{count} ')
    return count + 1
  return types.SimpleNamespace(initial=workload['num_clients'], next=run_round)
""",
  'tff_fedsa/__init__.py': '',
  'tff_fedsa/execution/__init__.py': '',
  'tff_fedsa/execution/in_process/__init__.py': '',
  'tff_fedsa/execution/in_process/contexts.py': """
def set_in_process_context(max_concurrent_clients, intra_op_threads):
  assert max_concurrent_clients >= intra_op_threads == 1
""",
}


def _tree(folder, name):
  for file, text in _TREE.items():
    path = folder / name / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
  return str(folder / name)


def test_versions_take_turns_in_processes_of_their_own(tmp_path):
  trees = [_tree(tmp_path, name) for name in 'ab']
  workload = overhead.Workload('m', 10, num_clients=2)
  timings = overhead.compare_trees(workload, trees, rounds=3)
  for timing in timings:
    assert len(timing.seconds) == len(timing.cpu_seconds) == 3
    assert min(timing.seconds) > 0 and min(timing.cpu_seconds) >= 0
  # Two rounds are a warm-up.
  turns = [f'{name}{count} ' for count in range(2, 7) for name in 'ab']
  assert (tmp_path / 'order').read_text() == ''.join(turns)


def test_a_version_that_fails_is_named(tmp_path):
  tree = _tree(tmp_path, 'old')
  (tmp_path / 'old' / 'benchmarks' / 'overhead.py').write_text('1 / 0')
  with pytest.raises(RuntimeError, match='old: .*(?s:.)*ZeroDivisionError'):
    overhead.compare_trees(overhead.Workload('m', 10), [tree], rounds=1)
