"""Calls in a client's function that have a form for several clients.

A TFF computation maps a function over clients. Where the function spends its
time in one call of tensors, `mark` attaches a second computation to that call,
which computes the call of K clients at once. The mark is part of the graph, so
the computation stays one of TFF: a runtime that does not know marks computes
each client alone. The runtime in process uses them (`joint_functions`).

The call's first argument is an integer, and only clients for which it is equal
are computed together. The last arguments are rows: their first dimension
differs from client to client. The arguments of the second computation are a
list: each argument of the call stacked, `[K, ...]`, but rows of all clients one
after the other, and then the number of rows of each, int32[K]. Its results are
those of the call, stacked.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Optional

import numpy as np
import tensorflow as tf

# These modules give TensorFlow's protos, which have no public name.
from tensorflow.core.framework import attr_value_pb2
from tensorflow.core.framework import graph_pb2
from tensorflow.core.framework import node_def_pb2
import tensorflow_federated as tff
from tensorflow_federated.proto.v0 import computation_pb2
from tensorflow_federated.python.tensorflow_libs import serialization_utils

_COMPUTATION = '_joint_computation'
_NUM_ROWS = '_joint_num_rows'


class Mark(NamedTuple):
  """A marked call.

  Attributes:
    node: The call.
    computation: The second computation.
    num_rows: Number of the last arguments that are rows.
  """

  node: node_def_pb2.NodeDef
  computation: computation_pb2.Computation
  num_rows: int


def call(
  fn: Callable[..., Sequence[tf.Tensor]],
  joint_fn: Callable[..., Sequence[tf.Tensor]],
  arguments: Sequence[tf.Tensor],
  rows: Sequence[tf.Tensor],
  num_clients: int,
) -> Sequence[tf.Tensor]:
  """Returns `fn(*arguments, *rows)`, and marks the call. Call it while tracing.

  Args:
    fn: Function of one client. It returns a list of tensors.
    joint_fn: Function of `num_clients` clients. It takes what the module
      describes, each one as an argument, and returns a list.
    arguments: The client's arguments. The first is an integer scalar.
    rows: Those of its arguments that are rows.
    num_clients: K, >= 2.
  """
  types = [
    tff.TensorType(x.dtype.as_numpy_dtype, [num_clients, *x.shape])
    for x in arguments
  ]
  types += [tff.TensorType(x.dtype.as_numpy_dtype, x.shape) for x in rows]
  types.append(tff.TensorType(np.int32, [num_clients]))
  computation = tff.tensorflow.computation(
    lambda inputs: list(joint_fn(*inputs)), tff.types.to_type(types)
  )
  proto = tff.framework.serialize_computation(computation)
  results = tf.function(
    fn, autograph=False, experimental_attributes={'_noinline': True}
  )(*arguments, *rows)
  operation = results[0].op
  # pylint: disable=protected-access
  operation._set_attr(
    _COMPUTATION, attr_value_pb2.AttrValue(s=proto.SerializeToString())
  )
  operation._set_attr(_NUM_ROWS, attr_value_pb2.AttrValue(i=len(rows)))
  # pylint: enable=protected-access
  return results


def find(proto: computation_pb2.TensorFlow) -> Optional[Mark]:
  """Returns the marked call of a graph, or None.

  Raises:
    ValueError: If a mark is not where it can be used: in a function of the
      graph, or if there are two.
  """
  # Most graphs have none, and reading one takes time.
  if _COMPUTATION.encode() not in proto.graph_def.value:
    return None
  graph_def = serialization_utils.unpack_graph_def(proto.graph_def)
  marked = [node for node in graph_def.node if _COMPUTATION in node.attr]
  if len(marked) != 1:
    raise ValueError(
      f'Expected one marked call in a graph, found {len(marked)}. Calls in '
      'functions of the graph cannot be marked.'
    )
  (node,) = marked
  return Mark(
    node,
    computation_pb2.Computation.FromString(node.attr[_COMPUTATION].s),
    node.attr[_NUM_ROWS].i,
  )


def change(
  graph_def: graph_pb2.GraphDef, fn: Callable[[graph_pb2.GraphDef], None]
) -> None:
  """Changes the second computation of a graph's marked call, if it has one.

  Args:
    graph_def: The graph, changed in place.
    fn: Changes the graph of the second computation in place.
  """
  for node in graph_def.node:
    if _COMPUTATION in node.attr:
      computation = computation_pb2.Computation.FromString(
        node.attr[_COMPUTATION].s
      )
      changed = serialization_utils.unpack_graph_def(
        computation.tensorflow.graph_def
      )
      fn(changed)
      computation.tensorflow.graph_def.CopyFrom(
        serialization_utils.pack_graph_def(changed)
      )
      node.attr[_COMPUTATION].s = computation.SerializeToString()


def without(
  proto: computation_pb2.TensorFlow, mark: Mark
) -> tuple[computation_pb2.TensorFlow, computation_pb2.TensorFlow]:
  """Cuts a graph at its marked call.

  Returns:
    The graph up to the call, whose results are the call's arguments as a list,
    and the graph after it. The latter has two parameters: that of the graph,
    and the list of the call's results.
  """
  before, after = type(proto)(), type(proto)()
  for part in (before, after):
    part.CopyFrom(proto)
  names = [name for name in mark.node.input if not name.startswith('^')]
  before.result.CopyFrom(_list_of(names))

  graph_def = serialization_utils.unpack_graph_def(proto.graph_def)
  dtypes = mark.node.attr['Tout'].list.type
  placeholders = [f'{mark.node.name}_result_{i}' for i in range(len(dtypes))]
  replaced = dict(_outputs(mark.node.name, placeholders))
  for index in reversed(range(len(graph_def.node))):
    node = graph_def.node[index]
    if node.name == mark.node.name:
      del graph_def.node[index]
      continue
    inputs = [
      replaced.get(name, name)
      for name in node.input
      if name != f'^{mark.node.name}'
    ]
    del node.input[:]
    node.input.extend(inputs)
  for name, dtype in zip(placeholders, dtypes):
    node = graph_def.node.add(name=name, op='Placeholder')
    node.attr['dtype'].type = dtype
    node.attr['shape'].shape.unknown_rank = True
  after.graph_def.CopyFrom(serialization_utils.pack_graph_def(graph_def))
  both = computation_pb2.TensorFlow.Binding()
  both.struct.element.add().CopyFrom(proto.parameter)
  both.struct.element.add().CopyFrom(
    _list_of([f'{name}:0' for name in placeholders])
  )
  after.parameter.CopyFrom(both)
  _rename(after.result, replaced)
  return before, after


def _outputs(name: str, placeholders: Sequence[str]) -> Any:
  """Yields all names of a call's outputs, and what replaces them."""
  for index, placeholder in enumerate(placeholders):
    if index == 0:
      yield name, placeholder
    yield f'{name}:{index}', f'{placeholder}:0'


def _list_of(names: Sequence[str]) -> computation_pb2.TensorFlow.Binding:
  binding = computation_pb2.TensorFlow.Binding()
  binding.struct.SetInParent()
  for name in names:
    full = name if ':' in name else f'{name}:0'
    binding.struct.element.add().tensor.tensor_name = full
  return binding


def _rename(binding: Any, replaced: dict[str, str]) -> None:
  if binding.HasField('struct'):
    for element in binding.struct.element:
      _rename(element, replaced)
  elif binding.HasField('tensor'):
    name = binding.tensor.tensor_name
    binding.tensor.tensor_name = replaced.get(name, name)
