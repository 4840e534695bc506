"""Divides examples into a pool for clients and held-out test sets."""

import numpy as np

from tff_fedsa.data import sources
from tff_fedsa.runs import errors

TEST_SETS = ('split', 'original', 'per_domain')

# Share of each domain for clients. The rest is for tests.
_DOMAIN_TRAIN_FRACTION = 0.8


def pool_and_tests(
  source: sources.Source, test_set: str, *, seed: int
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
  """Divides a source before it is dealt out.

  Args:
    source: All examples.
    test_set: `split` holds nothing out. `original` holds out the original test
      set. `per_domain` holds out a fifth of each domain (without domains, of
      all examples), with the proportions of its classes.
    seed: Seed of `per_domain`.

  Returns:
    Indices to deal out, and indices of disjoint test sets by name: one test set
    per domain, or `test` without domains.

  Raises:
    ValueError: If the source has no original test set, or a domain is too
      small.
  """
  everything = np.arange(len(source.labels))
  if test_set == 'split':
    return everything, {}
  if test_set == 'original':
    if source.num_train is None:
      raise errors.UserError(
        f'The dataset {source.name!r} has no original test set. Use '
        "test_set='split' or 'per_domain'."
      )
    pool, test = np.split(everything, [source.num_train])
    return pool, by_domain(source, test)
  pools, tests = [], {}
  for name, indices in by_domain(source, everything).items():
    kept = stratified_subset(
      indices,
      source.labels,
      int(_DOMAIN_TRAIN_FRACTION * len(indices)),
      seed=seed,
      what=f'{source.name}, {name}',
    )
    pools.append(kept)
    tests[name] = np.setdiff1d(indices, kept)
  return np.sort(np.concatenate(pools)), tests


def by_domain(
  source: sources.Source, indices: np.ndarray
) -> dict[str, np.ndarray]:
  """Groups indices by domain, or under `test` without domains."""
  if source.domains is None:
    return {'test': indices}
  grouped = {
    name: indices[source.domains[indices] == domain]
    for domain, name in enumerate(source.domain_names)
  }
  return {name: own for name, own in grouped.items() if own.size}


def stratified_subset(
  pool: np.ndarray, labels: np.ndarray, size: int, *, seed: int, what: str
) -> np.ndarray:
  """Draws `size` of the indices `pool`, with the proportions of classes.

  Args:
    pool: Indices. If there are at most `size`, all are returned.
    labels: Labels of all examples.
    size: At least one per class.
    seed: Seed of the choice.
    what: Name of the size in messages.

  Raises:
    ValueError: If `size` or the rest has fewer examples than classes, or a
      class has a single example.
  """
  from sklearn import model_selection  # Slow to import.

  if size >= len(pool):
    return pool
  num_classes = len(np.unique(labels[pool]))
  if min(size, len(pool) - size) < num_classes:
    raise errors.UserError(
      f'{what}: {size} of {len(pool)} examples cannot keep the proportions of '
      f'{num_classes} classes. Each part needs one per class or more.'
    )
  try:
    chosen, _ = model_selection.train_test_split(
      pool, train_size=size, stratify=labels[pool], random_state=seed
    )
  except ValueError as error:
    raise errors.UserError(f'{what}: {error}') from error
  return np.sort(chosen)
