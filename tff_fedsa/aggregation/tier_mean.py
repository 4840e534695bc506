"""Averages vectors within tiers: clients of one architecture.

Data flow: client_work.py -> [this module] -> averaging.py.
"""

import collections
from collections.abc import Sequence
import functools
from typing import Any, NamedTuple

import tensorflow as tf
import tensorflow_federated as tff

from tff_fedsa.aggregation import weighted_mean


class TierValue(NamedTuple):
  """A client's vector, its tier and its weight.

  Attributes:
    tier: int32 scalar.
    value: float32[size of the tier]. It is ignored if `weight == 0`.
    weight: float32 scalar >= 0.
  """

  tier: Any
  value: Any
  weight: Any


class TierMean(NamedTuple):
  """The means of all tiers.

  Attributes:
    value: float32[size] of each tier. Zeros if the tier's weight is 0.
    weight: float32[number of tiers], sums of the clients' weights.
  """

  value: Any
  weight: Any


class TierMeanFactory(tff.aggregators.UnweightedAggregationFactory):
  """Weighted mean of `TierValue` placed at `CLIENTS`, tier by tier.

  The created process has the type
  `(<<>@SERVER, {TierValue}@CLIENTS> -> <state=<>, result=TierMean,
  measurements=M>@SERVER)`. A client's vector is added to the sum of its own
  tier, without zeros for other tiers. With one tier the mean equals that of
  `weighted_mean.WeightedMeanFactory`, bit for bit.

  With several tiers the measurement is `mean_size`, the mean length of the
  vectors. With one tier there is none.
  """

  def __init__(self, sizes: Sequence[int]):
    """Initializes `TierMeanFactory`.

    Args:
      sizes: Length of the vectors of each tier.
    """
    self._sizes = tuple(sizes)

  def create(self, value_type: tff.Type) -> tff.templates.AggregationProcess:
    """Returns the process for `value_type`, that of a `TierValue`."""
    sizes = self._sizes

    @tff.tensorflow.computation
    def zero():
      return _Sums(
        tuple(tf.zeros([size]) for size in sizes),
        tf.zeros([len(sizes)]),
        tf.zeros([len(sizes)]),
      )

    sums_type = zero.type_signature.result

    @tff.tensorflow.computation(sums_type, value_type)
    def accumulate(sums, update):
      weighted = weighted_mean.weigh(update.value, update.weight)

      def add(tier):
        value = tf.ensure_shape(weighted, sizes[tier : tier + 1])
        return tuple(
          total + value if i == tier else total
          for i, total in enumerate(sums.values)
        )

      tier = update.tier
      chosen = tf.one_hot(tier, len(sizes))
      return _Sums(
        add(0)
        if len(sizes) == 1
        else tf.switch_case(
          tier, [functools.partial(add, i) for i in range(len(sizes))]
        ),
        sums.weights + chosen * update.weight,
        sums.counts + chosen,
      )

    @tff.tensorflow.computation(sums_type, sums_type)
    def merge(first, second):
      return tf.nest.map_structure(tf.add, first, second)

    @tff.tensorflow.computation(sums_type)
    def report(sums):
      means = tuple(
        tf.math.divide_no_nan(total, sums.weights[i])
        for i, total in enumerate(sums.values)
      )
      measurements = collections.OrderedDict()
      if len(sizes) > 1:
        measurements['mean_size'] = tf.math.divide_no_nan(
          tf.tensordot(sums.counts, tf.constant(sizes, tf.float32), 1),
          tf.reduce_sum(sums.counts),
        )
      return TierMean(means, sums.weights), measurements

    @tff.federated_computation
    def initialize_fn():
      return tff.federated_value((), tff.SERVER)

    @tff.federated_computation(
      initialize_fn.type_signature.result,
      tff.FederatedType(value_type, tff.CLIENTS),
    )
    def next_fn(state, update):
      mean, measurements = tff.federated_aggregate(
        update, zero(), accumulate, merge, report
      )
      return tff.templates.MeasuredProcessOutput(state, mean, measurements)

    return tff.templates.AggregationProcess(initialize_fn, next_fn)


class _Sums(NamedTuple):
  """The accumulator.

  Attributes:
    values: Sum of weighted vectors of each tier.
    weights: float32[number of tiers], sums of weights.
    counts: float32[number of tiers], clients.
  """

  values: Any
  weights: Any
  counts: Any
