"""TFF's intrinsics for values of this process.

A compiled computation consists of intrinsics and TensorFlow. Each intrinsic
takes its argument as a value, and the type of its result.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_fedsa.execution.in_process import client_pool
from tff_fedsa.execution.in_process import joint_functions
from tff_fedsa.execution.in_process import values


class Intrinsics:
  """The intrinsics for a number of clients on a pool."""

  def __init__(self, pool: client_pool.Pool, num_clients: int):
    self._pool = pool
    self._num_clients = num_clients

  def get(self, uri: str) -> Callable[[Any, tff.Type], Any]:
    """Returns `fn(argument, result_type) -> result`.

    Raises:
      NotImplementedError: If the intrinsic cannot run here.
    """
    if uri.startswith('federated_secure'):
      raise NotImplementedError(
        f'{uri} has no secure implementation here. To simulate it in the '
        'clear, set the context with secure_in_the_clear=True.'
      )
    if uri not in _URIS:
      raise NotImplementedError(f'The intrinsic {uri} is unknown.')
    return getattr(self, uri)

  # At the server.

  def _on_server(self, fn: Callable[..., Any], *arguments: Any) -> Any:
    device = self._pool.devices[0]
    try:
      with tf.device(device):
        return fn(*arguments)
    except Exception as error:
      error.add_note(f'raised at the server on {device}')
      raise

  def federated_value_at_server(
    self, value: Any, result_type: tff.Type
  ) -> values.AtServer:
    return values.AtServer(value)

  def federated_eval_at_server(
    self, fn: Any, result_type: tff.Type
  ) -> values.AtServer:
    return values.AtServer(self._on_server(fn))

  def federated_apply(
    self, argument: Any, result_type: tff.Type
  ) -> values.AtServer:
    fn, at_server = argument
    return values.AtServer(self._on_server(fn, at_server.value))

  def federated_zip_at_server(
    self, argument: Any, result_type: tff.Type
  ) -> values.AtServer:
    return values.AtServer(_zip(argument, lambda at_server: at_server.value))

  # At clients.

  def federated_value_at_clients(
    self, value: Any, result_type: tff.Type
  ) -> values.AtClients:
    return values.AtClients([value] * self._num_clients)

  def federated_broadcast(
    self, at_server: Any, result_type: tff.Type
  ) -> values.AtClients:
    return values.AtClients([at_server.value] * self._num_clients)

  def federated_eval_at_clients(
    self, fn: Any, result_type: tff.Type
  ) -> values.AtClients:
    return values.AtClients(self._pool.map(fn, [()] * self._num_clients))

  def federated_map(
    self, argument: Any, result_type: tff.Type
  ) -> values.AtServer | values.AtClients:
    fn, placed = argument
    if isinstance(placed, values.AtServer):
      return self.federated_apply(argument, result_type)
    if isinstance(fn, joint_functions.JointFunction) and isinstance(
      self._pool, client_pool.ClientPool
    ):
      return values.AtClients(fn.map(self._pool, placed.values))
    return values.AtClients(
      self._pool.map(fn, [(value,) for value in placed.values])
    )

  def federated_map_all_equal(
    self, argument: Any, result_type: tff.Type
  ) -> values.AtClients:
    fn, placed = argument
    # The arguments of all clients are equal: one client is computed for all.
    results = self._pool.map(fn, [(value,) for value in placed.values[:1]])
    return values.AtClients(results * len(placed.values))

  def federated_zip_at_clients(
    self, argument: Any, result_type: tff.Type
  ) -> values.AtClients:
    def of_client(client: int) -> Any:
      return _zip(argument, lambda at_clients: at_clients.values[client])

    return values.AtClients(
      [of_client(client) for client in range(self._num_clients)]
    )

  # From clients to the server.

  def federated_aggregate(
    self, argument: Any, result_type: tff.Type
  ) -> values.AtServer:
    at_clients, zero, accumulate, _, report = argument

    def aggregate() -> Any:
      # One after the other, so that the order of a sum is that of the clients.
      total = zero
      for value in at_clients.values:
        total = accumulate(_pair(total, value))
      return report(total)

    return values.AtServer(self._on_server(aggregate))

  def federated_select(
    self, argument: Any, result_type: tff.Type
  ) -> values.AtClients:
    keys, _, at_server, select_fn = argument
    slices: dict[int, Any] = {}
    selected = []
    for client_keys in keys.values:
      for key in np.asarray(client_keys).tolist():
        if key not in slices:
          slices[key] = self._on_server(
            select_fn, _pair(at_server.value, tf.constant(key, tf.int32))
          )
      selected.append(
        values.to_dataset(
          [slices[key] for key in np.asarray(client_keys).tolist()],
          result_type.member,
        )
      )
    return values.AtClients(selected)

  # Intrinsics of sequences.

  def sequence_map(self, argument: Any, result_type: tff.Type) -> Any:
    fn, sequence = argument
    results = [fn(element) for element in values.elements_of(sequence)]
    return values.to_dataset(results, result_type)

  def sequence_reduce(self, argument: Any, result_type: tff.Type) -> Any:
    sequence, total, fn = argument
    for element in values.elements_of(sequence):
      total = fn(_pair(total, element))
    return total

  def sequence_sum(self, sequence: Any, result_type: tff.Type) -> Any:
    total = tff.structure.pack_sequence_as(
      result_type,
      [
        tf.zeros(leaf.shape, tf.as_dtype(leaf.dtype))
        for leaf in tff.structure.flatten(result_type)
      ],
    )
    for element in values.elements_of(sequence):
      total = tff.structure.map_structure(tf.add, total, element)
    return total


_URIS = frozenset(name for name in vars(Intrinsics) if '_' in name.strip('_'))


def _pair(first: Any, second: Any) -> Any:
  return values.Struct([(None, first), (None, second)])


def _zip(argument: Any, take: Callable[[Any], Any]) -> Any:
  """Maps `take` over a structure of placed values."""
  if isinstance(argument, values.Struct):
    return values.Struct(
      [
        (name, _zip(part, take))
        for name, part in tff.structure.iter_elements(argument)
      ]
    )
  return take(argument)
