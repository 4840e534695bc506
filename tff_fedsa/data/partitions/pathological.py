"""A few classes per client, in blocks."""

import numpy as np

from tff_fedsa.runs import errors


def pathological(
  labels: np.ndarray,
  num_clients: int,
  *,
  classes_per_client: int,
  balanced: bool = True,
  least_samples: int = 1,
  rng: np.random.RandomState,
) -> list[np.ndarray]:
  """Gives each client examples of a few classes.

  In order, class i goes to the first ceil(M / C * k) clients (by id) with fewer
  than k classes. If balanced, blocks are equal, and the last has the remainder.
  Otherwise sizes are random.

  Source: `separate_data` (`pat`), TsingZ0/PFLlib@d832e76.

  Args:
    labels: int[num_examples].
    num_clients: M.
    classes_per_client: k, at least 1.
    balanced: Whether blocks of a class are equal.
    least_samples: If sizes are random, no block of a class is smaller than
      `least_samples / num_classes` or a tenth of an equal block.
    rng: The stream for random sizes.

  Raises:
    ValueError: If a client or a class gets nothing.
  """
  num_classes = int(labels.max()) + 1
  if not 1 <= classes_per_client <= num_classes:
    raise errors.UserError(
      f'Expected classes_per_client in [1, {num_classes}], found '
      f'{classes_per_client}.'
    )
  budgets = [classes_per_client] * num_clients
  shares: list[list[int]] = [[] for _ in range(num_clients)]
  clients_per_class = int(
    np.ceil(num_clients / num_classes * classes_per_client)
  )
  for label in range(num_classes):
    indices = np.where(labels == label)[0]
    takers = [c for c in range(num_clients) if budgets[c] > 0]
    takers = takers[:clients_per_class]
    if not takers:
      raise errors.UserError(
        f'No client is left for class {label}: {num_clients} clients of '
        f'{classes_per_client} classes cannot hold {num_classes} classes. Use '
        'more clients or a larger classes_per_client.'
      )
    size = len(indices) / len(takers)
    if balanced:
      sizes = [int(size)] * (len(takers) - 1)
    else:
      smallest = int(max(size / 10, least_samples / num_classes))
      sizes = rng.randint(smallest, int(size), len(takers) - 1).tolist()
    for taker, part in zip(
      takers, np.split(indices, np.cumsum(sizes)), strict=False
    ):
      shares[taker].extend(part.tolist())
      budgets[taker] -= 1
  empty = [client for client, share in enumerate(shares) if not share]
  if empty:
    raise errors.UserError(
      f'Clients {empty} got no example: {num_classes} classes of '
      f'{clients_per_class} clients each do not reach {num_clients} clients.'
    )
  return [np.array(share, np.int64) for share in shares]
