"""Each client has examples of one domain."""

from collections.abc import Sequence
from typing import Optional

import numpy as np

from tff_fedsa.runs import errors


def domain(
  domains: np.ndarray,
  clients_per_domain: Sequence[int],
  *,
  examples_per_client: Optional[Sequence[int]] = None,
  rng: np.random.RandomState,
) -> list[np.ndarray]:
  """Shuffles each domain and deals it out to its own clients.

  Source: the Office-Caltech and Digits set-ups of Huang et al., Rethinking
  federated learning with domain shift: a prototype view, CVPR 2023, where a
  client gets a fraction of its domain.

  Args:
    domains: int[num_examples], in `[0, len(clients_per_domain))`.
    clients_per_domain: Number of clients of each domain. With 0, no client has
      its examples. Clients are numbered domain by domain.
    examples_per_client: Number of examples of each client of a domain. Default:
      all examples are dealt out, in shares that differ by at most one.
    rng: The stream to draw from.

  Raises:
    ValueError: If a domain has too few examples.
  """
  shares: list[np.ndarray] = []
  for index, num_clients in enumerate(clients_per_domain):
    indices = rng.permutation(np.flatnonzero(domains == index))
    if not num_clients:
      continue
    if examples_per_client is not None:
      needed = num_clients * examples_per_client[index]
      if needed > len(indices):
        raise errors.UserError(
          f'Domain {index} has {len(indices)} examples to deal out, its '
          f'{num_clients} clients of {examples_per_client[index]} each need '
          f'{needed}. Use a smaller domain_fraction or fewer clients.'
        )
      indices = indices[:needed]
    shares.extend(np.array_split(indices, num_clients))
  return shares
