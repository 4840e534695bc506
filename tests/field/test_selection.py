"""Draws by our own sampling and by users' functions."""

import pytest

from tff_fedsa import sampling
from tff_fedsa.field import selection
from tff_fedsa.runs import errors


def test_by_default_draws_are_those_of_sampling():
  select = selection.build_select_fn(3)
  for round_num in (1, 2, 9):
    assert select(round_num, 5, list(range(50))) == sampling.sample_clients(
      3, round_num, 50, 5
    )
  drawn = select(1, 2, [4, 7, 9])
  assert len(drawn) == 2 and set(drawn) < {4, 7, 9}
  assert select(1, 5, [4, 7, 9]) == [4, 7, 9]


def test_a_function_gets_the_arguments_that_it_takes():
  there = [0, 1, 2, 5]
  one = selection.wrap(lambda round_num: [round_num], 6)
  two = selection.wrap(lambda r, size: range(size - 1, -1, -1), 6)
  three = selection.wrap(lambda r, size, available: available[-size:], 6)
  own = selection.wrap(lambda r, size, first=1: [first], 6)
  anything = selection.wrap(lambda *arguments: arguments[2][:1], 6)
  assert one(2, 3, there) == [2]
  assert two(1, 3, there) == [0, 1, 2]
  assert three(1, 2, there) == [2, 5]
  assert own(1, 2, there) == [1]
  assert anything(1, 2, there) == [0]


def test_who_is_not_there_is_left_out():
  select = selection.wrap(lambda r, size: [3, 1, 0], 4)
  assert select(1, 3, [0, 3]) == [0, 3]


@pytest.mark.parametrize(
  'drawn, match',
  [
    ([0, 4], 'Round 7: selection_fn returned 4; 4 clients are numbered 0 to 3'),
    ([1, 1], 'returned a client twice'),
    (['1'], 'expected selection_fn to return ids of clients, integers'),
    (None, 'integers, found None'),
    ([0, 1, 2], '3 clients, more than the 2 asked for'),
  ],
)
def test_wrong_draws_are_refused(drawn, match):
  with pytest.raises(errors.UserError, match=match):
    selection.wrap(lambda r: drawn, 4)(7, 2, [0, 1, 2, 3])


def test_other_arguments_are_refused_at_once():
  with pytest.raises(TypeError, match='found 4 arguments'):
    selection.wrap(lambda a, b, c, d: [], 4)
  with pytest.raises(TypeError, match='found 0 arguments'):
    selection.wrap(lambda: [], 4)
