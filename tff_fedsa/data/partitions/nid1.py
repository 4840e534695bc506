"""Class-wise Dirichlet in groups of workers, cut into equal chunks."""

import numpy as np

from tff_fedsa.data.partitions import dirichlet

_GROUP_SIZE = 10


def nid1(
  labels: np.ndarray,
  num_clients: int,
  *,
  alpha: float,
  rng: np.random.RandomState,
) -> list[np.ndarray]:
  """Divides classes within groups of 10 workers, then into equal chunks.

  Examples are shuffled and cut into one part per group of workers. Each part is
  divided as in `dirichlet`, until every worker has at least half of its fair
  share. Then the examples of all workers, in a row, are cut into equal chunks,
  one per client. A client has most examples of one worker and some of the next.
  Sizes differ by at most one.

  Source: `build_non_iid_by_dirichlet` of epfml/federated-learning-public-code
  (Lin et al., Ensemble distillation for robust model fusion in federated
  learning, NeurIPS 2020), with chunks as in mala-lab/FedHPro@686efbf ("NID1").

  Args:
    labels: int[num_examples], in `[0, num_classes)`.
    num_clients: M.
    alpha: Concentration > 0. Smaller values are more heterogeneous.
    rng: The stream to draw from.

  Raises:
    ValueError: If no draw gives every worker half of its fair share.
  """
  shuffled = rng.permutation(len(labels))
  ends = np.arange(_GROUP_SIZE, num_clients, _GROUP_SIZE)
  cuts = (ends / num_clients * len(labels)).astype(int)
  group_sizes = np.diff([0, *ends, num_clients])
  row: list[np.ndarray] = []
  for examples, num_workers in zip(np.split(shuffled, cuts), group_sizes):
    workers = dirichlet.dirichlet(
      labels[examples],
      int(num_workers),
      alpha=alpha,
      least_samples=len(examples) // int(num_workers) // 2,
      rng=rng,
    )
    row.extend(examples[own] for own in workers)
  return np.array_split(np.concatenate(row), num_clients)
