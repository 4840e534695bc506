"""Partitions without differences of classes: iid, and unequal sizes."""

import numpy as np

from tff_fedsa.data.partitions import draws
from tff_fedsa.runs import errors


def iid(
  labels: np.ndarray, num_clients: int, *, rng: np.random.RandomState
) -> list[np.ndarray]:
  """Shuffles all examples and deals out equal shares (sizes differ by <= 1)."""
  return np.array_split(rng.permutation(len(labels)), num_clients)


def quantity_skew(
  labels: np.ndarray,
  num_clients: int,
  *,
  alpha: float,
  least_samples: int = 16,
  rng: np.random.RandomState,
) -> list[np.ndarray]:
  """Shuffles all examples and deals out shares of sizes ~ Dir(alpha).

  Source: "quantity skew" of Li et al., Federated learning on non-IID data
  silos: an experimental study, ICDE 2022.

  Args:
    labels: int[num_examples]. Only their number matters.
    num_clients: M.
    alpha: Concentration > 0. Smaller values are more uneven.
    least_samples: Examples of the smallest client. Draws with fewer are
      repeated.
    rng: The stream to draw from.

  Raises:
    ValueError: If no draw satisfies `least_samples`.
  """
  draws.check_possible(len(labels), num_clients, least_samples)
  indices = rng.permutation(len(labels))
  for _ in range(draws.MAX_DRAWS):
    proportions = rng.dirichlet(np.repeat(alpha, num_clients))
    if np.isnan(proportions).any():
      # All values underflowed, because alpha is tiny.
      continue
    cuts = (np.cumsum(proportions) * len(indices)).astype(int)[:-1]
    shares = np.split(indices, cuts)
    if min(map(len, shares)) >= max(least_samples, 1):
      return shares
  raise errors.UserError(
    f'No draw of {draws.MAX_DRAWS} gave each of {num_clients} clients at least '
    f'{least_samples} of {len(labels)} examples at alpha={alpha}. Use fewer '
    'clients, a larger alpha or a smaller least_samples.'
  )
