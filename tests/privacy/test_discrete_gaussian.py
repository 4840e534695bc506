"""Discrete Gaussian noise, and whole numbers of a modular sum."""

import math

import numpy as np
import pytest
from scipy import stats
import tensorflow as tf

from tff_fedsa.privacy import discrete_gaussian


@pytest.mark.parametrize('stddev', [0.7, 3.3])
def test_draws_have_the_probabilities_of_the_discrete_gaussian(stddev):
  drawn = discrete_gaussian.sample([200, 200], stddev, tf.constant([3, 5]))
  numbers = np.arange(-40, 41)
  weights = np.exp(-(numbers**2) / (2 * stddev**2))
  expected = drawn.shape.num_elements() * weights / weights.sum()
  counts = np.array([np.sum(drawn == number) for number in numbers])
  assert counts.sum() == expected.sum().round()
  common = expected > 20
  chi_square = np.sum((counts - expected)[common] ** 2 / expected[common])
  assert stats.chi2.sf(chi_square, common.sum() - 1) > 1e-3


def test_wide_noise_is_gaussian_and_repeats():
  one, again, other = (
    discrete_gaussian.sample([4000], 1e4, tf.constant([seed, 0])).numpy()
    for seed in (1, 1, 2)
  )
  np.testing.assert_array_equal(one, again)
  assert stats.kstest(one / 1e4, 'norm').pvalue > 1e-3
  assert abs(np.corrcoef(one, other)[0, 1]) < 0.06


def test_a_rounded_record_is_never_longer_than_the_norm():
  size, participants = 400, 5
  grid = discrete_gaussian.plan(2.0, 0.0, size, participants, bits=16)
  rng = np.random.default_rng(0)
  for index in range(20):
    record = rng.standard_normal(size)
    record *= grid.norm / np.linalg.norm(record)
    steps = discrete_gaussian.to_steps(
      tf.constant(record, tf.float32), grid, tf.constant([index, 0])
    ).numpy()
    assert np.linalg.norm(steps) <= 2.0 * grid.steps
    np.testing.assert_allclose(steps / grid.steps, record, atol=1 / grid.steps)
  # Not by much: the bound is sqrt(size) steps longer than the record.
  assert grid.norm == pytest.approx(2.0 - math.sqrt(size) / grid.steps)


def test_rounding_has_no_bias():
  grid = discrete_gaussian.plan(2.0, 0.0, 10, 1, bits=10)
  value = tf.fill([50_000], 0.3 / grid.steps)
  steps = discrete_gaussian.to_steps(value, grid, tf.constant([0, 0]))
  assert set(np.unique(steps)) == {0, 1}
  assert np.mean(steps) == pytest.approx(0.3, abs=0.01)


def test_a_modular_sum_is_the_sum():
  grid = discrete_gaussian.plan(1.0, 0.0, 4, 3, bits=12)
  values = tf.constant([0.9, -0.9, 0.0, -0.25])
  steps = discrete_gaussian.to_steps(values, grid, tf.constant([0, 0]))
  total = tf.math.floormod(3 * tf.cast(steps, tf.int64), grid.modulus)
  np.testing.assert_allclose(
    discrete_gaussian.from_steps(total, grid), 3 * values, atol=3 / grid.steps
  )


@pytest.mark.parametrize(
  ('stddev', 'bits'),
  [
    # Records of a few steps.
    (0.0, 6),
    # 100 clients share the noise of 2 steps.
    (0.01, 16),
  ],
)
def test_too_few_bits_are_refused(stddev, bits):
  with pytest.raises(ValueError, match='more dp_bits'):
    discrete_gaussian.plan(1.0, stddev, 100, 100, bits)


def _probabilities(stddev, numbers):
  weights = np.exp(-(numbers**2) / (2 * stddev**2))
  return weights / weights.sum()


def test_the_account_of_a_gaussian_holds_for_the_sum_of_shares():
  # The least noise that is allowed, and few clients.
  stddev, count = discrete_gaussian.LEAST_STEPS, 3
  numbers = np.arange(-200, 201)
  one = _probabilities(stddev, numbers)
  total = one
  for _ in range(count - 1):
    total = np.convolve(total, one)[200:-200]
  whole = _probabilities(stddev * math.sqrt(count), numbers)
  near = np.abs(numbers) < 120
  np.testing.assert_allclose(total[near], whole[near], rtol=1e-12)
  # Renyi divergences of whole orders, between sums that are 5 steps apart, are
  # those of a Gaussian: order * 5^2 / (2 variance).
  for order in (2, 3, 8):
    moment = np.sum((np.roll(total, 5) / total) ** order * total, where=near)
    assert math.log(moment) / (order - 1) == pytest.approx(
      order * 25 / (2 * count * stddev**2), rel=1e-9
    )


@pytest.mark.parametrize('participants', [1, 20])
def test_all_shares_together_are_the_noise_that_was_asked_for(participants):
  grid = discrete_gaussian.plan(3.0, 6.0, 650, participants, bits=24)
  total = math.sqrt(participants) * grid.stddev / grid.steps
  assert total == pytest.approx(6.0)
  assert 0.99 * 3.0 < grid.norm < 3.0
  # The sum stays within the modulus, but for eight standard deviations.
  largest = (3.0 * participants + 8 * 6.0) * grid.steps
  assert largest == pytest.approx(grid.modulus / 2)
