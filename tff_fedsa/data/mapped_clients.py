"""Clients whose images stay on disk until they are asked for."""

import collections
from collections.abc import Callable, Sequence
import functools
from typing import Any

import numpy as np

from tff_fedsa.data import partition as partition_lib
from tff_fedsa.runs import errors


class MappedClient:
  """As `tasks.ClientExamples`, but read each time, so memory stays flat."""

  def __init__(self, train_fn: Callable[[], Any], test_fn: Callable[[], Any]):
    """Initializes `MappedClient`.

    Args:
      train_fn: Reads the train examples.
      test_fn: Reads the test examples.
    """
    self._train_fn = train_fn
    self._test_fn = test_fn

  def with_train(self, train_fn: Callable[[], Any]) -> 'MappedClient':
    """Returns the client with other train examples.

    Args:
      train_fn: Reads them.
    """
    return MappedClient(train_fn, self._test_fn)

  def with_test(self, test: Any) -> 'MappedClient':
    """Returns the client with other test examples.

    Args:
      test: As in `tasks.ClientExamples`.
    """
    return MappedClient(self._train_fn, lambda: test)

  @property
  def train(self) -> Any:
    return self._train_fn()

  @property
  def test(self) -> Any:
    return self._test_fn()


def in_memory(clients: Sequence[Any], message: str) -> list[Any]:
  """Returns clients, none of which is a `MappedClient`.

  Args:
    clients: The clients of a task.
    message: What to say if a client's images stay on disk.

  Raises:
    ValueError: If the images of a client stay on disk.
  """
  if any(isinstance(client, MappedClient) for client in clients):
    raise errors.UserError(message)
  return list(clients)


def mapped_clients(
  gather_fn: Callable[[np.ndarray], Any], partition: partition_lib.Partition
) -> tuple[MappedClient, ...]:
  """Returns the clients of a partition.

  Args:
    gather_fn: Reads the examples at some indices.
    partition: Test examples that several clients share are read once and kept.
  """
  uses = collections.Counter(map(id, partition.test))
  shared = {
    id(indices): functools.cache(functools.partial(gather_fn, indices))
    for indices in partition.test
    if uses[id(indices)] > 1
  }
  return tuple(
    MappedClient(
      functools.partial(gather_fn, train),
      shared.get(id(test)) or functools.partial(gather_fn, test),
    )
    for train, test in zip(partition.train, partition.test)
  )
