"""Training steps compiled by XLA (`jit_compile`).

Only steps are compiled (`training_steps`), because the rest of a client's
function has shapes that differ from client to client: XLA would compile it
anew for each number of examples. XLA keeps what it has compiled, by the step
and the shapes of its arguments.
"""

import re
from typing import Any, Optional

import tensorflow as tf
from tensorflow.core.framework import function_pb2
from tensorflow.core.framework import graph_pb2
from tensorflow.python.eager import context

from tff_fedsa.execution import joint_calls
from tff_fedsa.execution import training_steps
from tff_fedsa.execution.in_process import graph_rewriting
from tff_fedsa.runs import errors

_SHAPES = '_output_shapes'
# In place of sizes that vary, e.g. that of a batch.
_ANY_SIZE = 2
_MOST_DETAIL = 300
_NODES = re.compile(r'(?:{{function_node ([^}]*)}} ?)?{{node ([^}]*)}}')


def mark(graph_def: graph_pb2.GraphDef) -> None:
  """Makes XLA compile the training steps of a graph, in place.

  Call it before Grappler, which has operations of its own for other steps. XLA
  does not know these.

  Args:
    graph_def: The graph. Its steps for several clients are compiled, too.
  """
  steps = set()
  for node in graph_rewriting.all_nodes(graph_def):
    if training_steps.is_marked(node):
      node.attr[graph_rewriting.MUST_COMPILE].b = True
      steps.add(node.attr['f'].func.name)
  for function in graph_def.library.function:
    if function.signature.name in steps:
      function.attr[graph_rewriting.MUST_COMPILE].b = True
  joint_calls.change(graph_def, mark)


def check(function: function_pb2.FunctionDef) -> None:
  """Checks that XLA has a form of a function, if it has to compile it.

  Args:
    function: The function, in TensorFlow's registry with those that it calls.
      Its form is built for batches of two examples, without machine code.

  Raises:
    UserError: If XLA has none. The message names the operation.
  """
  if graph_rewriting.MUST_COMPILE not in function.attr:
    return
  arguments = _arguments(function)
  if arguments is None:
    return
  device = (
    tf.config.list_logical_devices('GPU')
    or tf.config.list_logical_devices('CPU')
  )[0]
  try:
    context.context().get_compiler_ir(
      device.name, function.signature.name, arguments, [], stage='hlo'
    )
  except (tf.errors.OpError, ValueError) as error:
    raise errors.UserError(
      '`jit_compile`: expected a training step that XLA can compile, found '
      f'one that it cannot. Leave `jit_compile` out, or replace the layer or '
      f'term of the loss. XLA says: {_problem(error)}'
    ) from error


def _arguments(function: function_pb2.FunctionDef) -> Optional[list[Any]]:
  """Returns stand-ins of a function's arguments, or None without shapes."""
  arguments: list[Any] = []
  for index, argument in enumerate(function.signature.input_arg):
    (shape,) = function.arg_attr[index].attr[_SHAPES].list.shape or (None,)
    if shape is None or shape.unknown_rank:
      return None
    sizes = [_ANY_SIZE if d.size < 0 else d.size for d in shape.dim]
    arguments.append(tf.TensorSpec(sizes, tf.as_dtype(argument.type)))
  return arguments


def _problem(error: Exception) -> str:
  """Returns what XLA says in one line, without places in our code."""
  said = str(error).partition("HLO text: '")[2] or str(error)
  text = said
  for end in ('The op is created at', 'Stack trace'):
    text = text.partition(end)[0]
  text = re.sub(r'^Detected unsupported .*? on XLA_\w+: ', '', text)
  text = ' '.join(text.split())[:_MOST_DETAIL]
  for function, node in _NODES.findall(said)[-1:]:
    if node not in text:
      text += f' (operation {node} in {function[:_MOST_DETAIL]})'
  return text
