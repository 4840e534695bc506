"""Any TensorFlow data set of labelled examples: which features are the input.

A feature within another one has the key `outer/inner`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any, Optional

import numpy as np

from tff_fedsa.data import ragged
from tff_fedsa.data import sources
from tff_fedsa.data import tables
from tff_fedsa.data import texts
from tff_fedsa.data.readers import tfds
from tff_fedsa.runs import errors

# The last one is the original test set. Other splits are left out.
_SPLITS = ('train', 'validation', 'test')


def read(
  name: str,
  *,
  input_keys: Sequence[str] = (),
  label_key: Optional[str] = None,
  data_dir: Optional[str] = None,
  download: bool = False,
  image_size: Optional[int] = None,
  sequence_length: int = texts.SEQUENCE_LENGTH,
  series_length: Optional[int] = None,
) -> sources.Source:
  """Reads a TensorFlow data set.

  The original test set is the split `test`, or `validation` where there is no
  `test` with labels. The others of train and validation are for training.

  One input is a text, an image, or numbers of any fixed shape. Sequences of
  tokens or of steps, `[None]` or `[None, channels]`, are padded, see
  `ragged.padded`. Several keys are the columns of a table, see
  `tables.source_of`: arrays, and one text that is no category, are inputs of
  their own.

  Args:
    name: Name of the data set, perhaps with a config: `name/config`.
    input_keys: Keys of the inputs; by default the data set's supervised ones.
    label_key: Key of the label; by default the supervised one.
    data_dir: See `tfds.read`.
    download: See `tfds.read`.
    image_size: Pixels square of images that differ in size.
    sequence_length: Words of a text, or tokens of a sequence, at most.
    series_length: See `ragged.padded`.

  Raises:
    FileNotFoundError: If the data are missing and `download` is False.
    ValueError: If keys are unknown or features unsuitable; those that the data
      set has are named.
  """
  builder = tfds.prepared(name, data_dir=data_dir, download=download)
  features = _leaves(builder.info.features)
  input_keys, label_key = _keys(name, builder, input_keys, label_key, features)
  class_names = getattr(features[label_key], 'names', None)
  parts = {}
  for split in _SPLITS:
    if split in builder.info.splits:
      keys = (*input_keys, label_key)
      part = _columns(builder, split, keys, image_size)
      # Hidden labels, e.g. of the tests of GLUE, are -1.
      hidden = class_names and {*map(int, part[label_key])} == {-1}
      if part[label_key] and not hidden:
        parts[split] = part
  if not parts:
    raise errors.UserError(
      f'{name}: expected a split {" or ".join(_SPLITS)} with labels, found '
      f'{", ".join(builder.info.splits)}.'
    )
  columns = {
    key: [value for part in parts.values() for value in part[key]]
    for key in (*input_keys, label_key)
  }
  sizes = [len(part[label_key]) for part in parts.values()]
  num_train = sum(sizes[:-1]) or None
  labels = np.asarray(columns.pop(label_key))
  if labels.dtype.kind in 'OS':
    labels = np.array([_text(value) for value in labels])
  left_out = sorted({*builder.info.splits} - {*parts})
  notices = [f'{name}: left out the splits {left_out}.'] if left_out else []
  if len(input_keys) > 1:
    source = _table(
      columns,
      labels,
      sequence_length=sequence_length,
      series_length=series_length,
      num_train=num_train,
      name=name,
    )
  else:
    (values,) = columns.values()
    source = sources.from_arrays(
      _stacked(values, f'{name}, {input_keys[0]}'),
      labels,
      num_train=num_train,
      sequence_length=sequence_length,
      series_length=series_length,
      name=name,
    )
  named = source.class_names
  if class_names:
    named = tuple(str(class_names[int(number)]) for number in named)
  return dataclasses.replace(
    source,
    class_names=named,
    sorted_as='as TFDS has them, train before test',
    notices=(*source.notices, *notices),
  )


def _leaves(features: Any, prefix: str = '') -> dict[str, Any]:
  """Returns features by key, those within others too."""
  import tensorflow_datasets  # Slow to import, and only needed here.

  found: dict[str, Any] = {}
  for key, feature in features.items():
    if isinstance(feature, tensorflow_datasets.features.FeaturesDict):
      found |= _leaves(feature, f'{prefix}{key}/')
    else:
      found[f'{prefix}{key}'] = feature
  return found


def _keys(
  name: str,
  builder: Any,
  input_keys: Sequence[str],
  label_key: Optional[str],
  features: Mapping[str, Any],
) -> tuple[tuple[str, ...], str]:
  """Returns the keys of inputs and label, the supervised ones by default."""
  supervised = builder.info.supervised_keys or (None, None)
  if label_key is None and isinstance(supervised[1], str):
    label_key = supervised[1]
  if not input_keys:
    input_keys = _flat(supervised[0])
  known = f'keys: {", ".join(features)}'
  if not input_keys or label_key is None:
    missing = 'label_key' if label_key is None else 'input_key'
    raise errors.UserError(
      f'The data set {name!r} does not say what its input and its label are '
      f'(--input_key, --label_key): expected {missing}; {known}.'
    )
  flags = (*(['input_key'] * len(input_keys)), 'label_key')
  for flag, key in zip(flags, (*input_keys, label_key)):
    if key not in features:
      raise errors.UserError(
        f'The data set {name!r} has no feature {key!r} (--{flag}); {known}.'
      )
  if label_key in input_keys:
    raise errors.UserError(
      f'Expected an input other than the label {label_key!r}; {known}.'
    )
  return tuple(input_keys), label_key


def _flat(structure: Any) -> tuple[str, ...]:
  """Returns the keys in a structure of supervised keys."""
  if isinstance(structure, str):
    return (structure,)
  if isinstance(structure, Mapping):
    structure = list(structure.values())
  return tuple(key for inner in structure or () for key in _flat(inner))


def _columns(
  builder: Any, split: str, keys: Sequence[str], image_size: Optional[int]
) -> dict[str, list[Any]]:
  """Returns the values of features in a split, by key."""
  import tensorflow as tf  # Slow to import, and only needed here.
  import tensorflow_datasets

  features = _leaves(builder.info.features)
  sizes = {}
  for key in keys:
    is_image = isinstance(features[key], tensorflow_datasets.features.Image)
    if is_image and None in features[key].shape:
      sizes[key] = [image_size or tfds.DEFAULT_IMAGE_SIZE] * 2

  def chosen(example):
    found = {}
    for key in keys:
      value = example
      for part in key.split('/'):
        value = value[part]
      if key in sizes:
        value = tf.image.resize(value, sizes[key], antialias=True)
        value = tf.cast(tf.clip_by_value(tf.round(value), 0, 255), tf.uint8)
      found[key] = value
    return found

  dataset = builder.as_dataset(split=split, shuffle_files=False).map(
    chosen, num_parallel_calls=tf.data.AUTOTUNE
  )
  columns: dict[str, list[Any]] = {key: [] for key in keys}
  try:
    for example in dataset.as_numpy_iterator():
      for key, value in example.items():
        columns[key].append(value)
  except tf.errors.OpError as error:
    raise errors.UserError(
      f'The data set {builder.name!r} at {str(builder.data_path)!r} is damaged '
      f'in {split}: {error.message}. Delete it and prepare it again.'
    ) from error
  return columns


def _text(value: Any) -> str:
  return value.decode('utf-8', 'replace') if isinstance(value, bytes) else value


def _table(
  columns: Mapping[str, list[Any]],
  labels: np.ndarray,
  *,
  sequence_length: int,
  series_length: Optional[int],
  num_train: Optional[int],
  name: str,
) -> sources.Source:
  import pandas as pd  # Slow to import.

  frame = pd.DataFrame(
    {
      key: [*_stacked(values, f'{name}, {key}')]
      if np.ndim(values[0])
      else [_text(value) for value in values]
      for key, values in columns.items()
    }
  )
  text = tables.texts_among(frame, [*columns])
  # A name that no feature has.
  label = 'label of ' + '/'.join(columns)
  return tables.source_of(
    frame.assign(**{label: labels}),
    label=label,
    text=text,
    with_columns=bool(text),
    sequence_length=sequence_length,
    series_length=series_length,
    num_train=num_train,
    name=name,
  )


def _stacked(values: list[Any], what: str) -> Any:
  """Returns texts, numbers as one array, or series of unequal length."""
  if isinstance(values[0], bytes):
    return [_text(value) for value in values]
  shapes = {value.shape for value in values}
  if shapes == {()}:
    return np.array(values)[:, None]  # A table of one column.
  if len(shapes) == 1:
    return np.stack(values)
  if not ragged.is_ragged(values):
    raise errors.UserError(
      f'{what}: expected inputs of one shape, found {min(shapes)} and '
      f'{max(shapes)}.'
    )
  return values
