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

  Examples are shuffled and cut into one part per group of workers. In each, the
  classes are divided as in `dirichlet`, until every worker has half of its fair
  share or more. All workers' examples, in a row, are then cut into equal
  contiguous chunks, one per client: a client has most of one worker's
  examples and some of the next one's. Sizes differ by at most one.

  Source: `build_non_iid_by_dirichlet` of epfml/federated-learning-public-code
  (Lin et al., Ensemble distillation for robust model fusion in federated
  learning, NeurIPS 2020), with chunks as in mala-lab/FedHPro@686efbf ("NID1").

  Args:
    labels: int[num_examples], in `[0, num_classes)`.
    num_clients: M.
    alpha: Concentration > 0; smaller is more heterogeneous.
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
