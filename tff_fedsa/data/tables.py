"""A table with a column of labels, perhaps of clients or texts, as a source."""

from __future__ import annotations

from collections.abc import Collection, Sequence
import difflib
import typing
from typing import Optional

import numpy as np

from tff_fedsa.data import labels as labels_lib
from tff_fedsa.data import sources
from tff_fedsa.data import texts
from tff_fedsa.runs import errors

if typing.TYPE_CHECKING:
  import pandas as pd

# Columns of text with more different values are names, not categories.
_MOST_CATEGORIES = 50


def source_of(
  frame: pd.DataFrame,
  *,
  label: str,
  client: Optional[str] = None,
  text: Optional[str] = None,
  drop: Sequence[str] = (),
  sequence_length: int = texts.SEQUENCE_LENGTH,
  name: str = 'table',
) -> sources.Source:
  """Makes a source of the rows of a table.

  Columns of numbers and booleans become float32, columns of text one column
  for each of their values (0 or 1).

  Args:
    frame: The table.
    label: Column of labels, see `labels.classes`.
    client: Column that says whose row it is; None where rows are dealt out.
    text: Column of texts, which are the inputs instead of all other columns.
    drop: Columns to leave out.
    sequence_length: See `texts.encoded`.
    name: For messages.

  Raises:
    ValueError: If a column is missing, misses values, or is unsuitable; it is
      named.
  """
  frame = frame.reset_index(drop=True)
  frame.columns = [str(column) for column in frame.columns]
  special = [c for c in (label, client, text) if c is not None]
  for column in (*special, *drop):
    _check_known(column, frame.columns, name)
  if len(set(special)) < len(special) or set(special) & set(drop):
    raise errors.UserError(
      f'{name}: expected different columns of labels, clients and texts, none '
      f'of them left out, found {special}, left out: {list(drop)}.'
    )
  others = [c for c in frame.columns if c not in (*special, *drop)]
  used = special if text is not None else [*special, *others]
  for column in used:
    _check_present(frame[column], name)
  found = labels_lib.classes(frame[label].to_numpy(), name)
  notices = list(found.notices)
  words: tuple[str, ...] = ()
  if text is not None:
    inputs, words = texts.encoded(
      frame[text], sequence_length=sequence_length, what=f'{name}, {text}'
    )
    if others:
      notices.append(f'{name}: left out the columns beside the text: {others}.')
  else:
    inputs = _numbers(frame[others], name, notices)
  return sources.Source(
    name=name,
    images=inputs,
    labels=found.labels,
    class_names=found.names,
    client_ids=None if client is None else frame[client].astype(str).to_numpy(),
    words=words,
    sorted_as='as the rows of the table',
    notices=tuple(notices),
  )


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
        'texts (text, --text_column).'
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
