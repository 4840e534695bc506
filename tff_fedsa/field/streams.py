"""Random numbers that follow from a seed, a purpose, a round and a client."""

import enum

import numpy as np


class Purpose(enum.IntEnum):
  """Purposes of random numbers; each purpose has its own stream."""

  AVAILABILITY = 1
  TIME_ZONE = 2
  DROPOUT = 3
  SPEED = 4
  JITTER = 5
  PARTIAL_WORK = 6


def generator(
  seed: int, purpose: Purpose, *numbers: int
) -> np.random.Generator:
  """Returns the generator of a purpose.

  Client c is given the number at index c of what is drawn for all clients. So
  it follows from (seed, purpose, round, c) alone, whoever takes part.

  >>> generator(3, Purpose.DROPOUT, 7).random(2).tolist() == (
  ...   generator(3, Purpose.DROPOUT, 7).random(5)[:2].tolist()
  ... )
  True

  Args:
    seed: `FieldConfig.field_seed`.
    purpose: Purpose of the numbers.
    *numbers: Round, client.
  """
  return np.random.default_rng([seed, int(purpose), *numbers])
