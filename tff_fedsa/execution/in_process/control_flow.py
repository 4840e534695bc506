"""Loops and conditions that stay functional until their graph is executed.

Grappler would lower them to `Enter`, `Switch`, `Merge` and so on, in functions
that stay functions, too: the context has it leave them alone. TensorFlow lowers
them when it prepares a graph to be executed. For that to mean the same, graphs
are changed before Grappler in two ways.

Side effects: for Grappler, who waits for a condition's result may as well wait
for the condition. A lowered one waits for what its branches say must be done
only. If they say nothing, an assertion in a branch would be left out.

Branches of a `tf.switch_case`: lowered, all become part of one graph. For a
client's work, with one branch per architecture, such a graph is three times as
large, and every import of it prepares all architectures for one that is taken.
As a function, a branch is prepared when it is first taken. It consists of a
call, since TensorFlow lowers loops in what is called, but not in what a case
takes: there each step of a loop would be a call within the last one's, until
the stack overflows.
"""

from typing import Any

from tensorflow.core.framework import function_pb2
from tensorflow.core.framework import graph_pb2
from tensorflow_federated.python.core.impl.compiler import building_blocks
from tensorflow_federated.python.core.impl.compiler import transformation_utils
from tensorflow_federated.python.tensorflow_libs import serialization_utils

from tff_fedsa.execution.in_process import graph_rewriting

_CASES = ('Case', 'StatelessCase')
_LOWERING = '_lower_using_switch_merge'


def prepare(block: Any, keep_cases: bool) -> Any:
  """Returns a building block whose graphs are ready for Grappler.

  Args:
    block: A `building_blocks.ComputationBuildingBlock`.
    keep_cases: Whether branches stay functions. Only for CPUs: all of a branch
      runs on the device of the case, while in a lowered one TensorFlow finds a
      device for what has no kernel there.
  """

  def transform(part: Any) -> tuple[Any, bool]:
    if (
      not isinstance(part, building_blocks.CompiledComputation)
      or part.proto.WhichOneof('computation') != 'tensorflow'
    ):
      return part, False
    proto = part.proto
    graph_def = serialization_utils.unpack_graph_def(proto.tensorflow.graph_def)
    if not graph_def.library.function:
      return part, False
    for function in graph_def.library.function:
      _state_side_effects(function)
    if keep_cases:
      _keep_cases(graph_def)
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
  """Makes callers of a function wait for everything that its results wait for.

  Functions that were traced by `tf.function` say themselves what must be done.
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
  """Adds a function that calls the named one; returns its name."""
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
