"""Rewrites TFF graphs so that an eager process can run them repeatedly.

TFF makes its graphs for separate `tf.compat.v1.Session`s. Variables and tables
belong to the session, an initializer runs first, and names are unique. Here
functions share one registry, and two clients run one graph at the same time.
"""

from collections.abc import Iterator, Sequence
import itertools
from typing import Any, Optional

import tensorflow as tf
from tensorflow.core.framework import graph_pb2
from tensorflow.core.framework import node_def_pb2

from tff_fedsa.execution.in_process import dataset_loops

# ResourceHandle::ANONYMOUS_NAME: each execution creates its own variable.
_ANONYMOUS = b'cd2c89b7-88b7-44c8-ad83-06c2a9158347'
_ANONYMOUS_TABLES = {
  'HashTableV2': 'AnonymousHashTable',
  'MutableHashTableV2': 'AnonymousMutableHashTable',
  'MutableHashTableOfTensorsV2': 'AnonymousMutableHashTableOfTensors',
  'MutableDenseHashTableV2': 'AnonymousMutableDenseHashTable',
}
# BatchNormalization's and LayerNormalization's, also `_FusedBatchNormEx`, what
# Grappler makes of one with an activation. oneDNN's kernels of these keep
# pointers to the statistics of the batch that they are at.
_NOT_REENTRANT = 'FusedBatchNorm'
# XLA compiles functions with this attribute, and has kernels of its own.
MUST_COMPILE = '_XlaMustCompile'
_SHARING_ATTRIBUTES = ('container', 'shared_name', 'use_node_name_sharing')
# Data sets are made on the CPU. Some of their operations have kernels for GPUs,
# too, which take what comes out for the GPU's memory.
_OF_DATASETS = ('Dataset', 'Iterator', 'Optional')
# Functions with the same value are taken for each other, according to device.
_INTERFACE = 'api_implements'

_import_numbers = itertools.count()


def rewrite(
  graph_def: graph_pb2.GraphDef,
  *,
  inputs: Sequence[str] = (),
  outputs: Sequence[str] = (),
  initialize_op: Optional[str] = None,
  session_token: Optional[str] = None,
) -> list[str]:
  """Rewrites a graph in place, and drops nodes without effect on outputs.

  Args:
    graph_def: Graph of a TFF computation.
    inputs: Names of the tensors that are fed.
    outputs: Names of the tensors that are fetched.
    initialize_op: Name of the operation that must run before variables and
      tables are used.
    session_token: Name of the placeholder that TFF's runtime feeds with a
      token of the session.

  Returns:
    Names of operations to run with the outputs. They free the resources of one
    execution.
  """
  dataset_loops.replace_reductions(graph_def)
  # Unique in this process. Otherwise computations would share functions.
  _rename_functions(graph_def, f'_import{next(_import_numbers)}')
  for node in all_nodes(graph_def):
    if node.op == 'VarHandleOp':
      node.attr['shared_name'].s = _ANONYMOUS
      node.attr['container'].s = b''
    elif node.op in _ANONYMOUS_TABLES:
      node.op = _ANONYMOUS_TABLES[node.op]
      for name in _SHARING_ATTRIBUTES:
        node.attr.pop(name, None)
    elif not node.device and any(kind in node.op for kind in _OF_DATASETS):
      node.device = '/device:CPU:0'
  for node in graph_def.node:
    if session_token and node.name == _node_name(session_token):
      _make_constant(node, b'in_process')
  if initialize_op:
    _initialize_first(graph_def, _node_name(initialize_op))
  destroyed = _destroy_variables(graph_def, inputs, outputs)
  needed = _needed_by(graph_def, [*inputs, *outputs, *destroyed])
  for index in reversed(range(len(graph_def.node))):
    if graph_def.node[index].name not in needed:
      del graph_def.node[index]
  return destroyed


def is_reentrant(graph_def: graph_pb2.GraphDef) -> bool:
  """Returns whether concurrent executions of a graph may share its kernels."""
  scopes = [graph_def.node]
  scopes += [
    function.node_def
    for function in graph_def.library.function
    if MUST_COMPILE not in function.attr
  ]
  nodes = itertools.chain.from_iterable(scopes)
  return not any(_NOT_REENTRANT in node.op for node in nodes)


def call_by_name(graph_def: graph_pb2.GraphDef) -> None:
  """Makes operations that are named after functions calls of them.

  Such operations come from `Defun` of `tf.compat.v1`. They work only with their
  library, while calls work anywhere.
  """
  signatures = {
    f.signature.name: f.signature for f in graph_def.library.function
  }
  for node in graph_def.node:
    signature = signatures.get(node.op)
    if signature is not None:
      attributes = dict(node.attr)
      node.ClearField('attr')
      node.attr['f'].func.name = node.op
      for name, value in attributes.items():
        node.attr['f'].func.attr[name].CopyFrom(value)
      node.attr['Tin'].list.type.extend(a.type for a in signature.input_arg)
      node.attr['Tout'].list.type.extend(a.type for a in signature.output_arg)
      node.op = 'StatefulPartitionedCall'


def all_nodes(
  graph_def: graph_pb2.GraphDef,
) -> Iterator[node_def_pb2.NodeDef]:
  """Yields the nodes of a graph and of its functions."""
  yield from graph_def.node
  for function in graph_def.library.function:
    yield from function.node_def


def _node_name(name: str) -> str:
  return name.lstrip('^').partition(':')[0]


def _needed_by(graph_def: graph_pb2.GraphDef, names: Sequence[str]) -> set[str]:
  """Returns the names of these nodes, and of all nodes that they need."""
  nodes = {node.name: node for node in graph_def.node}
  needed: set[str] = set()
  pending = [_node_name(name) for name in names]
  while pending:
    name = pending.pop()
    if name not in needed:
      needed.add(name)
      pending += map(_node_name, nodes[name].input)
  return needed


def _make_constant(node: node_def_pb2.NodeDef, value: bytes) -> None:
  node.op = 'Const'
  node.ClearField('attr')
  node.ClearField('input')
  node.attr['dtype'].type = tf.string.as_datatype_enum
  node.attr['value'].tensor.CopyFrom(tf.make_tensor_proto(value))


def _rename_functions(graph_def: graph_pb2.GraphDef, suffix: str) -> None:
  library = graph_def.library
  names = {
    f.signature.name: f.signature.name + suffix for f in library.function
  }

  def rename_in(attributes: Any) -> None:
    for attribute in attributes.values():
      functions = list(attribute.list.func)
      if attribute.HasField('func'):
        functions.append(attribute.func)
      for function in functions:
        function.name = names.get(function.name, function.name)
        rename_in(function.attr)
      if attribute.HasField('s'):
        # Functions point at their gradients by a string.
        text = attribute.s.decode('utf-8', 'ignore')
        if text in names:
          attribute.s = names[text].encode()

  for node in all_nodes(graph_def):
    node.op = names.get(node.op, node.op)
    rename_in(node.attr)
  for function in library.function:
    function.signature.name = names[function.signature.name]
    rename_in(function.attr)
    if _INTERFACE in function.attr:
      # Or other imports' would be taken, too.
      function.attr[_INTERFACE].s += suffix.encode()
  for gradient in library.gradient:
    for field in ('function_name', 'gradient_func'):
      name = getattr(gradient, field)
      setattr(gradient, field, names.get(name, name))


def _initialize_first(
  graph_def: graph_pb2.GraphDef, initialize_op: str
) -> None:
  """Makes all users of the initializer's resources wait for it."""
  initializing = _needed_by(graph_def, [initialize_op])
  for node in graph_def.node:
    if node.name not in initializing and any(
      _node_name(name) in initializing for name in node.input
    ):
      node.input.append(f'^{initialize_op}')


def _destroy_variables(
  graph_def: graph_pb2.GraphDef, inputs: Sequence[str], outputs: Sequence[str]
) -> list[str]:
  """Frees each variable when all outputs have been computed."""
  fed = {_node_name(name) for name in inputs}
  computed = sorted({_node_name(name) for name in outputs} - fed)
  destroyed = []
  for variable in [n.name for n in graph_def.node if n.op == 'VarHandleOp']:
    node = graph_def.node.add()
    node.op, node.name = 'DestroyResourceOp', f'{variable}_destroyed'
    node.input.extend([variable, *(f'^{name}' for name in computed)])
    node.attr['ignore_lookup_error'].b = True
    destroyed.append(node.name)
  return destroyed
