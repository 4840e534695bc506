"""Chooses the clients' functions that workers compute."""

import itertools
from typing import Any, Optional, Union
import weakref

import tensorflow_federated as tff
from tensorflow_federated.proto.v0 import computation_pb2
from tensorflow_federated.python.core.impl.compiler import tree_analysis
from tensorflow_federated.python.tensorflow_libs import serialization_utils

from tff_fedsa.execution.in_process import tensorflow_functions

# A function of only these operations is faster than the transfer of its
# argument, so it stays here. A wrong choice costs only time.
_ARITHMETIC = frozenset(
  'Add AddN AddV2 Cast Const DivNoNan Equal Greater GreaterEqual Identity '
  'IdentityN Less LessEqual LogicalAnd LogicalNot LogicalOr Maximum Minimum '
  'Mul MulNoNan Neg NoOp NotEqual OnesLike Pack PartitionedCall Placeholder '
  'RealDiv Reshape Select SelectV2 Shape Sqrt Square StatefulPartitionedCall '
  'StridedSlice Sub Sum ZerosLike'.split()
)


_is_arithmetic: weakref.WeakKeyDictionary[Any, bool] = (
  weakref.WeakKeyDictionary()
)


class Lambda:
  """A function for a worker that consists of several TensorFlow graphs.

  Attributes:
    computation: The computation.
    type_signature: Its type.
  """

  def __init__(self, block: tff.framework.Lambda):
    self.computation: computation_pb2.Computation = block.proto
    self.type_signature = block.type_signature


Remote = Union[tensorflow_functions.TensorFlowFunction, Lambda]


def to_send(fn: Any) -> Optional[Remote]:
  """Returns the part of a function for workers, or None to compute it here.

  Args:
    fn: A function of the interpreter.

  Raises:
    NotImplementedError: If the function has free variables.
  """
  if isinstance(fn, tensorflow_functions.TensorFlowFunction):
    if fn not in _is_arithmetic:
      _is_arithmetic[fn] = _operations(fn) <= _ARITHMETIC
    return None if _is_arithmetic[fn] else fn
  block = fn.block
  if not tree_analysis.contains(block, _is_work):
    return None
  if not tree_analysis.contains_no_unbound_references(block):
    raise NotImplementedError(
      'A function of clients that takes values from its surroundings cannot be '
      'sent to a worker; use the in-process runtime: '
      f'{block.compact_representation()[:200]}'
    )
  return Lambda(block)


def _is_work(block: tff.framework.ComputationBuildingBlock) -> bool:
  return isinstance(
    block, tff.framework.CompiledComputation | tff.framework.Intrinsic
  )


def _operations(fn: tensorflow_functions.TensorFlowFunction) -> set[str]:
  graph = serialization_utils.unpack_graph_def(
    fn.computation.tensorflow.graph_def
  )
  nodes = itertools.chain(
    graph.node, *(function.node_def for function in graph.library.function)
  )
  return {node.op for node in nodes}
