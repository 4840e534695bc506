"""Recorders of a run's rows: metrics.csv and TensorBoard."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
import contextlib
import csv
import errno
import io
import math
import os
from typing import Any, Protocol

from etils import epy

from tff_fedsa import files
from tff_fedsa.evaluation import client_evaluation

with epy.lazy_imports():
  import tensorflow as tf

Row = Mapping[str, Any]

# Codes of TensorFlow's errors, and the system's errors for them.
_ERRNO = {
  5: errno.ENOENT,  # NOT_FOUND
  7: errno.EACCES,  # PERMISSION_DENIED
  8: errno.ENOSPC,  # RESOURCE_EXHAUSTED
}


class Recorder(Protocol):
  """Receives the rows of a run one by one."""

  def record(self, row: Row) -> None:
    """Takes the next row."""

  def rewind(self, history: Sequence[Row]) -> None:
    """Resets the record to exactly these rows."""

  def close(self) -> None:
    """Ends recording."""


class CsvRecorder:
  """Writes all rows to a CSV file, e.g. `metrics.csv`.

  Rows are appended. A row with a new column, and `rewind`, rewrite the whole
  file atomically. So a crash can damage only the last line. `read_csv` ignores
  a damaged line, and the `rewind` of a resumed run removes it.
  """

  def __init__(self, path: str, columns: Iterable[str]):
    """Initializes `CsvRecorder`.

    Args:
      path: The file. Nothing is written before the first row.
      columns: The first columns. Columns of the method follow in the order of
        the rows.
    """
    self._path = path
    self._columns = list(dict.fromkeys(columns))
    self._rows: list[Row] = []

  def record(self, row: Row) -> None:
    self._rows.append(row)
    new = self._add_columns([row])
    # If the file was removed, appending would create a file without a header.
    if new or len(self._rows) == 1 or not os.path.exists(self._path):
      self._rewrite()
    else:
      self._append(row)

  def rewind(self, history: Sequence[Row]) -> None:
    self._rows = list(history)
    self._add_columns(self._rows)
    self._rewrite()

  def close(self) -> None:
    pass

  def _add_columns(self, rows: Iterable[Row]) -> bool:
    """Returns whether the row has new columns."""
    before = len(self._columns)
    names = [name for row in rows for name in row]
    self._columns = list(dict.fromkeys([*self._columns, *names]))
    return len(self._columns) > before

  def _append(self, row: Row) -> None:
    with files.naming(self._path), open(self._path, 'ab') as file:
      size = file.tell()
      try:
        file.write(self._text([row]))
        file.flush()
      except OSError:
        # Remove half a line.
        os.truncate(self._path, size)
        raise

  def _rewrite(self) -> None:
    files.write_bytes(self._path, self._text(self._rows, header=True))

  def _text(self, rows: Iterable[Row], *, header: bool = False) -> bytes:
    text = io.StringIO(newline='')
    writer = csv.DictWriter(
      text, self._columns, restval='', lineterminator='\n'
    )
    if header:
      writer.writeheader()
    # `repr` of a float is exact, so two equal runs give equal files.
    writer.writerows(rows)
    return text.getvalue().encode()


class TensorBoardRecorder:
  """Writes every number of a row as a scalar. The step is the round."""

  def __init__(self, directory: str):
    self._directory = directory
    with self._reported():
      self._writer = tf.summary.create_file_writer(directory)

  def record(self, row: Row) -> None:
    with self._reported():
      with self._writer.as_default(step=row['round']):
        for name, value in row.items():
          if name != 'round' and math.isfinite(value):
            tf.summary.scalar(_tensorboard_tag(name), value)
      self._writer.flush()

  def rewind(self, history: Sequence[Row]) -> None:
    # TensorBoard shows the later of two events with one step.
    pass

  def close(self) -> None:
    with self._reported():
      self._writer.close()

  @contextlib.contextmanager
  def _reported(self) -> Iterator[None]:
    """Turns TensorFlow's errors of the disk into `OSError`s."""
    try:
      yield
    except tf.errors.OpError as error:
      number = _ERRNO.get(error.error_code, errno.EIO)
      raise OSError(
        number, f'TensorBoard: {error.message}', self._directory
      ) from error


def _tensorboard_tag(column: str) -> str:
  """Groups columns as `accuracy/head`, `loss/contrastive`, ..."""
  for classifier in client_evaluation.ALL_CLASSIFIERS:
    if column.startswith(f'{classifier}_accuracy'):
      return f'{column[len(classifier) + 1:]}/{classifier}'
  group, _, rest = column.partition('_')
  return f'{group}/{rest}' if rest else f'{group}/total'


def read_csv(path: str) -> list[dict[str, Any]]:
  """Reads `metrics.csv`. Numbers are int or float. Empty cells are left out.

  A last line that a crash cut off is ignored.
  """
  with open(path, newline='', encoding='utf-8') as file:
    lines = [line for line in file if line.endswith('\n')]
  return [
    {name: number(text) for name, text in row.items() if text != ''}
    for row in csv.DictReader(lines)
  ]


def number(text: str) -> int | float:
  """Returns the number that a cell of a CSV file holds."""
  try:
    return int(text)
  except ValueError:
    return float(text)
