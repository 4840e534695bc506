"""Data sets of Hugging Face's `datasets`, which need not be installed here.

Only what their objects can do is used: `column_names`, `features` and
`dataset[column]`. So `datasets.load_from_disk(…)` in the user's program is
enough.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import typing
from typing import Any, Optional

import numpy as np

from tff_fedsa.data import dealing
from tff_fedsa.data import own_data
from tff_fedsa.data import ragged
from tff_fedsa.data import sources
from tff_fedsa.data import tables
from tff_fedsa.data import tasks
from tff_fedsa.data import texts
from tff_fedsa.runs import errors

if typing.TYPE_CHECKING:
  import pandas as pd

# The test set is the split `test`. The others are for training, in this order.
_SPLITS = ('train', 'validation', 'valid', 'val', 'test')


def from_hugging_face(
  dataset: Any,
  *,
  label: str = 'label',
  inputs: Optional[str | Sequence[str]] = None,
  client: Optional[str] = None,
  name: str = 'dataset',
  **settings: Any,
) -> tasks.FederatedTask:
  """Makes a task of a data set of Hugging Face, for `Experiment(task=…)`.

    found = datasets.load_from_disk('my_reviews')
    task = tff_fedsa.data.from_hugging_face(found, inputs='text', client='user')

  Args:
    dataset: A `datasets.Dataset`, or a `DatasetDict` of splits: `test` is the
      original test set, other splits are for training.
    label: Column of labels; names of a `ClassLabel` become class names.
    inputs: Column of texts, images, or arrays of one shape, or several columns;
      by default all beside those of labels and clients. Several columns are
      those of a table (`tables.source_of`): images, arrays, and columns of
      texts that are no categories, are inputs of their own.
    client: Column that says whose example it is; by default examples are dealt
      out as `partition` says.
    name: For messages and file names.
    **settings: See `own_data.from_arrays`.

  Raises:
    settings.SettingsError: If a setting is unknown or would be ignored.
    TypeError: If it is no such data set.
    ValueError: If a column is missing or unsuitable.
  """
  parts, num_train = _parts(dataset, name)
  columns = list(parts[0].column_names)
  if isinstance(inputs, str):
    inputs = [inputs]
  for column in (label, *(inputs or ()), client):
    if column is not None and column not in columns:
      raise errors.UserError(
        f'{name}: there is no column {column!r}; columns: {", ".join(columns)}.'
      )
  if inputs is None:
    inputs = [column for column in columns if column not in (label, client)]
  spec = own_data.spec_of(settings, has_clients=client is not None)
  if len(inputs) != 1:
    frame = _frame(parts, inputs, (label, client))
    text = tables.texts_among(frame, inputs)
    source = tables.source_of(
      frame,
      label=label,
      client=client,
      text=text,
      with_columns=bool(text),
      sequence_length=spec.sequence_length,
      series_length=spec.series_length,
      num_train=num_train,
      name=name,
    )
  else:
    source = sources.from_arrays(
      _stacked(_values(parts, inputs[0]), f'{name}, {inputs[0]}'),
      np.asarray(_values(parts, label)),
      client_ids=None if client is None else _values(parts, client),
      num_train=num_train,
      sequence_length=spec.sequence_length,
      series_length=spec.series_length,
      name=name,
    )
  task = tasks.task_of(source, dealing.deal(spec, source), spec)
  names = getattr(parts[0].features[label], 'names', None)
  if names:
    named = tuple(str(names[int(number)]) for number in task.class_names)
    task = dataclasses.replace(task, class_names=named)
  return task


def _parts(dataset: Any, name: str) -> tuple[list[Any], Optional[int]]:
  """Returns splits, train before test, and the number of train examples."""
  splits = dataset if isinstance(dataset, Mapping) else {'train': dataset}
  strange = sorted({*splits} - {*_SPLITS})
  if strange or not splits:
    raise errors.UserError(
      f'{name}: expected splits of the names {", ".join(_SPLITS)}, found '
      f'{", ".join(splits)}. Take one of them: dataset[{[*strange, ""][0]!r}].'
    )
  ordered = [split for split in _SPLITS if split in splits]
  parts = [splits[split] for split in ordered]
  for part in parts:
    if not (hasattr(part, 'column_names') and hasattr(part, 'features')):
      raise TypeError(
        f"{name}: expected a data set of Hugging Face's `datasets` (with "
        f'column_names and features), found {type(part).__name__}.'
      )
  has_test = len(parts) > 1 and ordered[-1] == 'test'
  return parts, sum(map(len, parts[:-1])) if has_test else None


def _values(parts: Sequence[Any], column: str) -> list[Any]:
  """Returns the values of a column, of all parts."""
  return [value for part in parts for value in part[column]]


def _frame(
  parts: Sequence[Any],
  inputs: Sequence[str],
  others: Sequence[Optional[str]],
) -> pd.DataFrame:
  """Returns columns as a table; images and lists are arrays in it."""
  import pandas as pd  # Slow to import.

  columns: dict[str, list[Any]] = {}
  for column in (*inputs, *others):
    if column is None:
      continue
    values = _values(parts, column)
    if values and np.ndim(values[0]):
      values = [np.asarray(value) for value in values]
    columns[column] = values
  return pd.DataFrame(columns)


def _stacked(values: list[Any], what: str) -> Any:
  """Returns images and arrays as one array; texts and series as they are."""
  if texts.are_texts(values) or ragged.is_ragged(values):
    return values
  arrays = [np.asarray(value) for value in values]
  shapes = sorted({array.shape for array in arrays})
  if len(shapes) > 1:
    raise errors.UserError(
      f'{what}: expected inputs of one shape, found {shapes[0]} and '
      f'{shapes[-1]}. Resize images, e.g. by dataset.map.'
    )
  return np.stack(arrays)
