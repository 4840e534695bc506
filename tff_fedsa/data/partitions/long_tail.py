"""Makes classes exponentially rarer, before any partition."""

import numpy as np


def long_tail(
  labels: np.ndarray, *, rho: float, rng: np.random.RandomState
) -> np.ndarray:
  """Returns the examples that stay when classes become exponentially rarer.

  Class c keeps n_c = n_max * (1 / rho) ** (c / (C - 1)) random examples. So the
  first class has rho times as many as the last.

  Source: Cui et al., Class-balanced loss based on effective number of samples,
  CVPR 2019; "long-tailed CIFAR".

  Args:
    labels: int[num_examples], in `[0, num_classes)`.
    rho: n_max / n_min, at least 1.
    rng: The stream to draw from.

  Returns:
    int64 indices, in order. A class with fewer than n_c examples keeps all.
  """
  counts = np.bincount(labels)
  num_classes = len(counts)
  exponents = np.arange(num_classes) / max(num_classes - 1, 1)
  # Rounded down, but tolerant to errors in the last digit.
  targets = np.floor(counts.max() * (1.0 / rho) ** exponents + 1e-6)
  kept = []
  for label, target in enumerate(np.maximum(targets, 1).astype(int)):
    indices = np.flatnonzero(labels == label)
    kept.append(rng.permutation(indices)[:target])
  return np.sort(np.concatenate(kept))
