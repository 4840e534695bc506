"""A table with a column of labels, perhaps of clients or texts, as a source."""

from __future__ import annotations

from collections.abc import Collection, Sequence
import dataclasses
import difflib
import typing
from typing import Any, Optional

import numpy as np

from tff_fedsa.data import image_column
from tff_fedsa.data import labels as labels_lib
from tff_fedsa.data import ragged
from tff_fedsa.data import sources
from tff_fedsa.data import texts
from tff_fedsa.runs import errors

if typing.TYPE_CHECKING:
  import pandas as pd

# Columns of text with more different values are names, not categories.
_MOST_CATEGORIES = 50

# Name of the input of numbers and categories beside others.
_COLUMNS = 'columns'


def source_of(
  frame: pd.DataFrame,
  *,
  label: str,
  client: Optional[str] = None,
  text: Optional[str | Sequence[str]] = None,
  images: Optional[image_column.ImageColumn] = None,
  with_columns: bool = False,
  drop: Sequence[str] = (),
  sequence_length: int = texts.SEQUENCE_LENGTH,
  series_length: Optional[int] = None,
  num_train: Optional[int] = None,
  name: str = 'table',
) -> sources.Source:
  """Makes a source of the rows of a table.

  Columns of numbers and booleans become float32, columns of text one column
  for each of their values (0 or 1). A column of lists or arrays, as files of
  Parquet have them, is an input of its own, with the column's name; the other
  columns together are the input `columns` then. Lists of unequal length are
  padded, see `ragged.padded`.

  Args:
    frame: The table.
    label: Column of labels, see `labels.classes`.
    client: Column that says whose row it is; None where rows are dealt out.
    text: Column of texts, which are the inputs instead of all other columns;
      or several of such columns, each an input with the same vocabulary.
    images: Column of names of image files, which are the inputs instead of all
      other columns. Beside `text`, both are inputs.
    with_columns: Whether the other columns are inputs beside the texts or
      images.
    drop: Columns to leave out.
    sequence_length: See `texts.encoded`.
    series_length: See `ragged.padded`.
    num_train: How many of the first rows are for training; see `Source`.
    name: For messages.

  Raises:
    ValueError: If a column is missing, misses values, or is unsuitable; it is
      named.
  """
  frame = frame.reset_index(drop=True)
  frame.columns = [str(column) for column in frame.columns]
  image = None if images is None else images.column
  of_texts = [text] if isinstance(text, str) else [*(text or ())]
  main = [c for c in (*of_texts, image) if c is not None]
  special = [label, *([] if client is None else [client]), *main]
  for column in (*special, *drop):
    _check_known(column, frame.columns, name)
  if len(set(special)) < len(special) or set(special) & set(drop):
    raise errors.UserError(
      f'{name}: expected different columns of labels, clients, texts and '
      f'images, none of them left out, found {special}, left out: {list(drop)}.'
    )
  others = [c for c in frame.columns if c not in (*special, *drop)]
  if with_columns and not main:
    raise errors.UserError(
      f'{name}: with_columns needs a column of texts or of image files.'
    )
  is_alone = bool(main) and not with_columns
  used = special if is_alone else [*special, *others]
  for column in used:
    _check_present(frame[column], name)
  found = labels_lib.classes(frame[label].to_numpy(), name)
  notices = list(found.notices)
  inputs: dict[str, Any] = {}
  for column in of_texts:
    inputs[column] = [str(value) for value in frame[column]]
  if images is not None:
    decoded = images.read(frame[images.column], name)
    inputs[images.column] = decoded.images
    notices += decoded.notices
  if is_alone:
    if others:
      beside = ' and '.join(map(repr, main))
      notices.append(f'{name}: left out the columns beside {beside}: {others}.')
  else:
    lists = [column for column in others if _holds_lists(frame[column])]
    inputs |= {column: _stacked(frame[column], name) for column in lists}
    scalars = [column for column in others if column not in lists]
    if scalars or not inputs:
      inputs[_COLUMNS] = _numbers(frame[scalars], name, notices)
  source = sources.from_arrays(
    inputs if len(inputs) > 1 else next(iter(inputs.values())),
    found.labels,
    num_classes=len(found.names),
    num_train=num_train,
    client_ids=None if client is None else frame[client].astype(str).to_numpy(),
    sequence_length=sequence_length,
    series_length=series_length,
    name=name,
    sorted_as='as the rows of the table',
  )
  return dataclasses.replace(
    source,
    class_names=found.names,
    notices=(*notices, *source.notices),
  )


def texts_among(frame: pd.DataFrame, columns: Sequence[str]) -> list[str]:
  """Returns the columns of texts that are no categories.

  Categories repeat: at most 50 different ones, fewer than half of the rows.
  """
  most = min(_MOST_CATEGORIES, (len(frame) - 1) // 2)
  return [
    column
    for column in columns
    if texts.are_texts(frame[column].to_numpy())
    and frame[column].nunique() > most
  ]


def _holds_lists(values: pd.Series) -> bool:
  return isinstance(values.iloc[0], list | tuple | np.ndarray)


def _stacked(values: pd.Series, name: str) -> Any:
  """Returns a column of lists as one array, or as it is if they are ragged."""
  lists = [*values]
  if ragged.is_ragged(lists):
    return lists
  try:
    return np.array([ragged.as_array(value) for value in lists])
  except ValueError as error:
    raise errors.UserError(
      f'{name}: the lists in the lists of the column {values.name!r} differ in '
      'length.'
    ) from error


def _numbers(frame: pd.DataFrame, name: str, notices: list[str]) -> np.ndarray:
  """Returns columns as float32[rows, columns]; adds to the notices."""
  import pandas as pd  # Slow to import.

  if not len(frame.columns):
    raise errors.UserError(
      f'{name}: expected columns beside those of labels and clients, found '
      'none.'
    )
  columns, one_hot = [], []
  for column in frame.columns:
    values = frame[column]
    if pd.api.types.is_numeric_dtype(values):
      columns.append(values.to_numpy(np.float32)[:, None])
      continue
    if pd.api.types.is_datetime64_any_dtype(values):
      raise errors.UserError(
        f'{name}: the column {column!r} holds dates. Make numbers of it, or '
        'leave it out (drop, --drop_columns).'
      )
    categories = values.nunique()
    if categories > _MOST_CATEGORIES:
      raise errors.UserError(
        f'{name}: the column {column!r} holds {categories} different texts, '
        f'expected {_MOST_CATEGORIES} or fewer. Leave it out (drop, '
        '--drop_columns), or if it is the input, name it as the column of '
        'texts (text, --text_column) or of image files (image, '
        '--image_column).'
      )
    one_hot.append(column)
    columns.append(pd.get_dummies(values).to_numpy(np.float32))
  if one_hot:
    notices.append(
      f'{name}: each value of the text columns {one_hot} became a column of 0 '
      'and 1.'
    )
  return np.concatenate(columns, axis=1)


def _check_known(column: str, known: Collection[str], name: str) -> None:
  if column not in known:
    close = difflib.get_close_matches(column, known, 1)
    hint = f' (did you mean {close[0]!r}?)' if close else ''
    raise errors.UserError(
      f'{name}: there is no column {column!r}{hint}; found {list(known)}.'
    )


def _check_present(values: pd.Series, name: str) -> None:
  missing = values.isna()
  if missing.any():
    raise errors.UserError(
      f'{name}: the column {values.name!r} misses {missing.sum()} values; the '
      f'first is in row {int(missing.to_numpy().argmax())}. Fill them, e.g. '
      'frame.fillna(frame.mean(numeric_only=True)), or leave out these rows or '
      'the column.'
    )
