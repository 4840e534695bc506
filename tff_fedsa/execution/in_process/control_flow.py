"""Loops and conditions that stay functional until their graph is executed.

Grappler would lower loops and conditions to `Enter`, `Switch`, `Merge` and so
on, also in functions that stay functions. So the context turns this off.
TensorFlow lowers them when it prepares a graph for execution. To keep the
meaning, graphs are changed in two ways before Grappler.

Side effects: a lowered condition waits only for the operations that its
branches declare as side effects. Without a declaration, an assertion in a
branch would be skipped. So the branches declare theirs.

Branches of a `tf.switch_case`: lowered branches become part of one graph.
Client work has one branch per architecture. Its lowered graph is three times as
large, and every import prepares all architectures, although one is taken. A
branch that stays a function is prepared on first use. The branch consists of
one call, because TensorFlow lowers loops in called functions, but not in
branches of a case. There each step of a loop would be a nested call, until the
stack overflows.
"""

from typing import Any

from tensorflow.core.framework import function_pb2
from tensorflow.core.framework import graph_pb2
from tensorflow_federated.python.core.impl.compiler import building_blocks
from tensorflow_federated.python.core.impl.compiler import transformation_utils
from tensorflow_federated.python.tensorflow_libs import serialization_utils

from tff_fedsa.execution.in_process import equal_tensors
from tff_fedsa.execution.in_process import graph_rewriting
from tff_fedsa.execution.in_process import xla_steps

_CASES = ('Case', 'StatelessCase')
_LOWERING = '_lower_using_switch_merge'


def prepare(block: Any, keep_cases: bool, jit_compile: bool = False) -> Any:
  """Returns a building block whose graphs are ready for Grappler.

  Args:
    block: A `building_blocks.ComputationBuildingBlock`.
    keep_cases: Whether branches stay functions. This is only for CPUs, because
      the whole branch runs on the device of the case. For lowered branches,
      TensorFlow finds another device for operations without a kernel.
    jit_compile: Whether XLA compiles training steps, see `xla_steps`.
  """

  def transform(part: Any) -> tuple[Any, bool]:
    if (
      not isinstance(part, building_blocks.CompiledComputation)
      or part.proto.WhichOneof('computation') != 'tensorflow'
    ):
      return part, False
    proto = part.proto
    graph_def = serialization_utils.unpack_graph_def(proto.tensorflow.graph_def)
    is_changed = equal_tensors.may_have_stacks(
      proto.tensorflow.graph_def.value
    ) and equal_tensors.keep(graph_def)
    if not graph_def.library.function and not is_changed:
      return part, False
    for function in graph_def.library.function:
      _state_side_effects(function)
    if keep_cases:
      _keep_cases(graph_def)
    if jit_compile:
      xla_steps.mark(graph_def)
    changed = type(proto)()
    changed.CopyFrom(proto)
    changed.tensorflow.graph_def.CopyFrom(
      serialization_utils.pack_graph_def(graph_def)
    )
    block = building_blocks.CompiledComputation(
      changed, type_signature=part.type_signature
    )
    return block, True

  return transformation_utils.transform_postorder(block, transform)[0]


def _state_side_effects(function: function_pb2.FunctionDef) -> None:
  """Makes callers of a function wait for its side effects.

  Functions traced by `tf.function` declare their side effects themselves.
  """
  if not function.signature.is_stateful or function.control_ret:
    return
  names = {name.partition(':')[0] for name in function.ret.values()}
  names -= {argument.name for argument in function.signature.input_arg}
  for name in sorted(names):
    function.control_ret[name] = name
    function.signature.control_output.append(name)


def _keep_cases(graph_def: graph_pb2.GraphDef) -> None:
  for node in list(graph_rewriting.all_nodes(graph_def)):
    if node.op in _CASES and _LOWERING in node.attr:
      del node.attr[_LOWERING]
      for branch in node.attr['branches'].list.func:
        branch.name = _calling(graph_def.library, branch.name)


def _calling(library: function_pb2.FunctionDefLibrary, name: str) -> str:
  """Adds a function that calls the named one, and returns its name."""
  functions = {
    function.signature.name: function for function in library.function
  }
  calling_name = f'{name}_called'
  if calling_name in functions:
    return calling_name
  called = functions[name]
  called.attr['_noinline'].b = True
  calling = library.function.add()
  calling.signature.CopyFrom(called.signature)
  calling.signature.name = calling_name
  calling.signature.control_output[:] = ['call']
  calling.control_ret['call'] = 'call'
  inputs, outputs = called.signature.input_arg, called.signature.output_arg
  node = calling.node_def.add()
  node.name, node.op = 'call', 'StatefulPartitionedCall'
  node.input.extend(argument.name for argument in inputs)
  node.attr['Tin'].list.type.extend(argument.type for argument in inputs)
  node.attr['Tout'].list.type.extend(argument.type for argument in outputs)
  node.attr['f'].func.name = name
  for index, argument in enumerate(outputs):
    calling.ret[argument.name] = f'call:output:{index}'
  return calling_name
