"""A Dirichlet draw per client sets its mix of classes; sizes are equal."""

import numpy as np


def client_dirichlet(
  labels: np.ndarray,
  num_clients: int,
  *,
  alpha: float,
  rng: np.random.RandomState,
) -> list[np.ndarray]:
  """Gives each client a class mix ~ Dir(alpha * popularity), and equal sizes.

  Clients take turns in random order. Each draws a class from its mix, and one
  of the remaining examples of the class. A class without examples leaves all
  mixes. A mix without classes becomes the mix of the remaining examples. Sizes
  differ by at most one.

  The result differs from `dirichlet` with the same alpha: here alpha is divided
  among the classes, and clients have equal sizes.

  Source: Hsu, Qi and Brown, Measuring the effects of non-identical data
  distribution for federated visual classification, 2019; turns as in
  `generalization/synthesization/dirichlet.py`, google-research/federated.

  Args:
    labels: int[num_examples], in `[0, num_classes)`.
    num_clients: M.
    alpha: Concentration > 0. Near 0 a client has a single class.
    rng: The stream to draw from.
  """
  left = [
    rng.permutation(np.flatnonzero(labels == label)).tolist()
    for label in range(int(labels.max()) + 1)
  ]
  counts = np.array([len(indices) for indices in left], np.float64)
  popularity = counts / counts.sum()
  mixes = np.zeros((num_clients, len(left)))
  held = np.flatnonzero(counts)
  for mix in mixes:
    mix[held] = rng.dirichlet(alpha * popularity[held])
    if np.isnan(mix).any():
      # All values underflowed. The limit for alpha -> 0 is a single class.
      mix[:] = np.eye(len(left))[rng.choice(len(left), p=popularity)]
  cumulative = mixes.cumsum(axis=1)
  shares: list[list[int]] = [[] for _ in range(num_clients)]
  turns = rng.permutation(num_clients)
  for turn in range(len(labels)):
    if turn % num_clients == 0:
      turns = rng.permutation(num_clients)
    client = turns[turn % num_clients]
    if not cumulative[client, -1] > 0.0:
      cumulative[client] = np.cumsum([len(indices) for indices in left])
    drawn = rng.random_sample() * cumulative[client, -1]
    label = int(np.searchsorted(cumulative[client], drawn, side='right'))
    shares[client].append(left[label].pop())
    if not left[label]:
      mixes[:, label] = 0.0
      cumulative = mixes.cumsum(axis=1)
  return [np.array(share, np.int64) for share in shares]
