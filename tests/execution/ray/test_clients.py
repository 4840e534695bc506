"""Clients on a cluster: the same bits as in process, whatever is lost."""

import asyncio
import os
import signal
import threading

import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tests import rows
from tests.execution import computations
from tests.execution.ray import clusters
from tff_fedsa import experiment
from tff_fedsa.algorithms import registry
from tff_fedsa.execution import arrays
from tff_fedsa.execution.in_process import contexts as in_process
from tff_fedsa.execution.ray import contexts

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def connected():
  with clusters.connected(2) as (_, context):
    yield context


@pytest.fixture
def on_ray(connected, runtimes):
  """The cluster is TFF's default."""
  stack = tff.framework.get_context_stack()
  before = stack.current
  stack.set_default_context(connected)
  yield connected
  stack.set_default_context(before)


_SETTINGS = {
  'num_clients': 3,
  'max_examples': 150,
  'alpha': 1.0,
  'family': 'digits_mlp',
  'feature_dim': 16,
  'total_rounds': 2,
  'rounds_per_evaluation': 2,
  'progress': False,
}
# Each is FedSA with other client work or other parts, or another method.
_VARIANTS = {
  'models': {'family': 'digits_mlp,digits_cnn_bn'},
  'dp': {
    'dp': 'central',
    'dp_noise_multiplier': 1.0,
    'dp_clip_norm': 1.0,
  },
  'secure': {'secure': True},
  **{name: {'algorithm': name} for name in registry.NAMES},
}


@pytest.mark.parametrize('name', _VARIANTS)
def test_a_run_has_the_same_bits_as_in_process(
  name, connected, runtimes, monkeypatch
):
  variant = _VARIANTS[name]
  described = experiment.Experiment(**{**_SETTINGS, **variant})
  results = []
  stack = tff.framework.get_context_stack()
  local = 'in_the_clear' if 'secure' in variant else 'in_process'
  with runtimes.default(local) as here:
    for context in (here, connected):
      if context is connected and 'secure' in variant:
        context = contexts.create_ray_context(
          'auto',
          secure_in_the_clear=True,
          results_stay=True,
          **clusters.OPTIONS,
        )
      stack.set_default_context(context)
      result = described.run()
      results.append(
        (
          rows.stable(result.rows),
          [result.store.get(i)._asdict() for i in range(3)],
          result.server_state.model,
        )
      )
  clusters.assert_same_bits(results[1], results[0])


def test_compiled_steps_have_the_same_bits_as_in_process(connected, runtimes):
  described = experiment.Experiment(**_SETTINGS)
  results = []
  stack = tff.framework.get_context_stack()
  with runtimes.default('in_process'):
    for context in (
      in_process.create_in_process_context(jit_compile=True),
      contexts.create_ray_context(
        'auto', jit_compile=True, results_stay=True, **clusters.OPTIONS
      ),
      connected,
    ):
      stack.set_default_context(context)
      result = described.run()
      results.append([result.store.get(i)._asdict() for i in range(3)])
  compiled, on_ray, without = results
  clusters.assert_same_bits(on_ray, compiled)
  with pytest.raises(AssertionError):
    clusters.assert_same_bits(on_ray, without)


_SGD = tff.learning.optimizers.build_sgdm(0.1)


@pytest.mark.parametrize(
  'build',
  [
    lambda fn: tff.learning.algorithms.build_weighted_fed_avg(fn, _SGD),
    lambda fn: tff.learning.algorithms.build_weighted_fed_prox(
      fn, proximal_strength=0.1, client_optimizer_fn=_SGD
    ),
    lambda fn: tff.learning.algorithms.build_unweighted_fed_avg(
      fn,
      _SGD,
      model_aggregator=tff.aggregators.DifferentiallyPrivateFactory.gaussian_fixed(
        noise_multiplier=0.0, clients_per_round=3, clip=0.1
      ),
    ),
  ],
  ids=['fed_avg', 'fed_prox', 'dp'],
)
def test_tffs_processes_have_the_same_bits(build, on_ray, runtimes):
  # The weights of the hidden layer are large, its bias is not.
  run = computations.build_learning(build, num_hidden=600)
  found = run()
  assert not any(
    isinstance(leaf, arrays.RemoteArray) for leaf in tf.nest.flatten(found)
  )
  with runtimes.default('in_process'):
    clusters.assert_same_bits(found, run())


def test_large_results_stay_where_they_were_computed(on_ray, runtimes):
  states = clusters.rounds(clusters.states(), 3)
  assert all(isinstance(state, arrays.RemoteArray) for state in states)
  with runtimes.default('in_process'):
    expected = clusters.rounds(clusters.states(), 3)
  clusters.assert_same_bits(states, expected)
  # After `rounds_per_copy` computations there is a copy here.
  assert [state.kept.depth for state in clusters.rounds(states, 1)] == [0] * 4


def test_an_error_of_a_client_names_client_node_and_operation(on_ray):
  with pytest.raises(
    tf.errors.OpError, match='too large.*assert_less'
  ) as raised:
    computations.map_small([1, 2, 300, 4])
  (note,) = raised.value.__notes__
  assert 'client 2 of 4' in note
  assert computations.map_small([1, 2, 3]) == [2, 3, 4]


def test_an_interrupt_leaves_the_context_usable(on_ray):
  assert clusters.map_slow([0]) == [clusters.STEPS]
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  try:
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
      clusters.map_slow(computations.TWELVE * 20)
  finally:
    signal.signal(signal.SIGINT, before)
  assert computations.map_small([1, 2]) == [2, 3]


def test_an_asynchronous_context(on_ray):
  context = contexts.create_async_ray_context('auto', **clusters.OPTIONS)
  with tff.framework.get_context_stack().install(context):
    assert asyncio.run(computations.map_small([1, 2])) == [2, 3]
