"""Availability of clients by round."""

from collections.abc import Callable

import numpy as np

from tff_fedsa.field import client_table
from tff_fedsa.field import field_config
from tff_fedsa.field import streams

AvailabilityFn = Callable[[int], np.ndarray]


def build_availability_fn(
  config: field_config.FieldConfig, num_clients: int
) -> AvailabilityFn:
  """Returns `fn(round_num) -> bool[num_clients]`: the available clients.

  Args:
    config: Has `availability` and its settings.
    num_clients: Size of the population.

  Raises:
    FieldFileError: If the file of the availability is missing or wrong.
  """
  if config.availability is None:
    return lambda round_num: np.ones(num_clients, bool)
  if config.availability not in field_config.AVAILABILITIES:
    return _from_file(config.availability, num_clients)
  phases = np.zeros(num_clients)
  amplitude = 0.0
  if config.availability == 'diurnal':
    phases = config.time_zones * streams.generator(
      config.field_seed, streams.Purpose.TIME_ZONE
    ).random(num_clients)
    # The largest amplitude that keeps probabilities in [0, 1].
    amplitude = min(config.availability_mean, 1 - config.availability_mean)

  def availability_fn(round_num: int) -> np.ndarray:
    days = round_num / config.rounds_per_day + phases
    probabilities = config.availability_mean + amplitude * np.sin(
      2 * np.pi * days
    )
    drawn = streams.generator(
      config.field_seed, streams.Purpose.AVAILABILITY, round_num
    ).random(num_clients)
    return drawn < probabilities

  return availability_fn


def _from_file(path: str, num_clients: int) -> AvailabilityFn:
  rows = client_table.read(
    path,
    ('from', 'to'),
    num_clients,
    'an availability is random, diurnal or a CSV file with the columns '
    'client,from,to',
  )
  clients, first, last = [], [], []
  for line, client, cells in rows:
    where = f'{path!r}, line {line}'
    begin = client_table.number(cells['from'], int, 1, f'{where}, from')
    end = np.iinfo(np.int64).max
    if cells['to']:
      end = client_table.number(cells['to'], int, begin, f'{where}, to')
    clients.append(client)
    first.append(begin)
    last.append(end)
  indices = np.array(clients)
  starts, ends = np.array(first, np.int64), np.array(last, np.int64)

  def availability_fn(round_num: int) -> np.ndarray:
    there = np.zeros(num_clients, bool)
    there[indices[(starts <= round_num) & (round_num <= ends)]] = True
    return there

  return availability_fn
