"""Federated tasks: a source, a partition, and the clients' arrays."""

import collections
from collections.abc import Callable, Iterator, Mapping, Sequence
import dataclasses
import functools
from typing import Any, NamedTuple, Optional

import numpy as np

from tff_fedsa.data import dealing
from tff_fedsa.data import embeddings
from tff_fedsa.data import input_spec as input_spec_lib
from tff_fedsa.data import inputs as inputs_lib
from tff_fedsa.data import labels as labels_lib
from tff_fedsa.data import mapped_clients
from tff_fedsa.data import normalization as normalization_lib
from tff_fedsa.data import notices
from tff_fedsa.data import packing
from tff_fedsa.data import partition as partition_lib
from tff_fedsa.data import sources
from tff_fedsa.data import task_spec
from tff_fedsa.data import testing
from tff_fedsa.data import texts
from tff_fedsa.runs import errors

# Named where it is used: `tasks.load_task(tasks.TaskSpec(…))`.
TaskSpec = task_spec.TaskSpec


class ClientExamples(NamedTuple):
  """One client's data.

  Attributes:
    train: Dict of `x`, inputs as stored `[n, …]`, and `y`, int32 labels `[n]`.
    test: The same of the held-out examples.
  """

  train: Any
  test: Any

  def with_test(self, test: Any) -> 'ClientExamples':
    """Returns the client with other test examples."""
    return self._replace(test=test)


@dataclasses.dataclass(frozen=True)
class FederatedTask:
  """Data of all clients, ready for a process.

  Attributes:
    name: Name of the data set.
    input_spec: How models see the inputs: an `InputSpec`, or a `PackedSpec` of
      inputs of several parts.
    class_names: One per class.
    clients: One `ClientExamples` per client.
    partition: The indices behind it; None for natural client data.
    global_test_sets: See `global_test`; empty where clients hold out their own.
    validation_fns: For each client, a function that returns its validation
      examples, a dict as in `ClientExamples`; empty where there are none.
    notices: Notices for the user about the data; `report` tells them.
    client_names: One per client, where they have names.
    words: Words behind tokens, token i being words[i]; empty where the inputs
      were no texts.
    embeddings: float32[len(words), width], pretrained vectors of words, NaN of
      those without one (`embeddings.read`); None where there are none.
  """

  name: str
  input_spec: Any
  class_names: tuple[str, ...]
  clients: tuple[ClientExamples | mapped_clients.MappedClient, ...]
  partition: Optional[partition_lib.Partition] = None
  global_test_sets: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  notices: tuple[str, ...] = ()
  validation_fns: tuple[Callable[[], Any], ...] = ()
  client_names: tuple[str, ...] = ()
  words: tuple[str, ...] = ()
  embeddings: Optional[np.ndarray] = None

  @property
  def num_clients(self) -> int:
    return len(self.clients)

  @property
  def num_classes(self) -> int:
    return len(self.class_names)

  @property
  def max_train_examples(self) -> int:
    """Train examples of the largest client."""
    if self.partition is not None:
      return max(len(indices) for indices in self.partition.train)
    return max(len(client.train['y']) for client in self.clients)

  def class_counts(self) -> np.ndarray:
    """Returns train examples per client and class, int64[clients, classes]."""
    return np.stack(
      [
        np.bincount(client.train['y'], minlength=self.num_classes)
        for client in self.clients
      ]
    )

  def global_test(self) -> Mapping[str, Any]:
    """Returns the test sets of a global model; no client trains on them.

    Returns:
      By name, dicts `x`, `y` of arrays as in `ClientExamples`: `test`, or one
      for each domain.

    Raises:
      ValueError: If there is no such test set.
    """
    if not self.global_test_sets:
      raise errors.UserError(
        f'{self.name}: each client holds out examples of its own, so there is '
        "no test set of a global model. Use test_set='original' or "
        "'per_domain'."
      )
    return self.global_test_sets


def load_task(spec: TaskSpec) -> FederatedTask:
  """Loads the source and partitions it.

  Raises:
    FileNotFoundError: If data or partition file are not there.
    ValueError: If the data are unsuitable or the partition impossible; the
      message says what to change.
  """
  source, partition = dealing.load(spec)
  return task_of(source, partition, spec)


def task_of(
  source: sources.Source, partition: partition_lib.Partition, spec: TaskSpec
) -> FederatedTask:
  """Deals the examples of a source out to clients, as a specification says.

  Raises:
    ValueError: See `task_from_source`.
  """
  task = task_from_source(
    source,
    partition,
    image_size=spec.image_size,
    channels=spec.channels,
    normalization=spec.normalization,
    vocabulary_size=spec.vocabulary_size,
    vocabulary=()
    if spec.vocabulary_file is None
    else texts.read_words(spec.vocabulary_file),
  )
  if spec.embeddings_file is not None:
    num_texts = max(len(source.text_parts), 1)
    task = _with_embeddings(task, spec.embeddings_file, num_texts)
  return testing.prepared(task, spec)


def _with_embeddings(
  task: FederatedTask, path: str, num_texts: int
) -> FederatedTask:
  """Returns the task with the vectors of a file for its words.

  Args:
    task: The task.
    path: Path of the file.
    num_texts: How many of its inputs are texts.

  Raises:
    ValueError: If no input is text, or an input of other tokens looks like one.
  """
  if not task.words:
    raise errors.UserError(
      f'{task.name}: embeddings_file needs texts, whose words it has vectors '
      f'of; found {task.input_spec.describe()}.'
    )
  sizes = task.input_spec.vocabulary_size
  alike = isinstance(sizes, dict) and [*sizes.values()].count(len(task.words))
  if alike > num_texts:
    raise errors.UserError(
      f'{task.name}: tokens that are no words have a vocabulary of '
      f'{len(task.words)}, too, so embeddings_file could be of either. '
      'Take another vocabulary_size.'
    )
  table = embeddings.read(path, task.words)
  notice = f'{task.name}: {embeddings.describe(table, path)}'
  return dataclasses.replace(
    task, embeddings=table, notices=(*task.notices, *notices.logged((notice,)))
  )


def task_from_source(
  source: sources.Source,
  partition: partition_lib.Partition,
  *,
  image_size: Optional[int] = None,
  channels: Optional[int] = None,
  normalization: str = 'half',
  vocabulary_size: int = texts.VOCABULARY_SIZE,
  vocabulary: Sequence[str] = (),
) -> FederatedTask:
  """Deals the examples of a source out to clients.

  Args:
    source: E.g. `sources.from_arrays(images, labels)` for own arrays.
    partition: Indices into it.
    image_size: See `TaskSpec`.
    channels: See `TaskSpec`.
    normalization: See `TaskSpec`.
    vocabulary_size: See `texts.trained_words`; of texts only.
    vocabulary: Words of a vocabulary that is given, see `texts.given_words`.
      Default: the words of the train examples.

  Raises:
    ValueError: If the partition has indices that the source does not, or the
      normalization does not fit the inputs.
  """
  largest = max(
    int(indices.max())
    for indices in (
      *partition.train,
      *partition.test,
      *partition.global_test.values(),
    )
  )
  if largest >= len(source.labels):
    raise errors.UserError(
      f'The partition has the index {largest}, but {source.name!r} has '
      f'{len(source.labels)} examples: it was made for other data.'
    )
  if source.words:
    source = _with_vocabulary(
      source,
      functools.partial(texts.given_words, given=vocabulary)
      if vocabulary
      else functools.partial(
        texts.trained_words,
        train=partition.train,
        vocabulary_size=vocabulary_size,
      ),
    )
  gathered: dict[int, Any] = {}

  def read(indices: np.ndarray) -> Any:
    return _examples(source.images[indices], source.labels[indices])

  def gather(indices: np.ndarray) -> Any:
    # A test set that clients share is gathered once.
    if id(indices) not in gathered:
      gathered[id(indices)] = read(indices)
    return gathered[id(indices)]

  clients: tuple[ClientExamples | mapped_clients.MappedClient, ...]
  if isinstance(source.images, np.memmap):
    clients = mapped_clients.mapped_clients(read, partition)
  else:
    clients = tuple(
      ClientExamples(gather(train), gather(test))
      for train, test in zip(partition.train, partition.test)
    )
  input_spec, found = _model_spec(
    source,
    partition,
    normalization=normalization,
    size=None if image_size is None else (image_size, image_size),
    channels=channels,
  )
  return FederatedTask(
    name=source.name,
    input_spec=input_spec,
    class_names=source.class_names,
    clients=clients,
    partition=partition,
    client_names=partition.client_names,
    words=source.words,
    global_test_sets=collections.OrderedDict(
      (name, gather(indices)) for name, indices in partition.global_test.items()
    ),
    notices=notices.logged(
      (
        *source.notices,
        *partition.notices,
        *found,
      )
    ),
  )


def _with_vocabulary(
  source: sources.Source,
  reduce_fn: Callable[..., tuple[np.ndarray, tuple[str, ...]]],
) -> sources.Source:
  """Returns a source of texts with another vocabulary.

  Args:
    source: A source of texts, perhaps as one of several inputs.
    reduce_fn: `fn(tokens, words) -> (tokens, words)`.
  """
  packed = source.packed
  if packed is None:
    tokens, words = reduce_fn(source.images, source.words)
    return dataclasses.replace(
      source, images=tokens, words=words, vocabulary_size=len(words)
    )
  parts = packed.unpack(source.images)
  of_texts = source.text_parts
  # Beside each other, so that the rows are those of the examples.
  tokens, words = reduce_fn(
    np.concatenate([parts[part] for part in of_texts], axis=1), source.words
  )
  cuts = np.cumsum([parts[part].shape[1] for part in of_texts])[:-1]
  for part, own in zip(of_texts, np.split(tokens, cuts, axis=1)):
    parts[part] = own
    packed = packed.with_part(part, vocabulary_size=len(words))
  return dataclasses.replace(
    source, images=packed.pack(parts), packed=packed, words=words
  )


def _model_spec(
  source: sources.Source,
  partition: partition_lib.Partition,
  *,
  normalization: str,
  **options: Any,
) -> tuple[Any, tuple[str, ...]]:
  """Returns how models see the inputs of a source, and notices about it.

  Args:
    source: The examples.
    partition: Indices into it.
    normalization: See `TaskSpec`.
    **options: See `InputSpec.having`.
  """
  train = [source.images[: source.num_train]]

  def of_clients() -> Iterator[np.ndarray]:
    return (source.images[np.sort(own)] for own in partition.train)

  def normalized(spec, examined, part_of, name):
    resolved = normalization_lib.resolved(spec, normalization)
    # Images keep the statistics of all of a data set's train images.
    inputs = train if spec.kind == 'image' else of_clients()
    spec = normalization_lib.normalized(spec, resolved, map(part_of, inputs))
    return spec, inputs_lib.range_notices(examined, spec, resolved, name)

  stored = source.input_spec
  if not isinstance(stored, packing.PackedSpec):
    spec, found = normalized(
      stored, source.examined, lambda inputs: inputs, source.name
    )
    return spec.having(**options), found
  notices_of_parts: list[str] = []
  parts = []
  for name, part in stored.parts:

    def part_of(rows, name=name):
      return stored.unpack(rows)[name]

    what = f'{source.name}, {name}'
    examined = inputs_lib.examine(
      part_of(source.images), what, masked=part.masked
    )
    spec, found = normalized(part, examined, part_of, what)
    parts.append((name, spec))
    notices_of_parts += found
  used = {name: value for name, value in options.items() if value is not None}
  return packing.PackedSpec(tuple(parts)).having(**used), (*notices_of_parts,)


def task_from_clients(
  clients: Sequence[ClientExamples],
  input_spec: input_spec_lib.InputSpec,
  class_names: Sequence[str],
  *,
  name: str = 'clients',
  client_names: Optional[Sequence[str]] = None,
  normalization: Optional[str] = None,
  found: Sequence[str] = (),
) -> FederatedTask:
  """Makes a task of arrays that are per client already.

  Args:
    clients: Dicts `x`, `y` of arrays, train and test; labels are numbers or
      class names.
    input_spec: How models see the inputs.
    class_names: One per class.
    name: For messages.
    client_names: For messages; by default their positions.
    normalization: Changes the scale and the offset of the input spec by the
      clients' train inputs, see `normalization.normalized`; None keeps them.
    found: Notices of these data, which the task is to have, too.

  Raises:
    ValueError: If a client is empty or its arrays do not fit the input spec,
      labels are out of range, or inputs hold NaN; the client is named.
    TypeError: For arrays of the wrong dtype.
  """
  if not clients:
    raise errors.UserError(f'{name}: expected at least one client, found none.')
  class_names = tuple(class_names)
  checked, examined = [], []
  for client_id, client in enumerate(clients):
    whose = client_id if client_names is None else client_names[client_id]
    parts = []
    for part, examples in zip(ClientExamples._fields, client):
      what = f'{name}, client {whose}, {part}'
      inputs = np.asarray(examples['x'])
      labels = labels_lib.named(examples['y'], class_names, what)
      if not labels.size:
        raise errors.UserError(
          f'{what}: expected at least one example, found none.'
        )
      examined.append(
        inputs_lib.examine(inputs, what, masked=input_spec.masked)
      )
      expected = (input_spec.shape, input_spec.dtype)
      given = (inputs.shape[1:], inputs.dtype.name)
      if given != expected:
        raise errors.UserError(
          f'{what}: expected inputs of shape and dtype {expected}, found '
          f'{given}.'
        )
      if len(inputs) != len(labels):
        raise errors.UserError(
          f'{what}: expected one label for each of {len(inputs)} inputs, found '
          f'{len(labels)} labels.'
        )
      parts.append(_examples(inputs, labels))
    checked.append(ClientExamples(*parts))
  whole = inputs_lib.joined(examined)
  vocabulary_size = inputs_lib.vocabulary_size(
    input_spec.dtype, whole, input_spec.vocabulary_size, name
  )
  if normalization is not None:
    normalization = normalization_lib.resolved(input_spec, normalization)
    trained_on = (client.train['x'] for client in checked)
    input_spec = normalization_lib.normalized(
      input_spec, normalization, trained_on
    )
  input_spec = dataclasses.replace(input_spec, vocabulary_size=vocabulary_size)
  return FederatedTask(
    name,
    input_spec,
    class_names,
    tuple(checked),
    client_names=tuple(client_names or ()),
    notices=notices.logged(
      (
        *found,
        *inputs_lib.notices(
          whole, input_spec.shape, name, masked=input_spec.masked
        ),
        *inputs_lib.range_notices(
          whole, input_spec, normalization or 'half', name
        ),
      )
    ),
  )


def task_from_pairs(
  clients: Sequence[Sequence[tuple[np.ndarray, np.ndarray]]],
  input_spec_fn: Callable[[tuple[int, ...], str], input_spec_lib.InputSpec],
  *,
  num_classes: Optional[int] = None,
  name: str,
  client_names: Sequence[str],
  normalization: Optional[str] = None,
) -> FederatedTask:
  """Makes a task of inputs and labels of any kind, per client.

  Args:
    clients: For each, (inputs, labels) of train and test, see `inputs.stored`.
    input_spec_fn: `fn(shape, dtype)` returns how models see inputs
      `[*shape]`, of the first client.
    num_classes: C; by default as many as all clients have distinct labels.
    name: For messages.
    client_names: For messages.
    normalization: See `task_from_clients`.

  Raises:
    ValueError, TypeError: If arrays do not fit, or labels or inputs are not
      legal; the client is named.
  """
  if not clients:
    raise errors.UserError(f'{name}: expected at least one client, found none.')
  inputs, labels = [], []
  for client, whose in zip(clients, client_names):
    for part, (own, numbers) in zip(ClientExamples._fields, client):
      what = f'{name}, client {whose}, {part}'
      inputs.append(inputs_lib.stored(own, what))
      labels.append(labels_lib.checked(numbers, what, num_classes))
  classes = labels_lib.classes(
    np.concatenate(labels), name, num_classes=num_classes
  )
  cuts = np.cumsum([len(own) for own in labels])[:-1]
  examples = [
    _examples(x, y) for x, y in zip(inputs, np.split(classes.labels, cuts))
  ]
  return task_from_clients(
    [ClientExamples(*pair) for pair in zip(examples[::2], examples[1::2])],
    input_spec_fn(inputs[0].shape[1:], inputs[0].dtype.name),
    classes.names,
    name=name,
    client_names=client_names,
    normalization=normalization,
    found=classes.notices,
  )


def task_of_parts(
  clients: Sequence[Sequence[tuple[Mapping[str, Any], Any]]],
  spec: TaskSpec,
  *,
  num_classes: Optional[int] = None,
  name: str,
  client_names: Sequence[str],
) -> FederatedTask:
  """Makes a task of several inputs by name, per client.

  Args:
    clients: For each, (inputs by name, labels) of train and test.
    spec: See `task_from_source` for what it uses.
    num_classes: See `task_from_pairs`.
    name: For messages.
    client_names: For messages.

  Raises:
    ValueError: If clients differ in the names of inputs, or arrays do not fit.
  """
  pairs = [pair for client in clients for pair in client]
  names = [*pairs[0][0]]
  for index, (inputs, labels) in enumerate(pairs):
    whose = f'{name}, client {client_names[index // 2]}'
    sizes = {part: len(values) for part, values in inputs.items()}
    if {*sizes} != {*names}:
      raise errors.UserError(
        f'{whose}: expected inputs named {", ".join(names)}, found '
        f'{", ".join(sizes)}.'
      )
    if {*sizes.values()} != {len(labels)} or not len(labels):
      raise errors.UserError(
        f'{whose}: expected as many inputs as labels, one or more, found '
        f'{len(labels)} labels and inputs {sizes}.'
      )
  try:
    joined = {
      part: np.concatenate([np.asarray(inputs[part]) for inputs, _ in pairs])
      for part in names
    }
  except ValueError as error:
    raise errors.UserError(
      f'{name}: the inputs of clients differ in shape: {error}.'
    ) from error
  source = sources.from_arrays(
    joined,
    np.concatenate([np.asarray(labels) for _, labels in pairs]),
    num_classes=num_classes,
    sequence_length=spec.sequence_length,
    name=name,
  )
  cuts = np.cumsum([len(labels) for _, labels in pairs])
  indices = np.split(np.arange(cuts[-1]), cuts[:-1])
  partition = partition_lib.Partition(
    tuple(indices[::2]),
    tuple(indices[1::2]),
    client_names=tuple(client_names),
  )
  task = task_from_source(
    source,
    partition,
    image_size=spec.image_size,
    channels=spec.channels,
    normalization=spec.normalization,
    vocabulary_size=spec.vocabulary_size,
  )
  # Indices into arrays that the user does not know say nothing.
  return dataclasses.replace(task, partition=None)


def joined_validation(task: FederatedTask) -> Any:
  """Returns the validation examples of all clients, a dict `x`, `y`.

  Args:
    task: A task with validation examples.
  """
  parts = [validation_fn() for validation_fn in task.validation_fns]
  return _examples(
    np.concatenate([part['x'] for part in parts]),
    np.concatenate([part['y'] for part in parts]),
  )


def report(task: FederatedTask, *, batch_size: int = 1) -> str:
  """Describes the partition in a few lines, with notices.

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
  if task.validation_fns:
    num_examples = sum(len(fn()['y']) for fn in task.validation_fns)
    lines.append(
      f'{num_examples} examples that no client trains on choose the best round '
      '(validation)'
    )
  if task.input_spec.kind != 'image':
    lines.append(f'inputs: {task.input_spec.describe()}')
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
  return '\n'.join((*lines, *task.notices))


def _few(numbers: np.ndarray) -> str:
  shown = ', '.join(map(str, numbers[:10]))
  return shown + (', …' if len(numbers) > 10 else '')


def _examples(inputs: np.ndarray, labels: np.ndarray) -> Any:
  return collections.OrderedDict(x=inputs, y=labels)
