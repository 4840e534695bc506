"""CSV files about clients, read with every cell checked."""

from collections.abc import Callable, Sequence
import csv
from typing import Any

from tff_fedsa.runs import errors


class FieldFileError(errors.UserError):
  """A file about clients is missing or wrong. The message names the place."""


def read(
  path: str, columns: Sequence[str], num_clients: int, purpose: str
) -> list[tuple[int, int, dict[str, str]]]:
  """Reads a CSV file that has a column `client`.

  Args:
    path: The file. Its first line names the columns. Further columns are
      allowed.
    columns: Required columns besides `client`.
    num_clients: Clients are numbered `0 .. num_clients - 1`.
    purpose: End of the message if the file does not exist: the legal values of
      the setting.

  Returns:
    For each row its line number, its client and its cells by column.

  Raises:
    FieldFileError: If the file cannot be read, lacks a column or a row, or has
      an unknown client.
  """
  needed = ['client', *columns]
  rows = []
  try:
    with open(path, newline='', encoding='utf-8-sig') as file:
      reader = csv.DictReader(file)
      missing = [n for n in needed if n not in (reader.fieldnames or ())]
      if missing:
        raise FieldFileError(
          f'{path!r}: expected a first line with the columns '
          f'{",".join(needed)}, found {",".join(reader.fieldnames or ())!r}.'
        )
      for cells in reader:
        where = f'{path!r}, line {reader.line_num}'
        if None in cells or None in cells.values():
          raise FieldFileError(
            f'{where}: expected as many cells as columns, '
            f'{len(reader.fieldnames or ())}.'
          )
        cells = {name: text.strip() for name, text in cells.items()}
        client = number(cells['client'], int, 0, f'{where}, client')
        if client >= num_clients:
          raise FieldFileError(
            f'{where}: there is no client {client}; {num_clients} clients are '
            f'numbered 0 to {num_clients - 1}.'
          )
        rows.append((reader.line_num, client, cells))
  except FileNotFoundError:
    raise FieldFileError(f'There is no file {path!r}; {purpose}.') from None
  except (OSError, UnicodeDecodeError, csv.Error) as error:
    raise FieldFileError(f'{path!r} is no CSV file: {error}.') from error
  if not rows:
    raise FieldFileError(f'{path!r}: expected at least one row, found none.')
  return rows


def number(
  text: str, kind: Callable[[str], Any], least: float, where: str
) -> Any:
  """Returns the number in a cell.

  Args:
    text: The cell.
    kind: int or float.
    least: Smallest legal number.
    where: Place of the cell, the beginning of the message.

  Raises:
    FieldFileError: If the text is not a finite number, or too small.
  """
  try:
    value = kind(text)
    if not least <= value < float('inf'):
      raise ValueError
  except ValueError:
    what = 'an integer' if kind is int else 'a number'
    raise FieldFileError(
      f'{where}: expected {what} >= {least:g}, found {text!r}.'
    ) from None
  return value
