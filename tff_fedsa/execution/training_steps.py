"""Marks of training steps in graphs, for runtimes that compile them.

A client's function holds loops, orders of examples and sums beside its training
steps. A step is the part that repeats, and whose shapes depend on nothing but
the size of the batch. Its call has a mark, which is part of the graph of the
TFF computation. A runtime that does not know marks calls the step's function.
"""

from typing import Any

import tensorflow as tf

# This module gives TensorFlow's proto, which has no public name.
from tensorflow.core.framework import attr_value_pb2
from tensorflow.core.framework import node_def_pb2

_STEP = '_training_step'


def mark(results: Any) -> None:
  """Marks the call of a step's function, while tracing.

  Args:
    results: What the call returned, a structure of tensors.
  """
  operation = tf.nest.flatten(results)[0].op
  # pylint: disable-next=protected-access
  operation._set_attr(_STEP, attr_value_pb2.AttrValue(b=True))


def is_marked(node: node_def_pb2.NodeDef) -> bool:
  """Returns whether a node of a graph is the call of a step."""
  return _STEP in node.attr
