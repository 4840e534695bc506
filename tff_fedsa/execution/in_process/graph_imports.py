"""A TFF graph among the functions of this process, ready to be executed."""

import itertools

import tensorflow as tf
from tensorflow.python.eager import cancellation
from tensorflow.python.eager import context
from tensorflow.python.eager import execute
from tensorflow_federated.proto.v0 import computation_pb2
from tensorflow_federated.python.core.impl.utils import tensorflow_utils
from tensorflow_federated.python.tensorflow_libs import serialization_utils

from tff_fedsa.execution.in_process import graph_rewriting


class GraphImport:
  """One import of a graph; executions at the same time share its kernels.

  Attributes:
    is_reentrant: Whether it may be executed several times at once. Some of
      oneDNN's kernels keep what belongs to one execution: others would compute
      with it, or write where it lies no more.
  """

  def __init__(self, proto: computation_pb2.TensorFlow):
    """Imports the graph of a TFF computation."""
    inputs = (
      tensorflow_utils.extract_tensor_names_from_binding(proto.parameter)
      if proto.HasField('parameter')
      else []
    )
    outputs = tensorflow_utils.extract_tensor_names_from_binding(proto.result)
    graph_def = serialization_utils.unpack_graph_def(proto.graph_def)
    cleaning = graph_rewriting.rewrite(
      graph_def,
      inputs=inputs,
      outputs=outputs,
      initialize_op=proto.initialize_op,
      session_token=proto.session_token_tensor_name,
    )
    self.is_reentrant = graph_rewriting.is_reentrant(graph_def)
    imported = tf.compat.v1.wrap_function(
      lambda: tf.graph_util.import_graph_def(graph_def, name=''), signature=[]
    )
    graph = imported.graph
    # Kept: with it goes the function from TensorFlow's registry.
    self._function = imported.prune(
      [graph.as_graph_element(name) for name in inputs],
      [graph.as_graph_element(name) for name in (*outputs, *cleaning)],
    )
    name = self._function.name
    self._name = name.decode() if isinstance(name, bytes) else name
    self._num_outputs = len(outputs)

  def execute(
    self,
    inputs: list[tf.Tensor],
    manager: cancellation.CancellationManager,
  ) -> list[tf.Tensor]:
    """Executes the graph on the current device.

    Args:
      inputs: Eager tensors, one for each leaf of the parameter.
      manager: Stops it.

    Raises:
      tf.errors.OpError: If an operation fails.
    """
    # The way of `Context.call_function`, which has one cancellation manager for
    # the whole process. (Calling the function itself would also check a
    # signature that pruned functions don't have.)
    eager_context = context.context()
    attributes = eager_context.function_call_options.as_attrs().items()
    return execute.execute_with_cancellation(
      self._name,
      num_outputs=self._num_outputs,
      inputs=inputs,
      attrs=tuple(itertools.chain.from_iterable(attributes)),
      ctx=eager_context,
      cancellation_manager=manager,
    )
