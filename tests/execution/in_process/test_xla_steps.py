"""Training steps that XLA compiles (`jit_compile`)."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff
from tensorflow_federated.python.core.impl.computation import computation_impl
from tensorflow_federated.python.tensorflow_libs import serialization_utils

from tests.algorithms import clients
from tff_fedsa import experiment
from tff_fedsa.algorithms import fedsa
from tff_fedsa.client import local_training
from tff_fedsa.execution.in_process import contexts
from tff_fedsa.execution.in_process import graph_rewriting
from tff_fedsa.models import functional
from tff_fedsa.runs import errors

# Relative to the largest entry, after three rounds.
_TOLERANCE = 1e-4


def _build(model, **options):
  return fedsa.build_fedsa(
    [model],
    input_spec=clients.SPEC,
    optimizer=clients.sgd(0.1),
    local=local_training.LocalTrainingConfig(**options),
  )


@pytest.fixture
def use(runtimes):
  """Returns `use(jit_compile)`, which sets a context until the test ends."""
  with runtimes.default('in_process'):
    yield lambda jit_compile: contexts.set_in_process_context(
      jit_compile=jit_compile
    )


def _numbers(result):
  server, states, _ = result
  return [
    server.model.anchors,
    *(np.asarray(part) for s in states for part in (s.weights, s.prototypes)),
  ]


def _assert_close(found, expected):
  for a, b in zip(found, expected, strict=True):
    np.testing.assert_allclose(a, b, atol=_TOLERANCE * np.max(np.abs(b)))


def _compare(use, **options):
  """Compares three rounds with and without."""
  # The last batch of a client has 3 examples.
  model, examples = clients.tiny_mlp(), clients.random_examples()
  process = _build(model, **options)
  results = []
  for jit_compile in (True, False):
    use(jit_compile)
    results.append(_numbers(clients.run(process, [model], examples, 3)))
  _assert_close(*results)
  assert any((a != b).any() for a, b in zip(*results))


def test_rounds_equal_those_without(use):
  _compare(use, remainder='short')


@pytest.mark.slow
def test_steps_of_several_clients_equal_those_without(use):
  _compare(use, remainder='wrap', batch_clients=2)


def _compiled_functions(process, jit_compile):
  """Returns the operations of each function that XLA compiles."""
  compiled = contexts._to_native_form(
    process.next, True, jit_compile=jit_compile
  )
  found = []

  def visit(block):
    if isinstance(block, tff.framework.CompiledComputation):
      graph = serialization_utils.unpack_graph_def(
        block.proto.tensorflow.graph_def
      )
      found.extend(
        {node.op for node in function.node_def}
        for function in graph.library.function
        if graph_rewriting.MUST_COMPILE in function.attr
      )
    for child in block.children():
      visit(child)

  visit(computation_impl.ConcreteComputation.to_building_block(compiled))
  return found


def test_only_steps_are_compiled_and_only_if_asked():
  process = _build(clients.tiny_mlp(), prototypes='final')
  (step,) = _compiled_functions(process, True)
  assert 'ReluGrad' in step and 'While' not in step
  # Grappler's own operations have no form in XLA.
  assert not any(kind.startswith('_Fused') for kind in step)
  assert _compiled_functions(process, False) == []


def test_a_graph_whose_normalization_xla_compiles_is_reentrant():
  graph = tf.compat.v1.GraphDef()
  function = graph.library.function.add()
  function.node_def.add(op='FusedBatchNormV3')
  assert not graph_rewriting.is_reentrant(graph)
  function.attr[graph_rewriting.MUST_COMPILE].b = True
  assert graph_rewriting.is_reentrant(graph)


def _dawson(images):
  hidden = tf.keras.layers.Dense(16)(tf.keras.layers.Flatten()(images))
  return tf.keras.layers.Lambda(tf.math.special.dawsn, name='dawson')(hidden)


def _lstm(images):
  return tf.keras.layers.LSTM(16)(tf.keras.layers.Reshape([8, 8])(images))


@pytest.mark.parametrize(
  'layer, problem, name',
  [
    # XLA has no kernel of it.
    (_dawson, "'Dawsn'", 'dawson'),
    pytest.param(
      _lstm, 'fixed tensor list size', 'lstm', marks=pytest.mark.slow
    ),
  ],
)
def test_a_step_that_xla_cannot_compile_is_refused_before_it_runs(
  use, layer, problem, name
):
  def build_fn():
    images = tf.keras.Input([8, 8, 1])
    return functional.KerasClientModel(
      tf.keras.Model(images, layer(images)),
      tf.keras.Sequential([tf.keras.Input([16]), tf.keras.layers.Dense(10)]),
    )

  model = functional.FunctionalModel(build_fn, name='refused')
  process, examples = _build(model), clients.random_examples()
  use(True)
  with pytest.raises(errors.UserError) as refused:
    clients.run(process, [model], examples, 1)
  message = str(refused.value)
  assert '`jit_compile`: expected a training step that XLA can' in message
  assert problem in message and name in message
  use(False)
  clients.run(process, [model], examples, 1)


def test_functions_of_other_libraries_stay_as_they_are(use):
  double = tff.tensorflow.computation(lambda x: 2.0 * x, np.float32)
  use(True)
  assert double(1.5) == 3.0


@pytest.mark.slow
def test_runs_on_digits_equal_those_without():
  settings = {
    'family': 'digits3',
    'num_clients': 6,
    'max_examples': 300,
    'alpha': 1.0,
    'feature_dim': 16,
    'total_rounds': 3,
    'rounds_per_evaluation': 3,
    'progress': False,
  }
  numbers = []
  for jit_compile in (False, True, False):
    result = experiment.Experiment(**settings, jit_compile=jit_compile).run()
    states = [result.store.get(i) for i in range(6)]
    numbers.append(
      [
        result.server_state.model.anchors,
        *(part for s in states for part in (s.weights, s.prototypes)),
      ]
    )
  without, compiled, again = numbers
  _assert_close(compiled, without)
  for a, b in zip(without, again, strict=True):
    np.testing.assert_array_equal(a, b)
