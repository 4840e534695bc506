"""Federated tasks: a source, a partition, and the clients' arrays."""

import collections
from collections.abc import Sequence
import dataclasses
from typing import Any, NamedTuple, Optional

import numpy as np

from tff_fedsa.data import input_spec as input_spec_lib
from tff_fedsa.data import partition as partition_lib
from tff_fedsa.data import sources

TEST_SETS = ('split', 'original')


class ClientExamples(NamedTuple):
  """One client's data.

  Attributes:
    train: Dict of `x`, images as stored `[n, height, width, channels]`, and
      `y`, int32 labels `[n]`.
    test: The same of the held-out examples.
  """

  train: Any
  test: Any


@dataclasses.dataclass(frozen=True)
class TaskSpec:
  """Everything that determines a task, validated and JSON-able.

  Attributes:
    dataset: One of `sources.DATASETS`.
    data_dir: See `sources.load`.
    download: See `sources.load`.
    num_clients: M.
    partition: One of `partition.NAMES`.
    alpha: Of the Dirichlet partition.
    classes_per_client: Of the pathological partition.
    balanced: Of the pathological partition.
    least_samples: Examples (train and test) of the smallest client.
    partition_file: Takes the partition from this file instead.
    seed: Of the partition and of `max_examples`.
    test_set: `split`: each client's examples are divided `train_fraction` to
      the rest (the paper's protocol, train and test set merged before);
      `original`: only the original train set is dealt out and every client is
      tested on the whole original test set.
    train_fraction: In (0, 1).
    max_examples: Use only so many examples, drawn with the class proportions
      kept; None uses all. With `original`, it applies to the train set.
    image_size: Images are resized to this many pixels square in the client's
      step; None keeps their size.
    channels: Images get this many channels by repetition; None keeps them.
  """

  dataset: str = 'digits'
  data_dir: Optional[str] = None
  download: bool = False
  num_clients: int = 20
  partition: str = 'dirichlet'
  alpha: float = 0.1
  classes_per_client: int = 2
  balanced: bool = True
  least_samples: int = 16
  partition_file: Optional[str] = None
  seed: int = 0
  test_set: str = 'split'
  train_fraction: float = 0.75
  max_examples: Optional[int] = None
  image_size: Optional[int] = None
  channels: Optional[int] = None

  def __post_init__(self):
    _check_known('dataset', self.dataset, sources.DATASETS)
    _check_known('partition', self.partition, partition_lib.NAMES)
    _check_known('test_set', self.test_set, TEST_SETS)
    if not self.alpha > 0.0:
      raise ValueError(f'Expected alpha > 0, found {self.alpha}.')
    if not 0.0 < self.train_fraction < 1.0:
      raise ValueError(
        f'Expected train_fraction in (0, 1), found {self.train_fraction}.'
      )
    for name in (
      'num_clients',
      'classes_per_client',
      'least_samples',
      'max_examples',
      'image_size',
      'channels',
    ):
      value = getattr(self, name)
      if value is not None and value < 1:
        raise ValueError(f'Expected {name} >= 1, found {value}.')
    if self.partition_file and self.max_examples:
      raise ValueError(
        'A partition_file holds indices into the whole data set: it cannot be '
        'used with max_examples.'
      )

  def to_json_dict(self) -> dict[str, Any]:
    """Returns the fields; `TaskSpec(**d)` undoes it."""
    return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class FederatedTask:
  """Data of all clients, ready for a process.

  Attributes:
    name: Of the data set.
    input_spec: How models see the images.
    class_names: One per class.
    clients: One `ClientExamples` per client.
    partition: The indices behind it; None for natural client data.
  """

  name: str
  input_spec: input_spec_lib.InputSpec
  class_names: tuple[str, ...]
  clients: tuple[ClientExamples, ...]
  partition: Optional[partition_lib.Partition] = None

  @property
  def num_clients(self) -> int:
    return len(self.clients)

  @property
  def num_classes(self) -> int:
    return len(self.class_names)

  def class_counts(self) -> np.ndarray:
    """Returns train examples per client and class, int64[clients, classes]."""
    return np.stack(
      [
        np.bincount(client.train['y'], minlength=self.num_classes)
        for client in self.clients
      ]
    )


def load_task(spec: TaskSpec) -> FederatedTask:
  """Loads the source and partitions it.

  Raises:
    FileNotFoundError: If data or partition file are not there.
    ValueError: If the data are unsuitable or the partition impossible; the
      message says what to change.
  """
  source = sources.load(
    spec.dataset,
    data_dir=spec.data_dir,
    download=spec.download,
    image_size=spec.image_size,
  )
  if spec.partition_file:
    partition = partition_lib.load(spec.partition_file)
  else:
    partition = _draw_partition(spec, source)
  return task_from_source(
    source, partition, image_size=spec.image_size, channels=spec.channels
  )


def task_from_source(
  source: sources.Source,
  partition: partition_lib.Partition,
  *,
  image_size: Optional[int] = None,
  channels: Optional[int] = None,
) -> FederatedTask:
  """Deals the examples of a source out to clients.

  Args:
    source: E.g. `sources.from_arrays(images, labels)` for own arrays.
    partition: Indices into it.
    image_size: See `TaskSpec`.
    channels: See `TaskSpec`.

  Raises:
    ValueError: If the partition has indices that the source does not.
  """
  largest = max(
    int(indices.max()) for indices in (*partition.train, *partition.test)
  )
  if largest >= len(source.labels):
    raise ValueError(
      f'The partition has the index {largest}, but {source.name!r} has '
      f'{len(source.labels)} examples: it was made for other data.'
    )
  gathered: dict[int, Any] = {}

  def gather(indices: np.ndarray) -> Any:
    # A test set that clients share is gathered once.
    if id(indices) not in gathered:
      gathered[id(indices)] = _examples(
        source.images[indices], source.labels[indices]
      )
    return gathered[id(indices)]

  size = None if image_size is None else (image_size, image_size)
  return FederatedTask(
    name=source.name,
    input_spec=dataclasses.replace(
      source.input_spec, size=size, channels=channels
    ),
    class_names=source.class_names,
    clients=tuple(
      ClientExamples(gather(train), gather(test))
      for train, test in zip(partition.train, partition.test)
    ),
    partition=partition,
  )


def task_from_clients(
  clients: Sequence[ClientExamples],
  input_spec: input_spec_lib.InputSpec,
  class_names: Sequence[str],
  *,
  name: str = 'clients',
) -> FederatedTask:
  """Makes a task of arrays that are per client already.

  Args:
    clients: Dicts `x`, `y` of arrays, train and test.
    input_spec: How models see the images.
    class_names: One per class.
    name: For messages.

  Raises:
    ValueError: If a client is empty or its arrays do not fit the input spec,
      labels are out of range, or images hold NaN; the client is named.
    TypeError: For arrays of the wrong dtype.
  """
  if not clients:
    raise ValueError(f'{name}: expected at least one client, found none.')
  checked = []
  for client_id, client in enumerate(clients):
    parts = []
    for part, examples in zip(ClientExamples._fields, client):
      what = f'{name}, client {client_id}, {part}'
      if not len(examples['y']):
        raise ValueError(f'{what}: expected at least one example, found none.')
      source = sources.Source(
        what, np.asarray(examples['x']), examples['y'], tuple(class_names)
      )
      expected = (input_spec.shape, input_spec.dtype)
      found = (source.images.shape[1:], source.images.dtype.name)
      if found != expected:
        raise ValueError(
          f'{what}: expected images of shape and dtype {expected}, found '
          f'{found}.'
        )
      parts.append(_examples(source.images, source.labels))
    checked.append(ClientExamples(*parts))
  return FederatedTask(name, input_spec, tuple(class_names), tuple(checked))


def report(task: FederatedTask, *, batch_size: int = 1) -> str:
  """Describes the partition in a few lines, with what deserves a notice.

  Args:
    task: The task.
    batch_size: Clients with fewer train examples are counted.
  """
  counts = task.class_counts()
  sizes = counts.sum(axis=1)
  classes = (counts > 0).sum(axis=1)
  lines = [
    f'{task.name}: {task.num_clients} clients, {task.num_classes} classes, '
    f'{sizes.sum()} train examples '
    f'(per client: min {sizes.min()}, median {int(np.median(sizes))}, max '
    f'{sizes.max()}), classes per client: min {classes.min()}, median '
    f'{int(np.median(classes))}, max {classes.max()}'
  ]
  one_class = np.flatnonzero(classes == 1)
  if one_class.size:
    lines.append(
      f'{one_class.size} client(s) have a single class: {_few(one_class)}'
    )
  small = np.flatnonzero(sizes < batch_size)
  if small.size:
    lines.append(
      f'{small.size} client(s) have fewer examples than a batch of '
      f'{batch_size}: {_few(small)}'
    )
  nowhere = np.flatnonzero(counts.sum(axis=0) == 0)
  if nowhere.size:
    lines.append(f'no client trains on the class(es) {_few(nowhere)}')
  return '\n'.join(lines)


def _few(numbers: np.ndarray) -> str:
  shown = ', '.join(map(str, numbers[:10]))
  return shown + (', …' if len(numbers) > 10 else '')


def _examples(images: np.ndarray, labels: np.ndarray) -> Any:
  return collections.OrderedDict(x=images, y=labels)


def _draw_partition(
  spec: TaskSpec, source: sources.Source
) -> partition_lib.Partition:
  pool, test = np.arange(len(source.labels)), None
  if spec.test_set == 'original':
    if source.num_train is None:
      raise ValueError(
        f'The dataset {spec.dataset!r} has no original test set. Use '
        "test_set='split'."
      )
    pool, test = np.split(pool, [source.num_train])
  if spec.max_examples is not None and spec.max_examples < len(pool):
    pool = _stratified_subset(pool, source.labels, spec.max_examples, spec.seed)
  drawn = partition_lib.draw(
    source.labels[pool],
    spec.partition,
    spec.num_clients,
    seed=spec.seed,
    alpha=spec.alpha,
    classes_per_client=spec.classes_per_client,
    balanced=spec.balanced,
    least_samples=spec.least_samples,
    train_fraction=spec.train_fraction,
    # Indices into the pool, which the test set is no part of.
    test=None if test is None else np.arange(len(test)) + len(pool),
  )
  everything = pool if test is None else np.concatenate([pool, test])
  train = tuple(everything[indices] for indices in drawn.train)
  if test is not None:
    return partition_lib.Partition(train, (test,) * spec.num_clients)
  return partition_lib.Partition(
    train, tuple(everything[indices] for indices in drawn.test)
  )


def _stratified_subset(
  pool: np.ndarray, labels: np.ndarray, size: int, seed: int
) -> np.ndarray:
  """Returns `size` of the indices `pool`, class proportions kept, in order."""
  from sklearn import model_selection  # Slow to import.

  num_classes = len(np.unique(labels[pool]))
  if size < num_classes:
    raise ValueError(
      f'Expected max_examples >= {num_classes}, one per class, found {size}.'
    )
  chosen, _ = model_selection.train_test_split(
    pool, train_size=size, stratify=labels[pool], random_state=seed
  )
  return np.sort(chosen)


def _check_known(name: str, value: str, known: Sequence[str]) -> None:
  if value not in known:
    raise ValueError(f'Unknown {name} {value!r}; known: {", ".join(known)}.')
