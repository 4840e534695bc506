"""Means within tiers, by hand."""

import numpy as np
import pytest
import tensorflow_federated as tff

from tff_fedsa.aggregation import tier_mean

pytestmark = pytest.mark.usefixtures('in_process_context')


def _process(*sizes):
  value_type = tier_mean.TierValue(
    tff.TensorType(np.int32),
    tff.TensorType(np.float32, [None]),
    tff.TensorType(np.float32),
  )
  return tier_mean.TierMeanFactory(sizes).create(tff.types.to_type(value_type))


def _value(tier, value, weight):
  return tier_mean.TierValue(
    np.int32(tier), np.array(value, np.float32), np.float32(weight)
  )


_VALUES = [
  _value(0, [1, 2], 3),
  _value(2, [5, 5, 5], 2),
  _value(0, [5, 6], 1),
  # Counts nothing, whatever it holds.
  _value(2, [np.nan, np.inf, 1], 0),
]


def _assert_tiers(found, *expected):
  assert len(found) == len(expected)
  for one, other in zip(found, expected):
    np.testing.assert_array_equal(one, other)


def test_each_tier_by_hand():
  process = _process(2, 1, 3)
  output = process.next(process.initialize(), _VALUES)
  _assert_tiers(output.result.value, [2, 3], [0], [5, 5, 5])
  np.testing.assert_array_equal(output.result.weight, [4, 0, 2])
  # Two vectors of 2 numbers, two of 3.
  assert dict(output.measurements) == {'mean_size': 2.5}


def test_one_tier_measures_nothing():
  process = _process(2)
  output = process.next(process.initialize(), [_VALUES[0], _VALUES[2]])
  _assert_tiers(output.result.value, [2, 3])
  assert dict(output.measurements) == {}


@pytest.mark.slow
def test_native_runtime(runtimes):
  process = _process(2, 1, 3)
  with runtimes.default('native'):
    output = process.next(process.initialize(), _VALUES)
    _assert_tiers(output.result.value, [2, 3], [0], [5, 5, 5])
    np.testing.assert_array_equal(output.result.weight, [4, 0, 2])


def test_a_vector_of_another_tier_is_refused():
  process = _process(2, 3)
  with pytest.raises(Exception, match='shape'):
    process.next(process.initialize(), [_value(0, [1, 2, 3], 1)])
