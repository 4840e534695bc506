"""Holds out train examples of each client, to choose the best round."""

from __future__ import annotations

import collections
from collections.abc import Callable
import dataclasses
import functools
from typing import Any, TYPE_CHECKING

import numpy as np

from tff_fedsa.data import mapped_clients
from tff_fedsa.runs import errors

if TYPE_CHECKING:
  from tff_fedsa.data import tasks


def hold_out(
  task: tasks.FederatedTask, fraction: float, *, seed: int
) -> tasks.FederatedTask:
  """Returns the task with validation examples.

  Each client holds out the share `fraction` of its train examples, rounded, and
  keeps at least one. Its test examples do not change.

  Args:
    task: A task without validation examples.
    fraction: Share in [0, 1). 0 changes nothing.
    seed: Seed of the choice.

  Raises:
    ValueError: If no client has an example to hold out.
  """
  if not fraction:
    return task
  clients: list[Any] = []
  validation_fns: list[Callable[[], Any]] = []
  total = 0
  for client_id, client in enumerate(task.clients):
    num_examples = len(client.train['y'])
    order = np.random.default_rng([seed, client_id]).permutation(num_examples)
    size = min(round(fraction * num_examples), num_examples - 1)
    held, kept = np.sort(order[:size]), np.sort(order[size:])
    total += size
    if isinstance(client, mapped_clients.MappedClient):
      # Read each time, so that memory does not grow.
      clients.append(client.with_train(functools.partial(_train, client, kept)))
      validation_fns.append(functools.partial(_train, client, held))
    else:
      clients.append(client._replace(train=_train(client, kept)))
      validation_fns.append(_constant(_train(client, held)))
  if not total:
    raise errors.UserError(
      f'{task.name}: a validation_fraction of {fraction} of the train examples '
      'of any client is less than one example. Take a larger one.'
    )
  return dataclasses.replace(
    task, clients=tuple(clients), validation_fns=tuple(validation_fns)
  )


def _train(client: Any, positions: np.ndarray) -> Any:
  """Returns some of a client's train examples."""
  return collections.OrderedDict(
    (name, array[positions]) for name, array in client.train.items()
  )


def _constant(value: Any) -> Callable[[], Any]:
  return lambda: value
