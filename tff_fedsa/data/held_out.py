"""Divides examples into those of clients and a test set held out for all."""

import numpy as np

from tff_fedsa.data import sources
from tff_fedsa.runs import errors

TEST_SETS = ('split', 'original', 'per_domain')

# Share of each domain that clients draw from; the rest is for tests.
_DOMAIN_TRAIN_FRACTION = 0.8


def pool_and_tests(
  source: sources.Source, test_set: str, *, seed: int
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
  """Divides a source before it is dealt out.

  Args:
    source: All examples.
    test_set: `split` holds nothing out; `original` the original test set;
      `per_domain` a fifth of each domain (of everything where there are none),
      with the proportions of its classes.
    seed: Seed of `per_domain`.

  Returns:
    Indices to be dealt out, and by name those of test sets, which are disjoint:
    one for each domain, or `test` where the source has no domains.

  Raises:
    ValueError: If the source has no original test set, or a domain is too small
      to be divided.
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
  """Groups indices by domain; all are `test` where there are no domains."""
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
  """Returns `size` of the indices `pool`, class proportions kept, in order.

  Args:
    pool: Indices; all are returned if they are no more than `size`.
    labels: Labels of all examples.
    size: At least one per class.
    seed: Seed of the choice.
    what: Names the size in messages.

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
