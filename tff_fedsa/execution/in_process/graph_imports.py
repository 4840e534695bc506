"""Imports of TFF graphs into this process."""

from collections.abc import Iterable
import functools
import itertools
import weakref

import tensorflow as tf
from tensorflow.core.framework import function_pb2
from tensorflow.core.protobuf import config_pb2
from tensorflow.python.eager import cancellation
from tensorflow.python.eager import context
from tensorflow.python.eager import execute
from tensorflow.python.eager.polymorphic_function import atomic_function
from tensorflow.python.framework import func_graph
from tensorflow_federated.proto.v0 import computation_pb2
from tensorflow_federated.python.core.impl.utils import tensorflow_utils
from tensorflow_federated.python.tensorflow_libs import serialization_utils

from tff_fedsa.execution.in_process import graph_rewriting
from tff_fedsa.execution.in_process import xla_steps

_numbers = itertools.count()


class GraphImport:
  """One import of a graph. Parallel executions share its kernels.

  Attributes:
    is_reentrant: Whether parallel executions are safe. Some of oneDNN's kernels
      keep pointers of one execution, which others would use.
  """

  def __init__(
    self, proto: computation_pb2.TensorFlow, *, is_compiled: bool = True
  ):
    """Imports the graph of a TFF computation.

    Args:
      proto: The graph.
      is_compiled: Whether the context's compiler has run Grappler.

    Raises:
      UserError: If XLA has to compile a training step, and cannot.
    """
    self._is_compiled = is_compiled
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
    self._names: list[str] = []
    weakref.finalize(self, _remove_functions, self._names).atexit = False
    for function in graph_def.library.function:
      self._register(function)
    for function in graph_def.library.function:
      xla_steps.check(function)
    # Calls find their functions in the registry. With a library, TensorFlow
    # would infer shapes through a function in an order of addresses, and fails
    # (`Missing src context`) if it meets a lowered loop from its wrong end.
    graph_rewriting.call_by_name(graph_def)
    graph_def.ClearField('library')
    graph = func_graph.FuncGraph('imported')
    with graph.as_default():
      tf.graph_util.import_graph_def(graph_def, name='')
    graph.inputs = [graph.as_graph_element(name) for name in inputs]
    graph.outputs = [graph.as_graph_element(name) for name in outputs]
    graph.control_outputs = [graph.as_graph_element(name) for name in cleaning]
    self._name = f'imported_{next(_numbers)}'
    function = atomic_function.from_func_graph(self._name, graph, {})
    # Registered again, because the function outlives Python's graph, which is
    # no longer needed.
    self._register(function.definition)
    func_graph.dismantle_func_graph(graph)
    self._num_outputs = len(outputs)

  def _register(self, function: function_pb2.FunctionDef) -> None:
    """Adds a function to TensorFlow's registry, for the life of this object."""
    context.context().add_function_def(function)
    self._names.append(function.signature.name)

  def execute(
    self,
    inputs: list[tf.Tensor],
    manager: cancellation.CancellationManager,
  ) -> list[tf.Tensor]:
    """Executes the graph on the current device.

    Args:
      inputs: Eager tensors, one for each leaf of the parameter.
      manager: Can stop the execution.

    Raises:
      tf.errors.OpError: If an operation fails.
    """
    # Like `Context.call_function`, which has one cancellation manager for the
    # whole process.
    eager_context = context.context()
    attributes = eager_context.function_call_options.as_attrs()
    attributes['config_proto'] = _quick_config(
      attributes['config_proto'],
      is_done=self._is_compiled
      and eager_context.device_spec.device_type == 'CPU',
    )
    return execute.execute_with_cancellation(
      self._name,
      num_outputs=self._num_outputs,
      inputs=inputs,
      attrs=tuple(itertools.chain.from_iterable(attributes.items())),
      ctx=eager_context,
      cancellation_manager=manager,
    )


@functools.cache
def _quick_config(serialized: bytes, is_done: bool) -> bytes:
  """Returns Grappler's configuration without passes that change nothing.

  The context's compiler has run Grappler already, and on CPUs nothing is left
  to do. GPUs have passes of their own.

  Args:
    serialized: The `ConfigProto` of TensorFlow's context.
    is_done: Whether the function is compiled and runs on a CPU.
  """
  config = config_pb2.ConfigProto.FromString(serialized)
  options = config.graph_options.rewrite_options
  options.disable_tfg_optimizer = True
  options.disable_meta_optimizer = is_done
  return config.SerializeToString(deterministic=True)


def _remove_functions(names: Iterable[str]) -> None:
  for name in names:
    # The context's method at that time: see `function_removals`.
    context.context().remove_function(name)
