"""Whole numbers for secure sums: rounding, and discrete Gaussian noise.

Data flow: private_process.py -> [this module] -> a modular sum.

Each of n clients adds discrete Gaussian noise of its own, and the server learns
the modular sum only. Source: Kairouz, Liu, Steinke, "The Distributed Discrete
Gaussian Mechanism for Federated Learning with Secure Aggregation", ICML 2021
(arXiv:2102.06387); its random rotation saves bits and is left out, as there are
enough. The noise is drawn as in Canonne, Kamath, Steinke, "The Discrete
Gaussian for Differential Privacy", NeurIPS 2020 (arXiv:2004.00010), but in
float64 and from TensorFlow's seeded generator.
"""

import math
from typing import Any, NamedTuple

import tensorflow as tf

from tff_fedsa.runs import errors

# Least noise of a client, in steps. The sum of n so wide discrete Gaussians is
# one, up to 10 n e^-157 (Kairouz et al. call it tau), which the account leaves
# out.
LEAST_STEPS = 4.0
# The sum wraps around where noise is so many standard deviations away from 0.
_RARELY = 8.0


class Grid(NamedTuple):
  """How values become whole numbers.

  Attributes:
    modulus: Modulus of the sum.
    steps: Steps per unit.
    norm: L2 norm to which a record is clipped before it is rounded.
    stddev: Standard deviation of a client's noise, in steps.
  """

  modulus: int
  steps: float
  norm: float
  stddev: float


def plan(
  clip_norm: float, stddev: float, size: int, participants: int, bits: int
) -> Grid:
  """Returns the grid on which a sum hardly ever wraps around.

  The rounded record has at most the norm `clip_norm`: rounding moves each
  coordinate by less than a step, so that the record is clipped to the norm
  minus sqrt(size) steps.

  Args:
    clip_norm: L2 norm that a client's rounded record has at most, > 0.
    stddev: Standard deviation of the noise on the sum, >= 0.
    size: Coordinates of a record.
    participants: Clients that add noise.
    bits: The modulus is 2^bits.

  Raises:
    UserError: If steps would be too wide for records or for the noise.
  """
  largest = participants * clip_norm + _RARELY * stddev
  steps = 2 ** (bits - 1) / largest
  norm = clip_norm - math.sqrt(size) / steps
  own = stddev * steps / math.sqrt(participants)
  if norm < 0.5 * clip_norm or 0.0 < own < LEAST_STEPS:
    raise errors.UserError(
      f'With dp_bits={bits} a step of the sum is too wide: a record has '
      f'{clip_norm * steps:.3g} steps, and a client adds {own:.3g} steps of '
      'noise. Give more dp_bits.'
    )
  return Grid(2**bits, steps, norm, own)


def to_steps(values: tf.Tensor, grid: Grid, seed: tf.Tensor) -> tf.Tensor:
  """Rounds at random to steps, and adds noise; int32 of the same shape.

  Args:
    values: float32, of a record that is clipped.
    grid: See `plan`.
    seed: int32[2].
  """
  fold = tf.random.experimental.stateless_fold_in
  drawn = tf.random.stateless_uniform(
    values.shape, fold(seed, 0), dtype=tf.float64
  )
  found = tf.floor(tf.cast(values, tf.float64) * grid.steps + drawn)
  found = tf.cast(found, tf.int64)
  if grid.stddev:
    found += sample(values.shape, grid.stddev, fold(seed, 1))
  return tf.cast(_centered(found, grid.modulus), tf.int32)


def from_steps(total: tf.Tensor, grid: Grid) -> tf.Tensor:
  """Returns the sum in units, float32, of a modular sum of steps."""
  centered = tf.cast(_centered(total, grid.modulus), tf.float64)
  return tf.cast(centered / grid.steps, tf.float32)


def sample(shape: Any, stddev: float, seed: tf.Tensor) -> tf.Tensor:
  """Draws from the discrete Gaussian, int64.

  Args:
    shape: Static shape of the result.
    stddev: Its parameter sigma, > 0. From 1 on, sigma is the standard deviation
      but for 10^-7.
    seed: int32[2]; the result is a function of it.
  """
  fold = tf.random.experimental.stateless_fold_in
  scale = math.floor(stddev) + 1.0

  def uniform(number, part):
    return tf.random.stateless_uniform(
      shape, fold(fold(seed, number), part), 2.0**-53, 1.0, tf.float64
    )

  def propose(number, found, is_done):
    # Geometric numbers; their difference is a discrete Laplace one.
    up, down = (
      tf.floor(-scale * tf.math.log(uniform(number, part))) for part in (0, 1)
    )
    proposal = up - down
    excess = tf.abs(proposal) - stddev**2 / scale
    chance = tf.exp(-0.5 * (excess / stddev) ** 2)
    is_taken = uniform(number, 2) < chance
    found = tf.where(is_done, found, tf.cast(proposal, tf.int64))
    return number + 1, found, is_done | is_taken

  _, found, _ = tf.while_loop(
    lambda unused_number, unused_found, is_done: ~tf.reduce_all(is_done),
    propose,
    (tf.constant(0), tf.zeros(shape, tf.int64), tf.zeros(shape, tf.bool)),
  )
  return found


def _centered(numbers: tf.Tensor, modulus: int) -> tf.Tensor:
  """Returns representatives in [-modulus / 2, modulus / 2)."""
  half = modulus // 2
  return tf.math.floormod(numbers + half, modulus) - half
