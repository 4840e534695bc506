"""From the specification of a task to its partition."""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any

import numpy as np

from tff_fedsa.data import datasets
from tff_fedsa.data import held_out
from tff_fedsa.data import partition as partition_lib
from tff_fedsa.data import partition_file
from tff_fedsa.data import sources
from tff_fedsa.data import task_spec
from tff_fedsa.runs import errors


def load(
  spec: task_spec.TaskSpec,
) -> tuple[sources.Source, partition_lib.Partition]:
  """Loads a source, and loads or draws its partition.

  Raises:
    FileNotFoundError: If data or partition file are not there.
    ValueError: If the data are unsuitable or the partition impossible; the
      message says what to change.
  """
  if spec.dataset in datasets.NATURAL_NAMES:
    from tff_fedsa.data import natural  # Imports TFF.

    return natural.load(spec)
  source = datasets.load(
    spec.dataset,
    data_dir=spec.data_dir,
    download=spec.download,
    image_size=spec.image_size,
    cache_dir=spec.cache_directory(),
    alpha_background=spec.alpha_background,
  )
  if spec.partition_file:
    return source, partition_lib.load(
      spec.partition_file,
      labels=source.labels,
      order=source.order,
      ids_fn=source.ids_fn,
    )
  return source, draw(spec, source)


def draw(
  spec: task_spec.TaskSpec, source: sources.Source
) -> partition_lib.Partition:
  """Draws the partition of a source, a pure function of both arguments.

  Raises:
    ValueError: If it is impossible; the message says what to change.
  """
  pool, tests = held_out.pool_and_tests(source, spec.test_set, seed=spec.seed)
  whole_pool = len(pool)
  if spec.max_examples is not None:
    pool = held_out.stratified_subset(
      pool,
      source.labels,
      spec.max_examples,
      seed=spec.seed,
      what='max_examples',
    )
  if spec.max_test_examples is not None:
    tests = {
      name: held_out.stratified_subset(
        indices,
        source.labels,
        spec.max_test_examples,
        seed=spec.seed,
        what=f'max_test_examples, {name}',
      )
      for name, indices in tests.items()
    }
  of_domains = (
    _domain_options(spec, source, pool, whole_pool)
    if spec.partition == 'domain'
    else {}
  )
  drawn = partition_lib.draw(
    source.labels,
    spec.partition,
    spec.num_clients,
    seed=spec.seed,
    pool=pool,
    long_tail_rho=spec.long_tail_rho,
    alpha=spec.alpha,
    classes_per_client=spec.classes_per_client,
    balanced=spec.balanced,
    least_samples=spec.least_samples,
    train_fraction=spec.train_fraction,
    test=_test_fn(spec, source, tests) if tests else None,
    **of_domains,
  )
  return dataclasses.replace(
    drawn,
    global_test=tests,
    origin=partition_file.origin_of(source.labels, source.order),
  )


def _test_fn(
  spec: task_spec.TaskSpec,
  source: sources.Source,
  tests: Mapping[str, np.ndarray],
) -> Callable[[np.ndarray], np.ndarray]:
  """Returns a function from a client's train indices to its test indices."""
  joined: dict[tuple[str, ...], np.ndarray] = {}

  def test_fn(train: np.ndarray) -> np.ndarray:
    if spec.test_set == 'original':
      names = tuple(tests)
    else:
      names = tuple(held_out.by_domain(source, train))
    # Clients of the same domains share one array, and its images later on.
    if names not in joined:
      parts = [tests[name] for name in names]
      joined[names] = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return joined[names]

  return test_fn


def _domain_options(
  spec: task_spec.TaskSpec,
  source: sources.Source,
  pool: np.ndarray,
  whole_pool: int,
) -> dict[str, Any]:
  """Returns the arguments of `partition.draw` that the domain partition has."""
  if source.domains is None:
    raise errors.UserError(
      f'The dataset {spec.dataset!r} has no domains, which the domain '
      'partition deals out. Use another one.'
    )
  names = source.domain_names
  clients = spec.clients_per_domain
  if clients is None:
    if spec.num_clients < len(names):
      raise errors.UserError(
        f'Expected num_clients >= {len(names)}, one per domain of '
        f'{spec.dataset!r}, found {spec.num_clients}.'
      )
    parts = np.array_split(np.arange(spec.num_clients), len(names))
    clients = {name: len(part) for name, part in zip(names, parts)}
  unknown = sorted(set(clients) - set(names))
  if unknown:
    raise errors.UserError(
      f'{spec.dataset!r} has no domain {unknown[0]!r} (clients_per_domain); '
      f'its domains: {", ".join(names)}.'
    )
  options: dict[str, Any] = {
    'domains': source.domains,
    'clients_per_domain': [clients.get(name, 0) for name in names],
  }
  if spec.domain_fraction is not None:
    # Of a domain as it is stored, or of so much of it as max_examples leaves.
    fraction = spec.domain_fraction * len(pool) / whole_pool
    options['examples_per_client'] = [
      int(fraction * size + 1e-6)
      for size in np.bincount(source.domains, minlength=len(names))
    ]
  return options
