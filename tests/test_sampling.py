"""Sampling is a pure, uniform function of seed and round."""

import numpy as np
import pytest

from tff_fedsa import sampling


def test_the_same_arguments_give_the_same_clients():
  draws = [sampling.sample_clients(3, r, 50, 5) for r in range(1, 20)]
  assert draws == [sampling.sample_clients(3, r, 50, 5) for r in range(1, 20)]
  assert len({tuple(draw) for draw in draws}) > 15
  assert draws[0] != sampling.sample_clients(4, 1, 50, 5)


def test_draws_are_without_replacement_ascending_and_uniform():
  counts = np.zeros(10)
  for round_num in range(1, 2001):
    drawn = sampling.sample_clients(0, round_num, 10, 3)
    assert drawn == sorted(set(drawn)) and len(drawn) == 3
    counts[drawn] += 1
  # 600 expected, standard deviation 20.
  assert np.abs(counts - 600).max() < 100


def test_all_clients():
  assert sampling.sample_clients(0, 1, 4, 4) == [0, 1, 2, 3]


def test_the_global_random_state_is_left_alone():
  np.random.seed(0)
  expected = np.random.rand()
  np.random.seed(0)
  sampling.sample_clients(0, 1, 10, 3)
  assert np.random.rand() == expected


@pytest.mark.parametrize('clients_per_round', [0, 11])
def test_impossible_numbers_are_named(clients_per_round):
  with pytest.raises(ValueError, match=r'\[1, 10\], found'):
    sampling.sample_clients(0, 1, 10, clients_per_round)


def test_a_selection_function_is_sampling_of_its_round():
  select = sampling.build_selection_fn(3, 50, 5)
  assert [select(r) for r in (1, 7)] == [
    sampling.sample_clients(3, r, 50, 5) for r in (1, 7)
  ]
  with pytest.raises(ValueError, match=r'\[1, 4\], found 5'):
    sampling.build_selection_fn(3, 4, 5)
