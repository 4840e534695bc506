"""Values as messages: shared values are sent once, large ones in parts.

A message holds 2 GB at most, the limit of protocol buffers. It holds values of
one client. Larger structures are sent in parts.
"""

from collections.abc import Sequence
import dataclasses
import math
from typing import Any, Optional

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff
from tensorflow_federated.proto.v0 import executor_pb2
from tensorflow_federated.python.core.impl.executors import value_serialization

from tff_fedsa.execution.in_process import values
from tff_fedsa.runs import errors

MAX_MESSAGE_BYTES = 2_000_000_000
# A separate part costs a request per client, which is cheaper than sending this
# many bytes.
_WORTH_SHARING_BYTES = 1_000_000


@dataclasses.dataclass(eq=False)
class Plan:
  """The messages for values of a type, for all clients of a call.

  Attributes:
    value_type: Unplaced type.
    parts: Plans of the elements, if they are sent one by one.
    shared: The value, if all clients share it. Each worker receives it once.
  """

  value_type: tff.Type
  parts: Optional[list['Plan']] = None
  shared: Any = None


def plan(
  arguments: Sequence[Any],
  value_type: tff.Type,
  max_bytes: int = MAX_MESSAGE_BYTES,
) -> Plan:
  """Returns the plan for the arguments of all clients.

  Args:
    arguments: One value of `in_process.values` for each client.
    value_type: The type of the arguments.
    max_bytes: Largest size of one message.
  """
  is_shared = len(arguments) > 1 and _is_same(arguments)
  size = max(map(num_bytes, arguments[:1] if is_shared else arguments))
  if is_shared and size > _WORTH_SHARING_BYTES:
    inner = plan(arguments[:1], value_type, max_bytes)
    return Plan(value_type, inner.parts, arguments[0])
  if isinstance(value_type, tff.StructType) and not is_shared:
    parts = [
      plan([argument[i] for argument in arguments], element_type, max_bytes)
      for i, element_type in enumerate(value_type)
    ]
    if size > max_bytes or any(
      part.shared is not None or part.parts is not None for part in parts
    ):
      return Plan(value_type, parts)
  return Plan(value_type)


def _is_same(arguments: Sequence[Any]) -> bool:
  first = tff.structure.flatten(arguments[0])
  return all(
    argument is arguments[0]
    or all(
      part is other
      for part, other in zip(tff.structure.flatten(argument), first)
    )
    for argument in arguments
  )


def num_bytes(value: Any) -> int:
  """Returns the bytes of a value's numeric tensors."""
  return sum(
    leaf.dtype.size * leaf.shape.num_elements()
    for leaf in tff.structure.flatten(value)
    if isinstance(leaf, tf.Tensor)
  )


def returns_in_parts(
  result_type: tff.Type,
  argument_bytes: int,
  max_bytes: int = MAX_MESSAGE_BYTES,
) -> bool:
  """Returns whether a result must be fetched in parts, if in doubt True.

  A request for a message above the limit kills a worker. Tensors of unknown
  size count as large as the whole argument, because states return with their
  size.
  """
  size = 0
  for leaf in tff.structure.flatten(result_type):
    if isinstance(leaf, tff.TensorType):
      if leaf.shape is None or None in leaf.shape:
        size += argument_bytes
      elif not issubclass(leaf.dtype.type, np.str_):
        size += leaf.dtype.itemsize * math.prod(leaf.shape)
  return size > max_bytes // 2


def serialize(
  value: Any, value_type: tff.Type, max_bytes: int = MAX_MESSAGE_BYTES
) -> executor_pb2.Value:
  """Returns the message of a value.

  Raises:
    ValueError: If the value is too large, or a data set cannot be sent.
  """
  if num_bytes(value) > max_bytes:
    raise _too_large(value_type, num_bytes(value), max_bytes)
  try:
    message, _ = value_serialization.serialize_value(
      _to_numpy(value), value_type
    )
  except tf.errors.OpError as error:
    raise errors.UserError(
      f'A data set of type {value_type} cannot be sent to a worker, since it '
      'holds Python code, a file or a resource of this process '
      f'({error.message}). Make it of arrays, or use the in-process runtime.'
    ) from error
  if message.ByteSize() > max_bytes:
    raise _too_large(value_type, message.ByteSize(), max_bytes)
  return message


def _to_numpy(value: Any) -> Any:
  if isinstance(value, values.Struct):
    return tff.structure.map_structure(values.to_numpy, value)
  return values.to_numpy(value)


def deserialize(message: executor_pb2.Value, value_type: tff.Type) -> Any:
  """Returns the value of a message."""
  value, _ = value_serialization.deserialize_value(message, value_type)
  return values.ingest(value, value_type, 0)


def _too_large(value_type: tff.Type, size: int, max_bytes: int) -> ValueError:
  return ValueError(
    f'A value of type {value_type} takes {size:,} bytes, more than the '
    f'{max_bytes:,} that one message to a worker can hold. Structures are sent '
    'in parts: make it one, or use the in-process runtime.'
  )
