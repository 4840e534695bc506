"""Secure sums: fixed point, clipping, tiers, metrics and counts, by hand."""

import collections

import numpy as np
import pytest
import tensorflow_federated as tff

from tff_fedsa.aggregation import screening
from tff_fedsa.aggregation import secure_sums
from tff_fedsa.aggregation import tier_mean
from tff_fedsa.client import client_work

pytestmark = pytest.mark.usefixtures('context_in_the_clear')


def _next(process, values):
  return process.next(process.initialize(), values)


def test_vectors_are_exact_to_half_a_step_and_clipped():
  process = secure_sums.vector_sum(8.0).create(tff.TensorType(np.float32, (3,)))
  values = [
    np.array([0.1, -7.0, 9.0], np.float32),
    np.array([0.2, -8.5, 1e9], np.float32),
    np.array([0.0, 3.0, 0.0], np.float32),
  ]
  output = _next(process, values)
  # A step is 8 / (2^31 - 1).
  np.testing.assert_allclose(output.result, [0.3, -12, 16], rtol=0, atol=2e-8)
  # Two clients are above, and the second one is below as well.
  assert output.measurements['clipped'] == 3
  nothing = _next(process, [np.zeros(3, np.float32)] * 3)
  np.testing.assert_array_equal(nothing.result, [0, 0, 0])
  tff.test.assert_contains_secure_aggregation(process.next)


def test_counts_are_exact():
  # Means over three epochs: whole numbers of thirds.
  process = secure_sums.count_sum(100.0, 3.0).create(
    tff.TensorType(np.float32, (2,))
  )
  values = [np.array([n / 3, 0.0], np.float32) for n in (1, 100, 299)]
  np.testing.assert_array_equal(
    _next(process, values).result, np.array([400 / 3, 0], np.float32)
  )


@pytest.mark.parametrize('number', [0.0, -1.0, float('nan')])
def test_bounds_are_above_zero(number):
  with pytest.raises(ValueError, match='above 0'):
    secure_sums.FixedPointSumFactory(number, 1.0)


def test_tiers_have_means_of_their_own():
  value_type = tff.types.to_type(
    tier_mean.TierValue(
      tff.TensorType(np.int32),
      tff.TensorType(np.float32, [None]),
      tff.TensorType(np.float32),
    )
  )
  values = [
    tier_mean.TierValue(np.int32(tier), np.array(v, 'f4'), np.float32(weight))
    for tier, v, weight in (
      (0, [1, 2], 3),
      (2, [5, 5, 5], 2),
      (0, [5, 6], 1),
      # Counts nothing, whatever it holds.
      (2, [np.nan, np.inf, 1], 0),
    )
  ]
  process = secure_sums.TierMeanFactory(
    (2, 1, 3), secure_sums.vector_sum(64.0), secure_sums.count_sum(4.0)
  ).create(value_type)
  output = _next(process, values)
  # The means of `tests.aggregation.test_tier_mean`.
  for found, expected in zip(
    output.result.value, ([2, 3], [0], [5, 5, 5]), strict=True
  ):
    np.testing.assert_allclose(found, expected, atol=1e-6)
  np.testing.assert_array_equal(output.result.weight, [4, 0, 2])
  assert output.measurements['mean_size'] == 2.5
  tff.test.assert_not_contains_unsecure_aggregation(process.next)


def test_metrics_are_sums_of_what_clients_have():
  metrics = [
    client_work.ClientMetrics(
      collections.OrderedDict(loss=np.float32(loss), gap=np.float32(1.5)),
      collections.OrderedDict(loss=np.float32(20), gap=np.float32(1)),
      collections.OrderedDict(examples=np.int32(20)),
    )
    for loss in (40.0, 1e10)
  ]
  process = secure_sums.build_metrics_sum(
    tff.types.to_type(
      client_work.ClientMetrics(
        collections.OrderedDict(loss=np.float32, gap=np.float32),
        collections.OrderedDict(loss=np.float32, gap=np.float32),
        collections.OrderedDict(examples=np.int32),
      )
    ),
    screening.Limits(max_examples=20, num_epochs=1),
  )
  output = _next(process, metrics)
  assert output.result.sums['loss'] == pytest.approx(2**32 + 39, abs=300)
  assert output.result.sums['gap'] == 3
  assert dict(output.result.weights) == {'loss': 40, 'gap': 2}
  assert dict(output.result.totals) == {'examples': 40}
  assert output.measurements['clipped'] == 1


def test_nobody_is_named():
  process = secure_sums.build_count()
  plain = screening.build_count()
  verdicts = [
    collections.OrderedDict(id=np.int32(i), reason=np.int32(reason))
    for i, reason in enumerate([0, 3, 0, 1, 3])
  ]
  found, named = _next(process, verdicts).result, _next(plain, verdicts).result
  assert len(named.pop('rejected')) == 3
  assert found.pop('rejected').shape == (0, 2)
  assert found == named
  assert found['clients_rejected_weight'] == 2
