"""From the specification of a task to its partition."""

from collections.abc import Callable, Mapping
import dataclasses
import os
from typing import Any

import numpy as np

from tff_fedsa.data import datasets
from tff_fedsa.data import generators
from tff_fedsa.data import held_out
from tff_fedsa.data import image_column
from tff_fedsa.data import partition as partition_lib
from tff_fedsa.data import partition_file
from tff_fedsa.data import sources
from tff_fedsa.data import tables
from tff_fedsa.data import task_spec
from tff_fedsa.data.readers import table_file
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
  source = _source(spec)
  return source, deal(spec, source)


def deal(
  spec: task_spec.TaskSpec, source: sources.Source
) -> partition_lib.Partition:
  """Loads or draws the partition of a source, or takes the clients it has.

  Raises:
    FileNotFoundError: If the partition file is not there.
    ValueError: If it is impossible; the message says what to change.
  """
  if source.client_ids is not None:
    return natural_clients(spec, source)
  if spec.partition_file:
    return partition_lib.load(
      spec.partition_file,
      labels=source.labels,
      order=source.order,
      ids_fn=source.ids_fn,
    )
  return draw(spec, source)


def _source(spec: task_spec.TaskSpec) -> sources.Source:
  if spec.dataset in generators.NAMES:
    return generators.read(
      spec.dataset,
      num_clients=spec.num_clients,
      alpha=spec.alpha,
      seed=spec.seed,
      sequence_length=spec.sequence_length,
    )
  if spec.dataset in datasets.TABLES:
    path = datasets.required(spec.data_dir, spec.dataset)
    frame = table_file.read(path, spec.dataset)
    text = spec.text_column
    return tables.source_of(
      frame,
      label=spec.label_column,
      client=spec.client_column,
      text=text if text is None or text in frame else text.split(','),
      images=None
      if spec.image_column is None
      else image_column.ImageColumn(
        spec.image_column,
        folder=os.path.dirname(path),
        image_size=spec.image_size,
        cache_dir=spec.cache_directory(),
        alpha_background=spec.alpha_background,
      ),
      with_columns=spec.text_with_columns,
      drop=spec.drop_columns,
      sequence_length=spec.sequence_length,
      series_length=spec.series_length,
      name=os.path.basename(path),
    )
  return datasets.load(
    spec.dataset,
    data_dir=spec.data_dir,
    download=spec.download,
    image_size=spec.image_size,
    cache_dir=spec.cache_directory(),
    alpha_background=spec.alpha_background,
    sequence_length=spec.sequence_length,
    series_length=spec.series_length,
    window_length=spec.window_length,
    tfds_name=spec.tfds_name,
    input_key=spec.input_key,
    label_key=spec.label_key,
  )


def natural_clients(
  spec: task_spec.TaskSpec, source: sources.Source
) -> partition_lib.Partition:
  """Returns the clients that a source has, sorted by their ids.

  Clients with a single example, which cannot be divided, are left out with a
  notice.

  Args:
    spec: Its `test_set`, `train_fraction`, `max_test_examples` and `seed` say
      what clients are tested on.
    source: Its `client_ids` are not None.

  Raises:
    ValueError: If no client is left, or the test set is impossible.
  """
  assert source.client_ids is not None
  pool, tests = held_out.pool_and_tests(source, spec.test_set, seed=spec.seed)
  tests = _some_of_tests(spec, source, tests)
  names, whose = np.unique(source.client_ids[pool], return_inverse=True)
  owned = np.split(
    pool[np.argsort(whose, kind='stable')],
    np.cumsum(np.bincount(whose))[:-1],
  )
  whole = np.concatenate([*tests.values()]) if tests else None
  kept: list[str] = []
  alone: list[str] = []
  train, test = [], []
  for name, indices in zip(map(str, names), owned):
    if whole is None and len(indices) < 2:
      alone.append(name)
      continue
    own_test = whole
    if own_test is None:
      parts = division(
        len(indices), spec.train_fraction, seed=spec.seed, client=len(kept)
      )
      indices, own_test = (indices[part] for part in parts)
    kept.append(name)
    train.append(indices)
    test.append(own_test)
  if not kept:
    raise errors.UserError(
      f'{source.name}: expected clients with two examples or more, found '
      f'{len(alone)} with one each. Is the column of clients the right one?'
    )
  left_out = f'{source.name}: left out {len(alone)} clients with one example: '
  shown = ', '.join(alone[:10]) + (', …' if len(alone) > 10 else '')
  return partition_lib.Partition(
    tuple(train),
    tuple(test),
    tests,
    origin=partition_file.origin_of(source.labels, source.order),
    client_names=tuple(kept),
    notices=(f'{left_out}{shown}.',) if alone else (),
  )


def division(
  count: int, train_fraction: float, *, seed: int, client: int
) -> tuple[np.ndarray, np.ndarray]:
  """Divides a client's examples at random.

  Args:
    count: How many it has, >= 2.
    train_fraction: Share to train on, in (0, 1).
    seed: Seed of all divisions.
    client: Number of the client.

  Returns:
    Indices of train and of test examples, one or more each.
  """
  order = np.random.default_rng([seed, client]).permutation(count)
  cut = min(int(np.ceil(train_fraction * count)), count - 1)
  return order[:cut], order[cut:]


def _some_of_tests(
  spec: task_spec.TaskSpec,
  source: sources.Source,
  tests: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
  """Returns `max_test_examples` of each test set."""
  if spec.max_test_examples is None:
    return dict(tests)
  return {
    name: held_out.stratified_subset(
      indices,
      source.labels,
      spec.max_test_examples,
      seed=spec.seed,
      what=f'max_test_examples, {name}',
    )
    for name, indices in tests.items()
  }


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
  tests = _some_of_tests(spec, source, tests)
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
