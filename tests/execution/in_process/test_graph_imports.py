"""What importing a graph adds to TensorFlow's registry, and leaves there."""

import gc

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.eager import context as eager_context
import tensorflow_federated as tff
from tensorflow_federated.python.core.impl.computation import computation_impl

from tff_fedsa.execution.in_process import cancellation
from tff_fedsa.execution.in_process import graph_imports


def _import(computation):
  proto = computation_impl.ConcreteComputation.get_proto(computation)
  return graph_imports.GraphImport(proto.tensorflow)


def _registered():
  gc.collect()
  names = eager_context.context().list_function_names()
  # Without TensorFlow's own, of single operations.
  return {name for name in names if not name.startswith('__wrapped__')}


def _execute(imported, *inputs):
  with cancellation.Cancellation().manager() as manager:
    return imported.execute([tf.constant(x) for x in inputs], manager)


@tff.tensorflow.computation(np.float32)
def _nested(x):
  @tf.function(autograph=False, experimental_attributes={'api_implements': 'f'})
  def inner(x):
    return tf.while_loop(lambda y: y < 10.0, lambda y: y * 2.0, (x,))

  return tf.function(lambda x: inner(x)[0] + 1.0)(x)


def test_all_functions_of_an_import_leave_with_it():
  before = _registered()
  imported = _import(_nested)
  # The graph, the loop's condition and body, and both functions.
  assert len(_registered() - before) == 5
  assert _execute(imported, 1.0)[0].numpy() == 17.0
  del imported
  assert _registered() == before


def test_implementations_of_other_imports_are_others():
  imports = [_import(_nested) for _ in range(2)]
  definitions = map(
    eager_context.context().get_function_def, sorted(_registered())
  )
  interfaces = [
    definition.attr['api_implements'].s
    for definition in definitions
    if '_import' in definition.signature.name
    and 'api_implements' in definition.attr
  ]
  assert len(interfaces) == len(set(interfaces)) == len(imports)


def test_what_no_output_needs_is_left_out():
  @tff.tensorflow.computation(np.float32)
  def work(x):
    fails = tf.raw_ops.Assert(condition=False, data=['executed'])
    with tf.control_dependencies([fails]):
      tf.identity(x)
    return x + 1.0

  before = _registered()
  imported = _import(work)
  (name,) = _registered() - before
  definition = eager_context.context().get_function_def(name)
  assert 'Assert' not in {node.op for node in definition.node_def}
  assert _execute(imported, 1.0)[0].numpy() == 2.0


def test_a_parameter_may_be_the_result():
  work = tff.tensorflow.computation(lambda x: (x, x), np.float32)
  assert [x.numpy() for x in _execute(_import(work), 3.0)] == [3.0, 3.0]


def test_an_import_that_fails_leaves_nothing():
  proto = computation_impl.ConcreteComputation.get_proto(_nested).tensorflow
  proto = type(proto).FromString(proto.SerializeToString())
  # Noticed when the functions have been registered.
  proto.result.tensor.tensor_name += '7'
  before = _registered()
  with pytest.raises(KeyError, match=':07'):
    graph_imports.GraphImport(proto)
  assert _registered() == before
