"""A few classes per client, divided by Dirichlet draws."""

import numpy as np

from tff_fedsa.data.partitions import dirichlet
from tff_fedsa.data.partitions import draws
from tff_fedsa.runs import errors


def extended_dirichlet(
  labels: np.ndarray,
  num_clients: int,
  *,
  classes_per_client: int,
  alpha: float,
  least_samples: int = 16,
  rng: np.random.RandomState,
) -> list[np.ndarray]:
  """Draws each client's classes, then divides each class among its holders.

  Classes are drawn again until each has at least half of its share of holders.
  Then each class is divided among its holders as in `dirichlet`.

  Source: Li et al., Convergence analysis of sequential federated learning on
  heterogeneous data, NeurIPS 2023, as `exdir` of TsingZ0/PFLlib@d832e76.
  There, a class is not dealt out if all its holders have their fair share.

  Args:
    labels: int[num_examples], in `[0, num_classes)`.
    num_clients: M.
    classes_per_client: k, the largest number of classes of a client.
    alpha: Concentration > 0 among the holders of a class.
    least_samples: See `dirichlet`.
    rng: The stream to draw from.

  Raises:
    ValueError: If the clients cannot hold all classes, or no draw satisfies
      `least_samples`.
  """
  num_classes = int(labels.max()) + 1
  if not 1 <= classes_per_client <= num_classes:
    raise errors.UserError(
      f'Expected classes_per_client in [1, {num_classes}], found '
      f'{classes_per_client}.'
    )
  draws.check_possible(len(labels), num_clients, least_samples)
  if classes_per_client * num_clients < num_classes:
    raise errors.UserError(
      f'{num_clients} clients of {classes_per_client} classes cannot hold '
      f'{num_classes} classes. Use more clients or a larger classes_per_client.'
    )
  least_holders = max(classes_per_client * num_clients // num_classes // 2, 1)
  for _ in range(draws.MAX_DRAWS):
    holders = np.zeros((num_classes, num_clients), bool)
    for client in range(num_clients):
      own = rng.choice(num_classes, classes_per_client, replace=False)
      holders[own, client] = True
    if holders.sum(axis=1).min() >= least_holders:
      return dirichlet.dirichlet(
        labels,
        num_clients,
        alpha=alpha,
        least_samples=least_samples,
        holders=holders,
        rng=rng,
      )
  raise errors.UserError(
    f'No draw of {draws.MAX_DRAWS} gave each of {num_classes} classes to '
    f'{least_holders} of {num_clients} clients of {classes_per_client} classes '
    'each. Use more clients or a larger classes_per_client.'
  )
