"""What is marked `_noinline` stays a function, unlike with TFF's compiler."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff
from tensorflow_federated.python.core.backends.native import (
  compiler as native_compiler,
)
from tensorflow_federated.python.core.impl.computation import computation_impl
from tensorflow_federated.python.tensorflow_libs import serialization_utils

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


def _tanh_is_in_a_function_of_its_own(compiled):
  proto = computation_impl.ConcreteComputation.get_proto(compiled)
  graph = serialization_utils.unpack_graph_def(proto.tensorflow.graph_def)
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
