"""Clients' functions that compute several clients at a time (`joint_calls`)."""

from collections.abc import Callable, Sequence
import logging
from typing import Any

import tensorflow as tf
import tensorflow_federated as tff
from tensorflow_federated.proto.v0 import computation_pb2
from tensorflow_federated.python.core.impl.types import type_serialization

from tff_fedsa.execution import joint_calls
from tff_fedsa.execution.in_process import client_pool
from tff_fedsa.execution.in_process import tensorflow_functions
from tff_fedsa.execution.in_process import values


def build(
  computation: computation_pb2.Computation, type_signature: tff.FunctionType
) -> tensorflow_functions.TensorFlowFunction:
  """Returns the function of a TensorFlow computation."""
  mark = joint_calls.find(computation.tensorflow)
  if mark is None:
    return tensorflow_functions.TensorFlowFunction(computation, type_signature)
  return JointFunction(computation, type_signature, mark)


class JointFunction(tensorflow_functions.TensorFlowFunction):
  """A client's function with a marked call.

  Called, it computes one client, as if there were no mark.
  """

  def __init__(
    self,
    computation: computation_pb2.Computation,
    type_signature: tff.FunctionType,
    mark: joint_calls.Mark,
  ):
    """Imports the graphs."""
    super().__init__(computation, type_signature)
    joint_type = type_serialization.deserialize_type(mark.computation.type)
    of_clients = list(joint_type.parameter)[:-1]
    self._num_clients: int = of_clients[0].shape[0]
    self._num_rows = mark.num_rows
    self._joint = tensorflow_functions.TensorFlowFunction(
      mark.computation, joint_type, is_compiled=False
    )
    before, after = joint_calls.without(computation.tensorflow, mark)
    parameter = type_signature.parameter
    self._before = _part(before, parameter, of_clients)
    self._after = _part(
      after,
      tff.StructType([parameter, joint_type.result]),
      type_signature.result,
    )
    self._fits = True

  def map(
    self, pool: client_pool.ClientPool, arguments: Sequence[Any]
  ) -> list[Any]:
    """Returns the function's value of each client.

    Clients of one kind are computed K at a time, those with the most rows
    first. If memory is too small for that, a warning says so, and clients are
    computed alone from then on.

    Args:
      pool: Computes the groups.
      arguments: The argument of each client.

    Raises:
      Exception: See `ClientPool.map`.
    """
    alone = super().__call__
    if not self._fits:
      return pool.map(alone, [(value,) for value in arguments])
    inputs = [
      list(struct)
      for struct in pool.map(self._before, [(value,) for value in arguments])
    ]
    groups = [group for group in self._groups(inputs) if len(group) > 1]
    found = pool.map(
      self._compute_if_it_fits,
      [([inputs[client] for client in group],) for group in groups],
      names=[f'clients {", ".join(map(str, g))} together' for g in groups],
    )
    del inputs
    outputs: dict[int, list[Any]] = {}
    for group, of_group in zip(groups, found):
      if isinstance(of_group, tf.errors.ResourceExhaustedError):
        self._compute_alone_from_now_on(of_group)
      else:
        outputs |= zip(group, of_group)
    del found

    def finish(client: int) -> Any:
      # A group of one, or one that did not fit, gains nothing.
      if client not in outputs:
        return alone(arguments[client])
      return self._after(_structs(arguments[client], outputs[client]))

    return pool.map(finish, [(client,) for client in range(len(arguments))])

  def _compute_alone_from_now_on(self, error: Exception) -> None:
    if self._fits:
      self._fits = False
      logging.warning(
        'Memory was too small for %d clients together: clients are computed '
        'alone from now on (--batch_clients). %s',
        self._num_clients,
        str(error).partition('\n')[0],
      )

  def _groups(self, inputs: Sequence[list[tf.Tensor]]) -> list[list[int]]:
    """Returns the clients of each group."""
    kinds: dict[Any, list[int]] = {}
    for client, tensors in enumerate(inputs):
      stacked = tensors[: len(tensors) - self._num_rows]
      kind = int(tensors[0]), *(tuple(tensor.shape) for tensor in stacked)
      kinds.setdefault(kind, []).append(client)
    groups = []
    for clients in kinds.values():
      # Together, clients take as many steps as the one with the most.
      clients.sort(key=lambda client: -len(inputs[client][-1]))
      groups += [
        clients[start : start + self._num_clients]
        for start in range(0, len(clients), self._num_clients)
      ]
    return groups

  def _compute_if_it_fits(self, inputs: Sequence[list[tf.Tensor]]) -> Any:
    """Returns `_compute(inputs)`, or the error if memory was too small."""
    try:
      return self._compute(inputs)
    except tf.errors.ResourceExhaustedError as error:
      return error

  def _compute(self, inputs: Sequence[list[tf.Tensor]]) -> list[list[Any]]:
    """Returns the call's results of each client of a group."""
    num_stacked = len(inputs[0]) - self._num_rows
    counts = [len(tensors[-1]) for tensors in inputs]
    # Copies without rows take the places of missing clients.
    missing = self._num_clients - len(inputs)
    stacked = [
      tf.stack([*parts, *[parts[0]] * missing])
      for parts in list(zip(*inputs))[:num_stacked]
    ]
    rows = [
      tf.concat(parts, axis=0) for parts in list(zip(*inputs))[num_stacked:]
    ]
    counts += [0] * missing
    results = self._joint(
      _structs(*stacked, *rows, tf.constant(counts, tf.int32))
    )
    parts = [tf.unstack(result) for result in results]
    return [[part[client] for part in parts] for client in range(len(inputs))]


def _part(
  proto: computation_pb2.TensorFlow, parameter: tff.Type, result: Any
) -> Callable[[Any], Any]:
  return tensorflow_functions.TensorFlowFunction(
    computation_pb2.Computation(tensorflow=proto),
    tff.FunctionType(parameter, tff.types.to_type(result)),
  )


def _structs(*parts: Any) -> values.Struct:
  """Returns an unnamed structure; lists become structures, too."""
  return values.Struct(
    [
      (None, _structs(*part) if isinstance(part, list) else part)
      for part in parts
    ]
  )
