"""One client's function with its argument: sent, and repeated if it is lost."""

import dataclasses
import hashlib
from typing import Any, Optional

import tensorflow as tf
import tensorflow_federated as tff

from tff_fedsa.execution import arrays
from tff_fedsa.execution.ray import kept
from tff_fedsa.execution.ray import messages
from tff_fedsa.execution.ray import sent_values

# Values that all clients share are sent once from this size on.
_SHARED_BYTES = 10_000


class Function:
  """A clients' function in the object store.

  Attributes:
    digest: Digest of the function.
    sent: The serialized computation.
    type_signature: Its type.
    large: Leaves of the result that can be large.
  """

  def __init__(
    self,
    computation: Any,
    type_signature: tff.FunctionType,
    store: sent_values.SentValues,
  ):
    content = computation.SerializeToString(deterministic=True)
    self.digest = hashlib.sha256(content).digest()
    self.sent = store.put(content)
    self.type_signature = type_signature
    self.large = messages.large_leaves(type_signature.result)
    parameter = type_signature.parameter
    self.parameter_types = (
      [] if parameter is None else messages.leaf_types(parameter)
    )
    self.result_types = messages.leaf_types(type_signature.result)


Input = Any  # An encoded leaf, a `Sent` or a `kept.Kept`.


@dataclasses.dataclass(eq=False)
class Call:
  """A function with the argument of one client. It can be repeated.

  Attributes:
    function: The function.
    inputs: Leaves of the argument: encoded, or `Sent`, or `Kept`.
    client: What identifies the client in later rounds.
    outputs: The results that are kept, by their leaf.
    depth: Number of calls, one after the other, that a repetition takes.
  """

  function: Function
  inputs: list[Input]
  client: Any
  outputs: dict[int, kept.Kept] = dataclasses.field(default_factory=dict)

  @property
  def depth(self) -> int:
    return 1 + max((one.depth for one in self.kept_inputs()), default=0)

  def kept_inputs(self) -> list[kept.Kept]:
    return [one for one in self.inputs if isinstance(one, kept.Kept)]

  def elsewhere(self) -> list[tuple[int, Any]]:
    """Returns index and value of the inputs that the store has."""
    return [
      (index, one)
      for index, one in enumerate(self.inputs)
      if isinstance(one, kept.Kept | sent_values.Sent)
    ]


class Builder:
  """Makes the calls of all clients of one computation."""

  def __init__(self, function: Function, store: sent_values.SentValues):
    self._function = function
    self._store = store
    self._shared: dict[int, tuple[Any, Input]] = {}

  def build(self, arguments: list[Any]) -> list[Call]:
    """Returns one call for each argument, a value of `in_process.values`."""
    if not self._function.parameter_types:
      return [Call(self._function, [], i) for i in range(len(arguments))]
    all_leaves = [messages.leaves_of(argument) for argument in arguments]
    counts: dict[int, int] = {}
    for leaves in all_leaves:
      for leaf in leaves:
        counts[id(leaf)] = counts.get(id(leaf), 0) + 1
    return [
      self._call(number, leaves, counts)
      for number, leaves in enumerate(all_leaves)
    ]

  def _call(
    self, number: int, leaves: list[Any], counts: dict[int, int]
  ) -> Call:
    inputs = [
      self._input(leaf, leaf_type, counts[id(leaf)] > 1)
      for leaf, leaf_type in zip(leaves, self._function.parameter_types)
    ]
    own = [
      one.digest
      for one, leaf in zip(inputs, leaves)
      if isinstance(one, sent_values.Sent) and counts[id(leaf)] == 1
    ]
    # Data are the last argument of client work, after states, which change.
    return Call(self._function, inputs, own[-1] if own else number)

  def _input(self, leaf: Any, leaf_type: tff.Type, is_shared: bool) -> Input:
    if isinstance(leaf, arrays.RemoteArray):
      return leaf.kept if isinstance(leaf, kept.KeptArray) else leaf.fetch()
    known = self._shared.get(id(leaf))
    if known is not None:
      return known[1]
    found = self._encode(leaf, leaf_type, is_shared)
    if is_shared:
      self._shared[id(leaf)] = leaf, found
    return found

  def _encode(self, leaf: Any, leaf_type: tff.Type, is_shared: bool) -> Input:
    is_data_set = isinstance(leaf, tf.data.Dataset)
    if is_data_set:
      known: Optional[Input] = self._store.of_object(leaf)
      if known is not None:
        return known
    encoded = messages.encode(leaf, leaf_type)
    least = _SHARED_BYTES if is_shared else messages.LARGE_BYTES
    if messages.num_bytes(encoded) < least:
      return encoded
    sent = self._store.put(encoded)
    if is_data_set:
      self._store.remember(leaf, sent)
    return sent


def decode_results(
  call: Call, leaves: list[Any], arrays_by_leaf: dict[int, Any]
) -> Any:
  """Returns the value of a call's result.

  Args:
    call: The call.
    leaves: Encoded leaves, None where the array is kept.
    arrays_by_leaf: The `KeptArray`s.
  """
  return messages.to_value(
    [
      arrays_by_leaf[index]
      if index in arrays_by_leaf
      else messages.decode(leaf, leaf_type)
      for index, (leaf, leaf_type) in enumerate(
        zip(leaves, call.function.result_types)
      )
    ],
    call.function.type_signature.result,
  )
