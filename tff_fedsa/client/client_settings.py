"""Settings of single clients, from a CSV file or from JSON text.

  client,client_learning_rate,client_epochs_per_round,lambda_reg
  0,0.05,2,
  7,,1,20

  {"0": {"client_learning_rate": 0.05, "client_epochs_per_round": 2}, …}

Columns have the names of flags. An empty cell and a client without a row have
the value of the flag. One computation serves all clients: their values are
looked up by the client's number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import functools
import json
import math
import os
import types
from typing import Any, NamedTuple, Optional, TYPE_CHECKING

from etils import epy
import numpy as np

from tff_fedsa.field import client_table
from tff_fedsa.runs import errors

with epy.lazy_imports():
  import tensorflow as tf

if TYPE_CHECKING:
  from tff_fedsa.client import objective as objective_lib

OPTIMIZER = 'client_optimizer'
LEARNING_RATE = 'client_learning_rate'
EPOCHS = 'client_epochs_per_round'
BATCH_SIZE = 'client_batch_size'

# Column of numbers -> kind and smallest value. Others are weights of losses.
_COLUMNS: dict[str, tuple[Any, float]] = {
  LEARNING_RATE: (float, 0.0),
  EPOCHS: (int, 1),
  BATCH_SIZE: (int, 1),
}
_WEIGHT = (float, 0.0)
_MOST_CLIENTS = 10_000_000
# Counts by class are means over epochs. The server checks that they are whole
# numbers of a common fraction.
_LARGEST_MULTIPLE = 1000


class ClientSettings(NamedTuple):
  """Values by client, each with the value of all others at the end.

  Attributes:
    learning_rate: float32[?], NaN for the optimizer's own; None if there is no
      such column. So are the others.
    num_epochs: int32[?].
    batch_size: int32[?].
    optimizer: int32[?], index into `optimizers`; 0 is the flag's.
    optimizers: Names of optimizers.
    weights: Weights of the method's loss by flag: float32[?], NaN for the
      flag's.
    source: Where the values come from, for messages.
  """

  learning_rate: Optional[np.ndarray] = None
  num_epochs: Optional[np.ndarray] = None
  batch_size: Optional[np.ndarray] = None
  optimizer: Optional[np.ndarray] = None
  optimizers: tuple[str, ...] = ()
  weights: Mapping[str, np.ndarray] = types.MappingProxyType({})
  source: str = ''

  @property
  def epochs_multiple(self) -> Optional[int]:
    """The least common multiple of all numbers of epochs."""
    if self.num_epochs is None:
      return None
    return math.lcm(*map(int, self.num_epochs))

  def epochs_of(self, num_clients: int) -> Optional[np.ndarray]:
    """Returns the epochs of each client, int64[num_clients]."""
    if self.num_epochs is None:
      return None
    found = np.full(num_clients, self.num_epochs[-1], np.int64)
    known = min(num_clients, len(self.num_epochs) - 1)
    found[:known] = self.num_epochs[:known]
    return found

  def weights_of(
    self, known: Sequence[objective_lib.LossWeight]
  ) -> dict[str, np.ndarray]:
    """Returns the weights of a loss by flag, float32[?] each.

    Args:
      known: The weights that the loss has.

    Raises:
      UserError: If the loss has no weight of a given name.
    """
    values = {weight.flag: weight.value for weight in known}
    unknown = [name for name in self.weights if name not in values]
    if unknown:
      raise errors.UserError(
        f'{self.source}: the method has no {", ".join(unknown)} of single '
        f'clients; its columns: {", ".join((OPTIMIZER, *_COLUMNS, *values))}.'
      )
    return {
      name: np.where(np.isnan(found), values[name], found).astype(np.float32)
      for name, found in self.weights.items()
    }


def is_text(given: str) -> bool:
  """Returns whether settings are given as JSON text, not by a file's path."""
  return given.lstrip().startswith('{')


def as_text(given: Any) -> str:
  """Returns settings of clients as JSON text, which flags can hold.

  Args:
    given: A mapping from a client's number to a mapping from names of flags to
      values.

  Raises:
    TypeError: If it is anything else.
  """
  wanted = (
    'Expected `client_settings` as the path of a CSV file, or as a dict of '
    'dicts, e.g. {3: {"client_learning_rate": 0.1}}'
  )
  if callable(given):
    raise TypeError(
      f'{wanted}, found a function: call it for each client, {{i: fn(i) for i '
      'in range(num_clients)}.'
    )
  if not isinstance(given, Mapping) or not all(
    isinstance(own, Mapping) for own in given.values()
  ):
    raise TypeError(f'{wanted}, found {given!r}.')
  return json.dumps(
    {
      str(client): {
        str(name): value.item() if isinstance(value, np.generic) else value
        for name, value in own.items()
      }
      for client, own in given.items()
    }
  )


def read(
  given: str,
  *,
  optimizer: str = 'sgd',
  num_epochs: int,
  batch_size: int,
  num_clients: Optional[int] = None,
) -> ClientSettings:
  """Reads settings of clients.

  Args:
    given: Path of a file, or JSON text.
    optimizer: Optimizer of clients without one of their own.
    num_epochs: Epochs of clients without a number of their own.
    batch_size: Batch size of clients without one of their own.
    num_clients: Clients are numbered `0 .. num_clients - 1`. Default: unknown.

  Raises:
    UserError: If the file is missing, or the settings are malformed, name a
      client twice or one that does not exist, or have no column.
  """
  source = 'client_settings' if is_text(given) else repr(given)
  rows = _rows(given, None if is_text(given) else _stamp(given))
  last = max(rows, key=lambda row: row[1])
  if num_clients is not None and last[1] >= num_clients:
    raise errors.UserError(
      f'{last[0]}: there is no client {last[1]}; {num_clients} clients are '
      f'numbered 0 to {num_clients - 1}.'
    )
  defaults = {
    LEARNING_RATE: math.nan,
    EPOCHS: num_epochs,
    BATCH_SIZE: batch_size,
  }
  size = last[1] + 2
  tables: dict[str, np.ndarray] = {}
  optimizers = [optimizer]
  for place, client, cells in rows:
    for name, text in cells.items():
      if name == OPTIMIZER:
        table = tables.setdefault(name, np.zeros(size, np.int32))
        if text:
          if text not in optimizers:
            optimizers.append(text)
          table[client] = optimizers.index(text)
        continue
      kind, least = _COLUMNS.get(name, _WEIGHT)
      table = tables.setdefault(
        name,
        np.full(
          size,
          defaults.get(name, math.nan),
          np.int32 if kind is int else np.float32,
        ),
      )
      if text:
        table[client] = client_table.number(
          text, kind, least, f'{place}, {name}'
        )
  found = ClientSettings(
    learning_rate=tables.pop(LEARNING_RATE, None),
    num_epochs=tables.pop(EPOCHS, None),
    batch_size=tables.pop(BATCH_SIZE, None),
    optimizer=tables.pop(OPTIMIZER, None),
    optimizers=tuple(optimizers),
    weights=tables,
    source=source,
  )
  multiple = found.epochs_multiple
  if multiple is not None and multiple > _LARGEST_MULTIPLE:
    raise errors.UserError(
      f'{source}: the numbers of epochs have the least common multiple '
      f'{multiple}, expected at most {_LARGEST_MULTIPLE}. Take fewer different '
      'numbers.'
    )
  return found


def of_client(values: np.ndarray, client_id: tf.Tensor) -> tf.Tensor:
  """Returns a client's value, in TensorFlow.

  Args:
    values: A field of `ClientSettings`.
    client_id: int32 scalar.
  """
  return tf.gather(values, tf.minimum(client_id, len(values) - 1))


def _stamp(path: str) -> Optional[tuple[int, int]]:
  """Returns what changes with a file, or None if there is no file."""
  try:
    status = os.stat(path)
  except OSError:
    return None
  return status.st_mtime_ns, status.st_size


@functools.lru_cache(maxsize=4)
def _rows(
  given: str, stamp: Any
) -> tuple[tuple[str, int, dict[str, str]], ...]:
  """Returns place, client and cells of each row.

  A file is read once, although several parts of a run need it.

  Args:
    given: See `read`.
    stamp: See `_stamp`.
  """
  del stamp  # Only for the cache.
  if is_text(given):
    rows = _rows_of_text(given)
  else:
    rows = [
      (
        f'{given!r}, line {line}',
        client,
        {name: text for name, text in cells.items() if name != 'client'},
      )
      for line, client, cells in client_table.read(
        given,
        (),
        _MOST_CLIENTS,
        'expected a CSV file with a column client, or JSON text',
      )
    ]
  if not any(cells for _, _, cells in rows):
    raise errors.UserError(
      f'{given!r}: expected columns of {", ".join((OPTIMIZER, *_COLUMNS))} or '
      'weights of the loss, found none.'
    )
  seen: dict[int, str] = {}
  for place, client, _ in rows:
    if client in seen:
      raise errors.UserError(
        f'{place}: client {client} has a row already, {seen[client]}.'
      )
    seen[client] = place
  return tuple(rows)


def _rows_of_text(text: str) -> list[tuple[str, int, dict[str, str]]]:
  wanted = (
    'client_settings: expected JSON text such as {"3": {"client_batch_size": '
    '5}}'
  )
  try:
    by_client = json.loads(text)
  except ValueError as error:
    raise errors.UserError(f'{wanted}, found {text!r}: {error}.') from error
  if not all(isinstance(own, dict) for own in by_client.values()):
    raise errors.UserError(f'{wanted}, found {text!r}.')
  return [
    (
      f'client_settings, client {client}',
      client_table.number(client, int, 0, f'client_settings, {client!r}'),
      {
        name: '' if value is None else str(value) for name, value in own.items()
      },
    )
    for client, own in by_client.items()
  ]
