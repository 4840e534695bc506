"""A `tf.switch_case` whose branches stay functions.

TensorFlow lowers it: all branches become part of one graph with switches. For
a client's work, with one branch per architecture, such a graph is three times
as large, and every import of it prepares all architectures for one that is
taken. As a function, a branch is prepared when it is first taken.
"""

from typing import Any

from tensorflow_federated.python.core.impl.compiler import building_blocks
from tensorflow_federated.python.core.impl.compiler import transformation_utils
from tensorflow_federated.python.tensorflow_libs import serialization_utils

from tff_fedsa.execution.in_process import graph_rewriting

_OPERATIONS = ('Case', 'StatelessCase')
_LOWERING = '_lower_using_switch_merge'


def keep(block: Any) -> Any:
  """Returns a building block whose graphs' cases will not be lowered.

  Only for CPUs: all of a branch runs on the device of the case, while in a
  lowered one TensorFlow finds a device for what has no kernel there.

  Args:
    block: A `building_blocks.ComputationBuildingBlock`, before Grappler, which
      lowers, too.
  """

  def transform(part: Any) -> tuple[Any, bool]:
    if (
      not isinstance(part, building_blocks.CompiledComputation)
      or part.proto.WhichOneof('computation') != 'tensorflow'
    ):
      return part, False
    proto = part.proto
    graph_def = serialization_utils.unpack_graph_def(proto.tensorflow.graph_def)
    cases = [
      node
      for node in graph_rewriting.all_nodes(graph_def)
      if node.op in _OPERATIONS and _LOWERING in node.attr
    ]
    if not cases:
      return part, False
    for node in cases:
      del node.attr[_LOWERING]
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
