"""Values of clients as arrays and bytes, leaf by leaf, and back.

A value of a TFF type is a list of leaves in the order of the type. A leaf is a
NumPy array, or the bytes of a data set.
"""

from collections.abc import Iterable, Sequence
import math
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff
from tensorflow_federated.proto.v0 import executor_pb2

from tff_fedsa.execution import arrays
from tff_fedsa.execution import parcels
from tff_fedsa.execution.in_process import tensorflow_functions
from tff_fedsa.execution.in_process import values

# Ray sends smaller results with the answer to a call. Larger ones stay in the
# object store of their node.
LARGE_BYTES = 100_000

Leaf = Any


def leaf_types(value_type: tff.Type) -> list[tff.Type]:
  """Returns the types of the leaves of a type, in order."""
  return tff.structure.flatten(value_type)


def leaves_of(value: Any) -> list[Any]:
  """Returns the leaves of a value of `in_process.values`, in order."""
  return list(tensorflow_functions.leaves(value))


def to_value(leaves: Iterable[Any], value_type: tff.Type) -> Any:
  """Returns the value of `in_process.values` with some leaves."""
  return tensorflow_functions.packer(value_type)(iter(leaves))


def encode(leaf: Any, leaf_type: tff.Type) -> Leaf:
  """Returns a tensor as an array, and a data set as bytes."""
  if isinstance(leaf_type, tff.SequenceType):
    return parcels.serialize(leaf, leaf_type).SerializeToString(
      deterministic=True
    )
  if isinstance(leaf, arrays.RemoteArray):
    return leaf.fetch()
  return values.to_numpy(leaf)


def decode(leaf: Leaf, leaf_type: tff.Type) -> Any:
  """Returns a tensor or a data set."""
  if isinstance(leaf_type, tff.SequenceType):
    return parcels.deserialize(executor_pb2.Value.FromString(leaf), leaf_type)
  return tf.convert_to_tensor(leaf, values.tf_dtype(leaf_type.dtype.type))


def num_bytes(leaf: Leaf) -> int:
  """Returns the size of an encoded leaf; 0 for strings."""
  if isinstance(leaf, bytes):
    return len(leaf)
  if isinstance(leaf, np.ndarray) and leaf.dtype != object:
    return leaf.nbytes
  return 0


def large_leaves(value_type: tff.Type) -> list[int]:
  """Returns which leaves of a type can be large numeric tensors."""
  return [
    index
    for index, leaf_type in enumerate(leaf_types(value_type))
    if _can_be_large(leaf_type)
  ]


def _can_be_large(leaf_type: tff.Type) -> bool:
  if not isinstance(leaf_type, tff.TensorType):
    return False
  if issubclass(leaf_type.dtype.type, np.str_):
    return False
  shape = leaf_type.shape
  if shape is None or None in shape:
    return True
  return leaf_type.dtype.itemsize * math.prod(shape) >= LARGE_BYTES


def share_equal(leaves: Sequence[Leaf]) -> list[Leaf]:
  """Replaces equal small arrays by one object, which is sent once."""
  known: dict[Any, Leaf] = {}

  def of(leaf):
    if not isinstance(leaf, np.ndarray) or leaf.dtype == object:
      return leaf
    key = leaf.dtype.str, leaf.shape, leaf.tobytes()
    return known.setdefault(key, leaf)

  return [of(leaf) for leaf in leaves]
