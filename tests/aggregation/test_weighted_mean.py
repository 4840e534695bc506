"""Weighted mean of structures, by hand."""

import collections

import numpy as np
import pytest
import tensorflow_federated as tff

from tff_fedsa.aggregation import weighted_mean

pytestmark = pytest.mark.usefixtures('in_process_context')

_TYPE = tff.types.to_type(
  weighted_mean.WeightedValue(
    value=(tff.TensorType(np.float32, [2]), tff.TensorType(np.float32)),
    weight=tff.TensorType(np.float32),
  )
)


def _value(pair, scalar, weight):
  return weighted_mean.WeightedValue(
    (np.array(pair, np.float32), np.float32(scalar)), np.float32(weight)
  )


def test_type():
  process = weighted_mean.WeightedMeanFactory().create(_TYPE)
  update = '<value=<float32[2],float32>,weight=float32>'
  state = '<value=<>,weight=<>>@SERVER'
  assert process.next.type_signature.compact_representation() == (
    f'(<state={state},update={{{update}}}@CLIENTS> -> <state={state},'
    f'result={update}@SERVER,measurements=<value=<>,weight=<>>@SERVER>)'
  )


def test_mean_by_hand():
  process = weighted_mean.WeightedMeanFactory().create(_TYPE)
  state = process.initialize()
  values = [
    _value([1, 2], 3, 1),
    _value([5, 6], 7, 3),
    _value([np.nan, 9], np.inf, 0),  # a client that diverged
  ]
  result = process.next(state, values).result
  np.testing.assert_array_equal(result.value[0], [4, 5])
  assert result.value[1] == 6 and result.weight == 4
  result = process.next(state, values[2:]).result
  assert not np.any(result.value[0]) and result.weight == 0


def test_inner_sums_can_be_replaced():
  factory = weighted_mean.WeightedMeanFactory(
    tff.aggregators.DifferentiallyPrivateFactory.gaussian_fixed(0.0, 10, 100.0)
  )
  process = factory.create(_TYPE)
  result = process.next(process.initialize(), [_value([1, 2], 3, 2)]).result
  # A mean over 10 clients of both, which cancels.
  np.testing.assert_allclose(result.value[0], [1, 2], rtol=1e-5)
  assert isinstance(process.initialize(), collections.OrderedDict)
