"""Speeds of clients' devices, in simulated time."""

from collections.abc import Callable

import numpy as np

from tff_fedsa.field import client_table
from tff_fedsa.field import field_config
from tff_fedsa.field import streams

_COLUMN = 'examples_per_second'


def build_speed_fn(
  config: field_config.FieldConfig, num_clients: int
) -> Callable[[int], np.ndarray]:
  """Returns `fn(round_num) -> float64[num_clients]`, examples per second.

  Args:
    config: Has `device_speed` and its settings.
    num_clients: Size of the population.

  Raises:
    FieldFileError: If the file of the speeds is missing or wrong.
  """
  source = config.device_speed
  if source is None or source == 'constant':
    speeds = np.full(num_clients, config.device_speed_median)
  elif source == 'lognormal':
    drawn = streams.generator(
      config.field_seed, streams.Purpose.SPEED
    ).standard_normal(num_clients)
    speeds = config.device_speed_median * np.exp(
      config.device_speed_spread * drawn
    )
  else:
    speeds = _from_file(source, num_clients)

  def speed_fn(round_num: int) -> np.ndarray:
    if not config.device_speed_jitter:
      return speeds
    drawn = streams.generator(
      config.field_seed, streams.Purpose.JITTER, round_num
    ).standard_normal(num_clients)
    return speeds * np.exp(config.device_speed_jitter * drawn)

  return speed_fn


def _from_file(path: str, num_clients: int) -> np.ndarray:
  rows = client_table.read(
    path,
    (_COLUMN,),
    num_clients,
    f'a device speed is constant, lognormal or a CSV file with the columns '
    f'client,{_COLUMN}',
  )
  speeds = np.zeros(num_clients)
  for line, client, cells in rows:
    where = f'{path!r}, line {line}'
    if speeds[client]:
      raise client_table.FieldFileError(
        f'{where}: client {client} has a speed already.'
      )
    speed = client_table.number(cells[_COLUMN], float, 0, f'{where}, {_COLUMN}')
    if not speed:
      raise client_table.FieldFileError(
        f'{where}, {_COLUMN}: expected a number > 0, found 0.'
      )
    speeds[client] = speed
  missing = np.flatnonzero(speeds == 0)
  if missing.size:
    raise client_table.FieldFileError(
      f'{path!r}: expected a row for each of {num_clients} clients, found none '
      f'for client {missing[0]}'
      + (f' and {missing.size - 1} more.' if missing.size > 1 else '.')
    )
  return speeds
