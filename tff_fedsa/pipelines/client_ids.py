"""A `FederatedDataSource` that draws clients by a seed."""

from collections.abc import Sequence
import json
from typing import Optional

import numpy as np
import tensorflow_federated as tff

from tff_fedsa import sampling
from tff_fedsa.runs import errors


class SeededClientIdIterator(tff.program.FederatedDataSourceIterator):
  """Draws client ids. A program saves the number of draws."""

  def __init__(self, client_ids: Sequence[str], seed: int, draws: int = 0):
    self._client_ids = list(client_ids)
    self._seed = seed
    self._draws = draws

  @classmethod
  def from_bytes(cls, buffer: bytes) -> 'SeededClientIdIterator':
    return cls(**json.loads(buffer))

  def to_bytes(self) -> bytes:
    return json.dumps(
      {
        'client_ids': self._client_ids,
        'seed': self._seed,
        'draws': self._draws,
      }
    ).encode()

  @property
  def federated_type(self) -> tff.FederatedType:
    return tff.FederatedType(np.str_, tff.CLIENTS)

  def select(self, k: Optional[int] = None) -> list[str]:
    """Returns the ids of the next `k` clients. Default: all.

    Raises:
      ValueError: If `k` is not in `[1, number of clients]`.
    """
    num_clients = len(self._client_ids)
    drawn = sampling.sample_clients(
      self._seed,
      self._draws + 1,
      num_clients,
      num_clients if k is None else k,
    )
    self._draws += 1
    return [self._client_ids[index] for index in drawn]


class SeededClientIdDataSource(tff.program.FederatedDataSource):
  """Like `tff.program.ClientIdDataSource`, but with repeatable draws.

  TFF's data source draws from Python's global generator. Here draw number `r`
  depends only on the seed and `r`, as in `tff-fedsa train`. So a program that
  resumes draws the same clients as an uninterrupted program.
  """

  def __init__(self, client_ids: Sequence[str], seed: int = 0):
    """Initializes `SeededClientIdDataSource`.

    Args:
      client_ids: Ids of the population.
      seed: Seed of the draws.

    Raises:
      ValueError: If there is no client.
    """
    if not client_ids:
      raise errors.UserError('Expected at least one client id, found none.')
    self._client_ids = client_ids
    self._seed = seed

  @property
  def federated_type(self) -> tff.FederatedType:
    return tff.FederatedType(np.str_, tff.CLIENTS)

  def iterator(self) -> SeededClientIdIterator:
    return SeededClientIdIterator(self._client_ids, self._seed)
