"""Random numbers as functions of a seed, a purpose, a round and a client."""

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

  Numbers are drawn for all clients, and client c uses the number at index c. So
  it depends only on (seed, purpose, round, c), not on the participants.

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
