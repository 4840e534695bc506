"""Turns reductions over data sets into while loops.

The kernel of `ReduceDataset` exists only for CPUs. It instantiates its
function, Grappler included, in every execution, which takes 0.1 s per client
and round. A loop over an iterator is instantiated once, and its body runs on
the device of the call. `for batch in dataset` of autograph is a reduction over
a `ScanDataset` with the loop's variables. It becomes a loop, too.
"""

from typing import Any, Optional

import tensorflow as tf

# These two modules give TensorFlow's protos, which have no public name.
from tensorflow.core.framework import attr_value_pb2
from tensorflow.core.framework import function_pb2
from tensorflow.core.framework import graph_pb2
from tensorflow.core.framework import node_def_pb2

_CPU = 'CPU:0'


def replace_reductions(graph_def: graph_pb2.GraphDef) -> int:
  """Replaces all `ReduceDataset` nodes of a graph and its functions, in place.

  Returns:
    Number of replaced nodes.
  """
  library = {f.signature.name: f for f in graph_def.library.function}
  new_functions: dict[str, function_pb2.FunctionDef] = {}
  count = 0
  scopes: list[tuple[Any, Optional[function_pb2.FunctionDef]]] = [
    (graph_def.node, None)
  ]
  scopes += [(f.node_def, f) for f in graph_def.library.function]
  for nodes, function in scopes:
    by_name = {node.name: node for node in nodes}
    replaced = set()
    for node in nodes:
      if node.op == 'ReduceDataset':
        source = by_name.get(_node_name(node.input[0]))
        scan = source if source and source.op == 'ScanDataset' else None
        _replace(node, scan, library, new_functions)
        replaced.add(node.name)
    if function is not None and replaced:
      _rename_outputs(function, replaced)
    count += len(replaced)
  graph_def.library.function.extend(new_functions.values())
  return count


def _replace(
  node: node_def_pb2.NodeDef,
  scan: Optional[node_def_pb2.NodeDef],
  library: dict[str, function_pb2.FunctionDef],
  new_functions: dict[str, function_pb2.FunctionDef],
) -> None:
  """Replaces a reduction by a call of a loop, and adds the loop's functions."""
  reducer = _Step(node, library)
  scanner = None if scan is None else _Step(scan, library)
  loop = _build_loop(reducer, scanner, node.attr['output_shapes'].list.shape)
  graph = loop.graph.as_graph_def()
  for function in (*graph.library.function, loop.function_def):
    new_functions.setdefault(function.signature.name, function)
  dataset, state, others, control = _inputs(node, reducer)
  if scanner is not None:
    assert scan is not None
    dataset, scan_state, scan_others, scan_control = _inputs(scan, scanner)
    state, others = state + scan_state, others + scan_others
    control += scan_control
  types = [tensor_input.dtype for tensor_input in loop.inputs]
  node.op = 'StatefulPartitionedCall'
  node.input[:] = [dataset, *state, *others, *control]
  node.ClearField('attr')
  node.attr['Tin'].list.type.extend(t.as_datatype_enum for t in types)
  node.attr['Tout'].list.type.extend(reducer.state_types)
  node.attr['f'].func.name = _text(loop.name)


class _Step:
  """The function of a reduction or scan: `(state, element, others) -> ...`."""

  def __init__(
    self,
    node: node_def_pb2.NodeDef,
    library: dict[str, function_pb2.FunctionDef],
  ):
    self.function_name = node.attr['f'].func.name
    self.state_types = list(node.attr['Tstate'].list.type)
    self.other_types = list(node.attr['Targuments'].list.type)
    signature = library[self.function_name].signature
    inputs = [argument.type for argument in signature.input_arg]
    self.element_types = inputs[
      len(self.state_types) : len(inputs) - len(self.other_types)
    ]
    self.result_types = [argument.type for argument in signature.output_arg]

  def call(self, arguments: list[tf.Tensor]) -> list[tf.Tensor]:
    # By name, because the function joins this one only in the rewritten graph.
    return tf.raw_ops.StatefulPartitionedCall(
      args=arguments,
      Tout=[tf.as_dtype(t) for t in self.result_types],
      f=attr_value_pb2.NameAttrList(name=self.function_name),
    )


def _build_loop(
  reducer: _Step, scanner: Optional[_Step], state_shapes: Any
) -> Any:
  """Traces `loop(dataset, *state, *scan_state, *others, *scan_others)`."""
  first = scanner or reducer
  scan_state_types = scanner.state_types if scanner else []
  scan_other_types = scanner.other_types if scanner else []
  num_state = len(reducer.state_types)
  num_states = num_state + len(scan_state_types)
  num_others = len(reducer.other_types)
  shapes = [tf.TensorShape(shape) for shape in state_shapes]
  element = {
    'output_types': [tf.as_dtype(t) for t in first.element_types],
    'output_shapes': [tf.TensorShape(None)] * len(first.element_types),
  }

  def loop(dataset, *arguments):
    states = arguments[:num_states]
    others = list(arguments[num_states : num_states + num_others])
    scan_others = list(arguments[num_states + num_others :])
    with tf.device(_CPU):
      iterator = tf.raw_ops.AnonymousIteratorV3(**element)
      tf.raw_ops.MakeIterator(dataset=dataset, iterator=iterator)

    def get_next():
      with tf.device(_CPU):
        return tf.raw_ops.IteratorGetNextAsOptional(
          iterator=iterator, **element
        )

    def has_value(optional, *unused_states):
      with tf.device(_CPU):
        return tf.raw_ops.OptionalHasValue(optional=optional)

    def body(optional, *states):
      with tf.device(_CPU):
        parts = tf.raw_ops.OptionalGetValue(optional=optional, **element)
      state, scan_state = list(states[:num_state]), list(states[num_state:])
      if scanner is not None:
        scanned = scanner.call(scan_state + list(parts) + scan_others)
        scan_state = scanned[: len(scan_state)]
        parts = scanned[len(scan_state) :]
      state = reducer.call(state + list(parts) + others)
      for value, shape in zip(state, shapes):
        value.set_shape(shape)
      return (get_next(), *state, *scan_state)

    unknown = tf.TensorShape(None)
    results = tf.while_loop(
      has_value,
      body,
      (get_next(), *states),
      shape_invariants=(
        tf.TensorShape([]),
        *shapes,
        *([unknown] * len(scan_state_types)),
      ),
      parallel_iterations=1,
    )
    return [tf.identity(result) for result in results[1 : 1 + num_state]]

  specs = [tf.TensorSpec([], tf.variant)]
  specs += [
    tf.TensorSpec(shape, tf.as_dtype(t))
    for shape, t in zip(shapes, reducer.state_types)
  ]
  specs += [
    tf.TensorSpec(None, tf.as_dtype(t))
    for t in scan_state_types + reducer.other_types + scan_other_types
  ]
  return tf.function(loop, autograph=False).get_concrete_function(*specs)


def _inputs(
  node: node_def_pb2.NodeDef, step: _Step
) -> tuple[str, list[str], list[str], list[str]]:
  """Returns the inputs: data set, state, other arguments, control."""
  data = [name for name in node.input if not name.startswith('^')]
  control = [name for name in node.input if name.startswith('^')]
  end = 1 + len(step.state_types)
  return data[0], data[1:end], data[end:], control


def _rename_outputs(
  function: function_pb2.FunctionDef, replaced: set[str]
) -> None:
  """Within functions, an output is called `node:argument of the op:index`."""

  def renamed(name: str) -> str:
    node, colon, rest = name.partition(':')
    if colon and node in replaced:
      return f'{node}:output:{rest.rpartition(":")[2]}'
    return name

  for node in function.node_def:
    node.input[:] = [renamed(name) for name in node.input]
  for key in list(function.ret):
    function.ret[key] = renamed(function.ret[key])


def _node_name(name: str) -> str:
  return name.lstrip('^').partition(':')[0]


def _text(name: Any) -> str:
  return name.decode() if isinstance(name, bytes) else name
