"""Epsilon: equal to dp-accounting's and to formulas, and never too small."""

import math

import dp_accounting
from dp_accounting import rdp
import pytest
from scipy import stats

from tff_fedsa.privacy import accounting

_DELTA = 1e-5
_ALL = accounting.Sampling(20, 20)
_FEW = accounting.Sampling(1000, 10)


def _account(noise_multiplier, sampling=_ALL):
  return accounting.Account(noise_multiplier, _DELTA, sampling)


def _delta_of_gaussian(epsilon, sensitivity_by_stddev):
  """The exact delta of one Gaussian mechanism (Balle and Wang 2018)."""
  ratio = sensitivity_by_stddev
  return stats.norm.cdf(ratio / 2 - epsilon / ratio) - math.exp(
    epsilon
  ) * stats.norm.cdf(-ratio / 2 - epsilon / ratio)


@pytest.mark.parametrize('sampling', [_ALL, _FEW])
@pytest.mark.parametrize('noise_multiplier, rounds', [(2.0, 1), (4.0, 30)])
def test_epsilon_is_that_of_dp_accounting(sampling, noise_multiplier, rounds):
  # The library's own orders, and an event written out.
  accountant = rdp.RdpAccountant(
    neighboring_relation=dp_accounting.NeighboringRelation.REPLACE_ONE
  )
  accountant.compose(
    dp_accounting.SelfComposedDpEvent(
      dp_accounting.SampledWithoutReplacementDpEvent(
        sampling.population,
        sampling.cohort,
        dp_accounting.GaussianDpEvent(noise_multiplier / 2),
      ),
      rounds,
    )
  )
  epsilon = _account(noise_multiplier, sampling).epsilon(rounds)
  assert epsilon == pytest.approx(accountant.get_epsilon(_DELTA), rel=0.1)
  assert epsilon >= accountant.get_epsilon(_DELTA) - 1e-9


def test_epsilon_of_all_clients_follows_from_the_formula():
  # RDP of a Gaussian with sensitivity 2 and standard deviation z is 2 a / z^2
  # per round. Conversion: Canonne, Kamath, Steinke 2020, proposition 12.
  noise_multiplier, rounds = 30.0, 20
  by_order = [
    rounds * 2 * a / noise_multiplier**2
    + math.log1p(-1 / a)
    - math.log(_DELTA * a) / (a - 1)
    for a in accounting.ORDERS
  ]
  assert _account(noise_multiplier).epsilon(rounds) == pytest.approx(
    min(by_order)
  )


@pytest.mark.parametrize('noise_multiplier', [4.0, 10.0, 30.0])
def test_the_sensitivity_is_twice_the_clipping_norm(noise_multiplier):
  epsilon = _account(noise_multiplier).epsilon(1)
  assert _delta_of_gaussian(epsilon, 2 / noise_multiplier) <= _DELTA
  # An account that forgets the two would claim too little.
  accountant = accounting.make_accountant().compose(
    dp_accounting.GaussianDpEvent(noise_multiplier)
  )
  forgetful = accountant.get_epsilon(_DELTA)
  assert _delta_of_gaussian(forgetful, 2 / noise_multiplier) > _DELTA


def test_draws_protect_and_rounds_add_up():
  assert _account(2.0, _FEW).epsilon(10) < _account(2.0).epsilon(10)
  assert _account(2.0).epsilon(10) < _account(2.0).epsilon(11)
  assert _account(2.0).epsilon(0) == 0.0
  assert _account(0.0).epsilon(1) == math.inf


@pytest.mark.parametrize('epsilon, sampling', [(0.5, _ALL), (8.0, _FEW)])
def test_the_noise_spends_the_budget_and_no_more(epsilon, sampling):
  noise_multiplier = accounting.calibrate(epsilon, _DELTA, 20, sampling)
  spent = _account(noise_multiplier, sampling).epsilon(20)
  assert 0.98 * epsilon < spent <= epsilon


def test_a_budget_that_needs_no_noise_is_refused():
  with pytest.raises(ValueError, match='too large to protect anything'):
    accounting.calibrate(1e6, _DELTA, 20, _ALL)


def test_a_budget_pays_for_whole_rounds():
  account = _account(10.0)
  most = account.rounds_within(5.0, 100)
  assert account.epsilon(most) <= 5.0 < account.epsilon(most + 1)
  assert account.rounds_within(0.01, 100) == 0


def test_the_description_has_the_numbers():
  text = _account(2.0, _FEW).describe(3)
  assert 'after 3 rounds, delta 1e-05; noise multiplier 2' in text
  assert '10 of 1000 clients per round' in text
