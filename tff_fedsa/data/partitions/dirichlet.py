"""A Dirichlet draw per class divides it among clients."""

from typing import Optional

import numpy as np

from tff_fedsa.data.partitions import draws
from tff_fedsa.runs import errors


def dirichlet(
  labels: np.ndarray,
  num_clients: int,
  *,
  alpha: float,
  least_samples: int = 16,
  holders: Optional[np.ndarray] = None,
  rng: np.random.RandomState,
) -> list[np.ndarray]:
  """Divides each class among clients by proportions ~ Dir(alpha).

  A client that already holds its fair share (num_examples / num_clients) gets
  nothing more. The whole draw is repeated until every client has at least
  `least_samples`.

  Source: `separate_data` in `dataset/utils/dataset_utils.py`,
  TsingZ0/PFLlib@d832e76 and lokinko/FedSA@75bf106 (whose `least_samples` is 1).

  Args:
    labels: int[num_examples], in `[0, num_classes)`.
    num_clients: M.
    alpha: Concentration > 0. Smaller values are more heterogeneous.
    least_samples: Examples, train and test together, of the smallest client.
    holders: bool[num_classes, num_clients], the clients that may hold a class,
      at least one per class. If all of them have their fair share, they exceed
      it. Default: all clients.
    rng: The stream to draw from.

  Raises:
    ValueError: If there are too few examples for `least_samples`, or no draw
      satisfies it.
  """
  fair_share = len(labels) / num_clients
  draws.check_possible(len(labels), num_clients, least_samples)
  for _ in range(draws.MAX_DRAWS):
    parts: list[list[np.ndarray]] = [[] for _ in range(num_clients)]
    sizes = np.zeros(num_clients, np.int64)
    for label in range(int(labels.max()) + 1):
      indices = np.where(labels == label)[0]
      rng.shuffle(indices)
      proportions = rng.dirichlet(np.repeat(alpha, num_clients))
      is_open = sizes < fair_share
      if holders is not None:
        is_open &= holders[label]
        if not proportions[is_open].sum() > 0:
          is_open = holders[label]
      proportions = proportions * is_open
      total = proportions.sum()
      if not total > 0:
        # All examples fell to full clients, so the draw is invalid.
        sizes[:] = 0
        break
      cuts = (np.cumsum(proportions / total) * len(indices)).astype(int)
      if holders is not None:
        # The remainder of the rounding goes to the last holder, not the last
        # client.
        cuts[np.flatnonzero(is_open)[-1] :] = len(indices)
      for client, part in enumerate(np.split(indices, cuts[:-1])):
        parts[client].append(part)
        sizes[client] += len(part)
    if sizes.min() >= max(least_samples, 1):
      return [np.concatenate(own) for own in parts]
  raise errors.UserError(
    f'No Dirichlet draw of {draws.MAX_DRAWS} gave each of {num_clients} '
    f'clients at least {least_samples} of {len(labels)} examples at '
    f'alpha={alpha}. Use fewer clients, a larger alpha or a smaller '
    'least_samples.'
  )
