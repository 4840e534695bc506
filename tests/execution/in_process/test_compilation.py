"""Steps and branches stay functions, unlike with TFF's compiler."""

import threading

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff
from tensorflow_federated.python.core.backends.native import (
  compiler as native_compiler,
)
from tensorflow_federated.python.core.impl.computation import computation_impl
from tensorflow_federated.python.tensorflow_libs import serialization_utils

from tff_fedsa.execution.in_process import cancellation
from tff_fedsa.execution.in_process import contexts


def _build():
  step = tf.function(
    lambda x: tf.tanh(x) * 2.0,
    experimental_attributes={'_noinline': True},
    autograph=False,
  ).get_concrete_function(tf.TensorSpec([None]))

  @tff.tensorflow.computation(tff.TensorType(np.float32, [None]))
  def loop(x):
    return tf.while_loop(
      lambda i, x: i < 3, lambda i, x: (i + 1, step(x)), (0, x)
    )[1]

  return loop


def _graph(compiled):
  proto = computation_impl.ConcreteComputation.get_proto(compiled)
  return serialization_utils.unpack_graph_def(proto.tensorflow.graph_def)


def _tanh_is_in_a_function_of_its_own(compiled):
  graph = _graph(compiled)
  loops = [n.attr['body'].func.name for n in graph.node if 'body' in n.attr]
  with_tanh = [
    function.signature.name
    for function in graph.library.function
    if any(node.op == 'Tanh' for node in function.node_def)
  ]
  in_graph = any(node.op == 'Tanh' for node in graph.node)
  return not in_graph and bool(set(with_tanh) - set(loops))


@pytest.mark.parametrize(
  'compile_fn, stays',
  [
    (contexts._to_native_form, True),
    (native_compiler.desugar_and_transform_to_native, False),
  ],
)
def test_a_marked_step_stays_a_function(compile_fn, stays):
  compiled = compile_fn(_build())
  assert _tanh_is_in_a_function_of_its_own(compiled) == stays


@pytest.fixture
def use(runtimes):
  """Makes a context the default until the end of the test."""
  with runtimes.default('in_process'):
    yield tff.framework.get_context_stack().set_default_context


@pytest.fixture(scope='module')
def by_case():
  """By the client's kind: a reduction of a data set, a loop, or an error."""

  def sum_of_dataset(x):
    return tf.data.Dataset.from_tensor_slices(x).reduce(0.0, lambda s, e: s + e)

  def sum_of_tanh(x):
    return tf.while_loop(
      lambda i, total: i < tf.size(x),
      lambda i, total: (i + 1, total + tf.tanh(x[i])),
      (0, 0.0),
    )[1]

  @tf.function(autograph=False)
  def work(kind, x):
    return tf.switch_case(
      kind,
      [
        lambda: sum_of_dataset(x),
        lambda: sum_of_tanh(x),
        lambda: tf.debugging.check_numerics(tf.reduce_sum(x) / 0.0, 'broken'),
      ],
    )

  return tff.tensorflow.computation(
    lambda kind, x: work(kind, x),
    (tff.TensorType(np.int32), tff.TensorType(np.float32, [None])),
  )


@pytest.mark.parametrize('only_cpus', [False, True])
def test_branches_stay_functions_on_cpus(by_case, only_cpus):
  graph = _graph(contexts._to_native_form(by_case, only_cpus))
  nodes = [
    *graph.node,
    *(n for f in graph.library.function for n in f.node_def),
  ]
  (case,) = (node for node in nodes if node.op in ('Case', 'StatelessCase'))
  # Elsewhere TensorFlow makes them part of the graph when it is executed.
  assert case.attr['_lower_using_switch_merge'].b is not only_cpus


def test_clients_take_their_own_branches(use, by_case):
  use(contexts.create_in_process_context(max_concurrent_clients=4))

  @tff.federated_computation(
    tff.FederatedType(np.int32, tff.CLIENTS),
    tff.FederatedType(tff.TensorType(np.float32, [None]), tff.CLIENTS),
  )
  def run(kinds, x):
    return tff.federated_map(by_case, (kinds, x))

  kinds = [0, 1, 1, 0] * 5
  x = [np.full([10], i, np.float32) for i in range(20)]
  expected = [
    10 * (i if kind == 0 else np.tanh(i)) for i, kind in enumerate(kinds)
  ]
  for _ in range(5):
    np.testing.assert_allclose(run(kinds, x), expected, rtol=1e-5)
  with pytest.raises(tf.errors.InvalidArgumentError, match='broken') as caught:
    run([0, 2], x[:2])
  assert 'client 1 of 2' in caught.value.__notes__[0]


def test_branches_can_be_cancelled(use):
  context = contexts.create_in_process_context()
  use(context)

  @tf.function(autograph=False)
  def work(kind):
    def forever():
      return tf.while_loop(lambda i: i >= 0, lambda i: (i + 1) % 9, (0,))[0]

    return tf.switch_case(kind, [lambda: 0, forever])

  endless = tff.tensorflow.computation(lambda kind: work(kind), np.int32)
  assert endless(0) == 0
  timer = threading.Timer(1.0, context.runtime.cancel)
  timer.start()
  with pytest.raises((tf.errors.CancelledError, cancellation.Cancelled)):
    endless(1)
  timer.join()
  assert endless(0) == 0


def test_equal_small_graphs_are_optimized_once():
  def compiled():
    add = tff.tensorflow.computation(lambda x: x * 3.0 + 1.25, np.float32)
    return _graph(contexts._to_native_form(add))

  first, before = compiled(), contexts._kept.cache_info()
  second, after = compiled(), contexts._kept.cache_info()
  assert first == second
  assert (after.hits, after.misses) == (before.hits + 1, before.misses)
