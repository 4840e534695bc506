"""Own data of any form as a task: arrays, tables, `ClientData`, or a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import functools
import hashlib
import os
import typing
from typing import Any, Optional

import numpy as np
import tensorflow_federated as tff

from tff_fedsa import settings as settings_lib
from tff_fedsa.data import client_data
from tff_fedsa.data import dealing
from tff_fedsa.data import elements
from tff_fedsa.data import image_column
from tff_fedsa.data import ragged
from tff_fedsa.data import sources
from tff_fedsa.data import tables
from tff_fedsa.data import task_spec
from tff_fedsa.data import tasks
from tff_fedsa.data import testing
from tff_fedsa.data import texts
from tff_fedsa.data.readers import table_file
from tff_fedsa.runs import errors

if typing.TYPE_CHECKING:
  import pandas as pd

_FORMS = (
  'Expected own data as a FederatedTask, a tff.simulation.datasets.ClientData, '
  'or a list with, for each client, a pair of arrays (inputs, labels), a pair '
  'of such pairs (train, test) or a ClientExamples'
)


def to_task(data: Any, spec: task_spec.TaskSpec) -> tasks.FederatedTask:
  """Returns own data as a task.

  Args:
    data: A `FederatedTask`; a `ClientData`; or for each client a pair (inputs,
      labels), a pair of such pairs (train, test), or a `ClientExamples`. Inputs
      are arrays `[num_examples, …]` of any kind (see `inputs.stored`), lists of
      series of unequal length (in pairs only), or dicts of arrays by name;
      labels are whole numbers or text[num_examples].
    spec: Its `train_fraction` and `seed` divide the examples of clients that
      have no test examples; its `validation_fraction`, `test_classes`,
      `normalization`, `image_size` and `channels` apply, too.

  Raises:
    TypeError: If data have another form.
    ValueError: If arrays do not fit; the client is named.
  """
  if isinstance(data, tasks.FederatedTask):
    return data
  if isinstance(data, tff.simulation.datasets.ClientData):
    task = client_data.task_from_client_data(
      data,
      train_fraction=spec.train_fraction,
      seed=spec.seed,
      image_size=spec.image_size,
      channels=spec.channels,
      normalization=spec.normalization,
    )
    return testing.prepared(task, spec)
  if isinstance(data, np.ndarray | str | bytes | Mapping) or not isinstance(
    data, Sequence
  ):
    raise TypeError(f'{_FORMS}; found {type(data).__name__}.')
  return testing.prepared(_task_of_arrays(data, spec), spec)


def from_arrays(
  x: Any,
  y: Any,
  *,
  client_ids: Any = None,
  num_train: Optional[int] = None,
  num_classes: Optional[int] = None,
  name: str = 'arrays',
  **settings: Any,
) -> tasks.FederatedTask:
  """Makes a task of own arrays, for `Experiment(task=…)`.

    task = tff_fedsa.data.from_arrays(x, y, client_ids=hospital)
    task = tff_fedsa.data.from_arrays(x, y, num_clients=10, alpha=0.5)

  Args:
    x: Inputs of any kind: images [num_examples, height, width, channels],
      series [num_examples, steps, channels], a table [num_examples, columns],
      tokens (integers) [num_examples, length], or texts; or a dict of such
      arrays by name, several inputs for each example. All texts have one
      vocabulary. Series and tokens may differ in length, as lists of arrays or
      arrays of objects, see `ragged.padded`.
    y: Labels: whole numbers or text, see `labels.classes`.
    client_ids: Whose example it is, numbers or text[num_examples]; by default
      examples are dealt out as `partition` says.
    num_train: How many of the first examples are for training; the rest is the
      test set of `test_set='original'`.
    num_classes: By default as many as there are distinct labels.
    name: For messages and file names.
    **settings: Values by the name of their flag, those of `TaskSpec` that are
      not about files: `num_clients`, `partition`, `alpha`, `partition_seed`,
      `test_set`, `train_fraction`, `normalization`, `vocabulary_size`, ….

  Raises:
    settings.SettingsError: If a setting is unknown or would be ignored.
    ValueError, TypeError: If arrays do not fit; what is wrong is named.
  """
  spec = spec_of(settings, has_clients=client_ids is not None)
  source = sources.from_arrays(
    x,
    y,
    client_ids=client_ids,
    num_train=num_train,
    num_classes=num_classes,
    sequence_length=spec.sequence_length,
    series_length=spec.series_length,
    name=name,
  )
  return tasks.task_of(source, dealing.deal(spec, source), spec)


def from_dataframe(
  frame: pd.DataFrame,
  *,
  label: str,
  client: Optional[str] = None,
  text: Optional[str | Sequence[str]] = None,
  image: Optional[str] = None,
  image_dir: str | os.PathLike[str] = '.',
  cache_dir: Optional[str | os.PathLike[str]] = None,
  alpha_background: str = 'white',
  with_columns: bool = False,
  drop: Sequence[str] = (),
  name: str = 'table',
  **settings: Any,
) -> tasks.FederatedTask:
  """Makes a task of a table, for `Experiment(task=…)`.

  Args:
    frame: The table; see `tables.source_of` for what becomes of its columns.
    label: Column of labels.
    client: Column that says whose row it is; by default rows are dealt out as
      `partition` says.
    text: Column of texts, which are the inputs instead of all other columns;
      or several of such columns, each an input with the same vocabulary.
    image: Column of names of image files, which are the inputs instead of all
      other columns; beside `text`, both are inputs. Images are decoded to
      `image_size` pixels square, 32 by default.
    image_dir: Folder that the file names are relative to.
    cache_dir: Directory of decoded images, see `TaskSpec`: 'none' decodes them
      each time, and the default is that of `--data_cache_dir`.
    alpha_background: Colour behind transparent images, see `TaskSpec`.
    with_columns: Whether the other columns are inputs beside the texts or
      images.
    drop: Columns to leave out.
    name: For messages and file names.
    **settings: See `from_arrays`.

  Raises:
    settings.SettingsError: If a setting is unknown or would be ignored.
    ValueError: If a column is missing, misses values, or is unsuitable.
  """
  spec = spec_of(settings, has_clients=client is not None)
  images = None
  if image is not None:
    decoded = task_spec.TaskSpec(
      dataset='csv',
      image_column=image,
      cache_dir=None if cache_dir is None else os.fspath(cache_dir),
      alpha_background=alpha_background,
    )
    images = image_column.ImageColumn(
      image,
      folder=os.fspath(image_dir),
      image_size=spec.image_size,
      cache_dir=decoded.cache_directory(),
      alpha_background=alpha_background,
    )
  elif cache_dir is not None or alpha_background != 'white':
    raise settings_lib.SettingsError(
      'cache_dir and alpha_background would be ignored: there is no column of '
      'image files (image).'
    )
  source = tables.source_of(
    frame,
    label=label,
    client=client,
    text=text,
    images=images,
    with_columns=with_columns,
    drop=drop,
    sequence_length=spec.sequence_length,
    series_length=spec.series_length,
    name=name,
  )
  return tasks.task_of(source, dealing.deal(spec, source), spec)


def from_csv(
  path: str | os.PathLike[str], **options: Any
) -> tasks.FederatedTask:
  """Makes a task of a file of CSV, see `table_file.read`.

  Args:
    path: Path of the file. Its folder is the default of `image_dir`.
    **options: See `from_dataframe`.

  Raises:
    FileNotFoundError: If there is no such file.
    ValueError: If it is no table; otherwise see `from_dataframe`.
  """
  return _from_file(path, 'csv', options)


def from_parquet(
  path: str | os.PathLike[str], **options: Any
) -> tasks.FederatedTask:
  """Makes a task of a file of Parquet.

  Args:
    path: Path of the file. Its folder is the default of `image_dir`.
    **options: See `from_dataframe`.

  Raises:
    FileNotFoundError: If there is no such file.
    ValueError: If it is no table; otherwise see `from_dataframe`.
  """
  return _from_file(path, 'parquet', options)


def _from_file(
  path: str | os.PathLike[str], form: str, options: Mapping[str, Any]
) -> tasks.FederatedTask:
  path = os.fspath(path)
  options = {
    'name': os.path.basename(path),
    'image_dir': os.path.dirname(path),
    **options,
  }
  return from_dataframe(table_file.read(path, form), **options)


def spec_of(
  values: Mapping[str, Any], *, has_clients: bool
) -> task_spec.TaskSpec:
  """Returns the settings of own data.

  Args:
    values: Values by the name of their flag.
    has_clients: Whether the data have clients of their own.

  Raises:
    settings.SettingsError: If a setting is unknown or would be ignored.
  """
  known = {
    setting.flag: setting.name
    for setting in settings_lib.fields_of(task_spec.TaskSpec)
    if setting.flag is not None and setting.name not in task_spec.OF_FILES
  }
  for name in values:
    if name not in known:
      raise settings_lib.SettingsError(
        f'There is no setting {name!r} of own data; known: {", ".join(known)}.'
      )
  given = {known[name] for name in values}
  if has_clients and given & {*task_spec.OF_CLIENTS}:
    ignored = sorted(given & {*task_spec.OF_CLIENTS})
    raise settings_lib.SettingsError(
      f'{", ".join(ignored)} would be ignored: the data have clients of their '
      'own.'
    )
  return settings_lib.with_flags(task_spec.TaskSpec(), values)


def digest(task: tasks.FederatedTask) -> str:
  """Returns a SHA-256 of all examples of all clients."""
  found = hashlib.sha256()
  for client in task.clients:
    for examples in (client.train, client.test):
      for name in ('x', 'y'):
        array = np.ascontiguousarray(examples[name])
        found.update(f'{array.shape}{array.dtype}'.encode())
        found.update(array.tobytes())
  return found.hexdigest()


def _task_of_arrays(
  data: Sequence[Any], spec: task_spec.TaskSpec
) -> tasks.FederatedTask:
  if not data:
    raise errors.UserError(
      'own data: expected at least one client, found none.'
    )
  if (joined := _task_of_lists(data, spec)) is not None:
    return joined
  clients = []
  for index, client in enumerate(data):
    try:
      parts = _parts(client)
    except TypeError as error:
      raise TypeError(f'{_FORMS}; client {index}: {error}.') from error
    if len(parts) == 1:
      parts = _divided(index, parts[0], spec)
    clients.append(parts)
  if any(isinstance(x, Mapping) for parts in clients for x, _ in parts):
    return _task_of_parts(clients, spec)
  return tasks.task_from_pairs(
    clients,
    functools.partial(
      elements.input_spec_for,
      image_size=spec.image_size,
      channels=spec.channels,
    ),
    name='own data',
    client_names=[str(index) for index in range(len(clients))],
    normalization=spec.normalization,
  )


def _task_of_parts(
  clients: Sequence[Sequence[tuple[Any, Any]]], spec: task_spec.TaskSpec
) -> tasks.FederatedTask:
  """Returns the task of clients whose examples have several inputs."""
  for index, parts in enumerate(clients):
    if not all(isinstance(inputs, Mapping) for inputs, _ in parts):
      raise errors.UserError(
        f'own data: client {index} has one input, others have several by name.'
      )
  return tasks.task_of_parts(
    clients,
    spec,
    name='own data',
    client_names=[str(index) for index in range(len(clients))],
  )


def _task_of_lists(
  data: Sequence[Any], spec: task_spec.TaskSpec
) -> Optional[tasks.FederatedTask]:
  """Returns the task of pairs (texts or ragged series, labels), or None."""
  pairs = [c for c in data if isinstance(c, Sequence) and len(c) == 2]
  if len(pairs) < len(data):
    return None
  settings: dict[str, Any] = {}
  if not all(texts.are_texts(x) for x, _ in pairs):
    if not any(ragged.is_ragged(x) for x, _ in pairs):
      return None
    # Pairs of train and test have no labels in this place.
    if not all(len(y) and np.isscalar(y[0]) for _, y in pairs):
      return None
    settings = {'normalization': spec.normalization}
    if spec.series_length is not None:
      settings['series_length'] = spec.series_length
  width = len(str(len(data)))
  return from_arrays(
    [one for x, _ in pairs for one in x],
    np.concatenate([np.asarray(y) for _, y in pairs]),
    client_ids=np.repeat(
      [f'{index:0{width}d}' for index in range(len(data))],
      [len(x) for x, _ in pairs],
    ),
    name='own data',
    train_fraction=spec.train_fraction,
    partition_seed=spec.seed,
    **settings,
  )


def _parts(client: Any) -> list[tuple[Any, np.ndarray]]:
  """Returns (inputs, labels) of all examples, or of train and test."""
  if isinstance(client, Mapping):
    return [_pair(client)]
  if not isinstance(client, Sequence) or len(client) != 2:
    raise TypeError(f'found {type(client).__name__}')
  first, second = client
  is_pair = hasattr(first, 'shape') and hasattr(second, 'shape')
  # A dict is several inputs, or with another one train and test examples.
  if is_pair or isinstance(first, Mapping) > isinstance(second, Mapping):
    return [_pair(client)]
  return [_pair(first), _pair(second)]


def _pair(examples: Any) -> tuple[Any, np.ndarray]:
  if isinstance(examples, Mapping):
    if not {'x', 'y'} <= set(examples):
      raise TypeError(f'found a dict with {list(examples)}, not x and y')
    return _inputs(examples['x']), np.asarray(examples['y'])
  if not isinstance(examples, Sequence) or len(examples) != 2:
    raise TypeError(f'found {type(examples).__name__} for (inputs, labels)')
  return _inputs(examples[0]), np.asarray(examples[1])


def _inputs(given: Any) -> Any:
  """Returns an array of inputs, or several arrays by name."""
  several = given if isinstance(given, Mapping) else {'inputs': given}
  for name, values in several.items():
    if ragged.is_ragged(values):
      raise errors.UserError(
        f'own data: the {name} differ in length. Give them as one pair '
        '(inputs, labels) for each client, or to tff_fedsa.data.from_arrays '
        'with client_ids.'
      )
  if isinstance(given, Mapping):
    return {str(name): np.asarray(values) for name, values in given.items()}
  return np.asarray(given)


def _divided(
  index: int,
  examples: tuple[Any, np.ndarray],
  spec: task_spec.TaskSpec,
) -> list[tuple[Any, np.ndarray]]:
  """Divides a client's examples into train and test."""
  inputs, labels = examples
  several = inputs if isinstance(inputs, Mapping) else {'inputs': inputs}
  for name, own in several.items():
    if len(own) != len(labels):
      raise errors.UserError(
        f'Client {index}: expected one label for each of {len(own)} {name}, '
        f'found {len(labels)}.'
      )
  if len(labels) < 2:
    raise errors.UserError(
      f'Client {index}: expected two examples or more, one of them to test '
      f'with, found {len(labels)}.'
    )
  divided = dealing.division(
    len(labels), spec.train_fraction, seed=spec.seed, client=index
  )
  if isinstance(inputs, Mapping):
    return [
      ({name: own[part] for name, own in inputs.items()}, labels[part])
      for part in divided
    ]
  return [(inputs[part], labels[part]) for part in divided]
