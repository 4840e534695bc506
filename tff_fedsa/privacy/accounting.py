"""The account of a run: the epsilon that its rounds spend.

The arithmetic is that of the library `dp_accounting`: Renyi differential
privacy, converted to (epsilon, delta). The unit is a client: two populations
are neighbours if one client has other data (all of them, or none at all). The
number of clients is public. So replacing a client moves the sum of a round by
up to twice the norm to which records are clipped. The library's Gaussian event
counts the noise in multiples of the sensitivity. So the event has half the
noise multiplier, which is in multiples of the clipping norm.

Source of the bound for draws without replacement: Wang, Balle,
Kasiviswanathan, "Subsampled Renyi Differential Privacy and Analytical Moments
Accountant", AISTATS 2019, theorem 27, as `dp_accounting` computes it.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

from etils import epy
import numpy as np

from tff_fedsa.runs import errors

with epy.lazy_imports():
  import dp_accounting
  from dp_accounting import rdp

# Every set of orders gives a bound. The library's own set is finer and goes up
# to 1024. It takes several times as long, and moves an epsilon of 0.2 or more
# by less than a tenth.
ORDERS = (1.25, 1.5, 1.75, *range(2, 21), *range(24, 65, 4), 80, 96, 128)


@dataclasses.dataclass(frozen=True)
class Sampling:
  """How clients are drawn.

  Attributes:
    population: Clients there are.
    cohort: Clients drawn for a round, uniformly and without replacement. Equal
      to `population` if all take part, or if the draws are not uniform: then
      the chance not to be drawn protects nobody.
  """

  population: int
  cohort: int


@dataclasses.dataclass(frozen=True)
class Account:
  """The account of a run.

  Attributes:
    noise_multiplier: Standard deviation of the noise of a round, as a multiple
      of the norm to which a client's record is clipped.
    delta: The delta of (epsilon, delta).
    sampling: How clients are drawn.
  """

  noise_multiplier: float
  delta: float
  sampling: Sampling

  def epsilon(self, num_rounds: int) -> float:
    """Returns what rounds spend: 0 for none, infinity without noise."""
    if num_rounds == 0:
      return 0.0
    if self.noise_multiplier == 0:
      return math.inf
    spent = num_rounds * _divergences(self.noise_multiplier, self.sampling)
    return float(rdp.compute_epsilon(ORDERS, spent, self.delta)[0])

  def describe(self, num_rounds: int) -> str:
    """Returns one line about a run of so many rounds."""
    sampling = self.sampling
    return (
      f'privacy: epsilon {self.epsilon(num_rounds):.4g} after {num_rounds} '
      f'rounds, delta {self.delta:g}; noise multiplier '
      f'{self.noise_multiplier:.4g}, {sampling.cohort} of '
      f'{sampling.population} clients per round'
    )

  def rounds_within(self, epsilon: float, most: int) -> int:
    """Returns how many rounds an epsilon pays for, at most `most`."""
    low, high = 0, most
    while low < high:
      middle = (low + high + 1) // 2
      if self.epsilon(middle) <= epsilon:
        low = middle
      else:
        high = middle - 1
    return low


def event_of(noise_multiplier: float, sampling: Sampling) -> Any:
  """Returns the `dp_accounting.DpEvent` of one round.

  Args:
    noise_multiplier: See `Account`.
    sampling: How clients are drawn.
  """
  return dp_accounting.SampledWithoutReplacementDpEvent(
    sampling.population,
    sampling.cohort,
    dp_accounting.GaussianDpEvent(noise_multiplier / 2),
  )


def make_accountant() -> Any:
  """Returns an empty accountant of `dp_accounting`."""
  return rdp.RdpAccountant(
    ORDERS, dp_accounting.NeighboringRelation.REPLACE_ONE
  )


@functools.lru_cache(maxsize=64)
def _divergences(noise_multiplier: float, sampling: Sampling) -> np.ndarray:
  """Returns the Renyi divergences of one round, one for each order."""
  return make_accountant().compose(event_of(noise_multiplier, sampling)).rdp


@functools.lru_cache(maxsize=64)
def calibrate(
  epsilon: float, delta: float, num_rounds: int, sampling: Sampling
) -> float:
  """Returns the noise multiplier with which rounds spend an epsilon.

  Args:
    epsilon: What all rounds may spend together, > 0.
    delta: The delta of (epsilon, delta).
    num_rounds: Planned rounds, >= 1.
    sampling: How clients are drawn.

  Raises:
    UserError: If no noise multiplier is found.
  """
  try:
    return float(
      dp_accounting.calibrate_dp_mechanism(
        make_accountant,
        lambda noise_multiplier: dp_accounting.SelfComposedDpEvent(
          event_of(noise_multiplier, sampling), num_rounds
        ),
        epsilon,
        delta,
        dp_accounting.LowerEndpointAndGuess(0.05, 1.0),
        tol=1e-3,
      )
    )
  except (
    dp_accounting.mechanism_calibration.NoBracketIntervalFoundError,
    dp_accounting.mechanism_calibration.NoOptimumFoundError,
  ) as error:
    raise errors.UserError(
      f'Found no noise with which {num_rounds} rounds spend dp_epsilon='
      f'{epsilon:g}: it is too large to protect anything. Give a smaller one, '
      'or dp_noise_multiplier.'
    ) from error
