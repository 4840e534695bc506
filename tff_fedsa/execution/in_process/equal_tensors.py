"""Stacks of one tensor, which TensorFlow computes from another tensor.

Grappler makes a tile of `tf.stack([x, x])`. If `x` is not the first output of
its operation, e.g. the second part of a `tf.split`, the tile takes the first
output all the same, and the numbers are wrong. So the equal inputs of a stack
get a name of their own, which Grappler leaves alone.
"""

from typing import Any

from tensorflow.core.framework import graph_pb2

# An identity that Grappler neither removes nor looks through.
_KEPT = 'PlaceholderWithDefault'
_STACK = 'Pack'


def may_have_stacks(serialized: bytes) -> bool:
  """Returns false only for a serialized graph that has no stacks."""
  return _STACK.encode() in serialized


def keep(graph_def: graph_pb2.GraphDef) -> bool:
  """Protects equal inputs of stacks in a graph and its functions, in place.

  Args:
    graph_def: The graph.

  Returns:
    Whether there were any.
  """
  found = _keep(graph_def.node, 'kept_for_{}')
  for function in graph_def.library.function:
    # Functions name an output by its operation, its name and its number.
    found |= _keep(function.node_def, 'kept_for_{}:output:0')
  return found


def _keep(nodes: Any, output: str) -> bool:
  found = False
  for node in list(nodes):
    count = node.attr['N'].i if node.op == _STACK else 0
    if count < 2 or len(set(node.input[:count])) > 1:
      continue
    found = True
    kept = nodes.add()
    kept.name, kept.op = f'kept_for_{node.name}', _KEPT
    kept.device = node.device
    kept.input.append(node.input[0])
    kept.attr['dtype'].type = node.attr['T'].type
    kept.attr['shape'].shape.unknown_rank = True
    node.input[:count] = [output.format(node.name)] * count
  return found
