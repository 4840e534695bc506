"""Secure sums: the server learns sums over clients and nothing of one client.

Data flow: client_work.py -> [this module] -> finalizers.py.

All of them end in TFF's intrinsic of secure summation. It adds up whole
numbers of a known range. So clients clip a value to a bound and round it to
steps (fixed point), and the server counts steps.

Source: Bonawitz et al., "Practical Secure Aggregation for Privacy-Preserving
Machine Learning", CCS 2017.
"""

import collections
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_fedsa.aggregation import mapped
from tff_fedsa.aggregation import screening
from tff_fedsa.aggregation import tier_mean
from tff_fedsa.aggregation import weighted_mean
from tff_fedsa.runs import errors

# Steps of a coordinate on each side of 0: a signed number of 32 bits.
_LAST_STEP = 2**31 - 1
# Metrics are few numbers, so their steps are fine, and their bound is wide. (A
# power of two would make `SecureSumFactory` round its number of bits down.)
_LARGEST_METRIC = 2.0**32 - 1.0
_METRIC_STEPS = 2.0**16


class FixedPointSumFactory(tff.aggregators.UnweightedAggregationFactory):
  """Secure sum of tensors of one dtype in fixed point.

  The created process has the type `(<<>@SERVER, {V}@CLIENTS> -> <state=<>,
  result=V, measurements=M>@SERVER)`. A value beyond the bounds is clipped. The
  sum of values that are whole steps is exact, up to the precision of their
  dtype. `M` is `clipped`, int32: how many clients had a value above the upper
  bound, plus how many had one below the lower bound. It is empty for counts,
  which `screening` has checked.

  The sum itself is that of `tff.aggregators.SecureSumFactory`.
  """

  def __init__(self, largest: float, steps: float, *, signed: bool = True):
    """Initializes `FixedPointSumFactory`.

    Args:
      largest: Largest absolute value, > 0.
      steps: Steps per unit, > 0.
      signed: Whether values may be below 0.

    Raises:
      ValueError: If a number is not above 0.
    """
    if not (largest > 0.0 and steps > 0.0):
      raise errors.UserError(
        f'Expected a largest value and steps above 0, found {largest} and '
        f'{steps}.'
      )
    self._steps = float(steps)
    self._signed = signed
    self._last = round(largest * steps)
    self._sum_factory = tff.aggregators.SecureSumFactory(
      self._last, -self._last if signed else 0
    )

  def create(self, value_type: tff.Type) -> tff.templates.AggregationProcess:
    """Returns the process for a structure of tensors of one dtype."""
    steps, last = self._steps, self._last
    dtype, *_ = {leaf.dtype for leaf in tff.structure.flatten(value_type)}

    @tff.tensorflow.computation(value_type)
    def to_steps(value):
      def of_tensor(tensor):
        found = tf.round(tf.cast(tensor, tf.float64) * steps)
        # The secure sum clips, and counts; int64 must hold what it gets.
        found = tf.clip_by_value(found, -2.0 * last, 2.0 * last)
        return tf.cast(found, tf.int64)

      return tf.nest.map_structure(of_tensor, value)

    inner = self._sum_factory.create(to_steps.type_signature.result)

    @tff.tensorflow.computation(to_steps.type_signature.result)
    def from_steps(total):
      return tf.nest.map_structure(
        lambda part: tf.cast(tf.cast(part, tf.float64) / steps, dtype), total
      )

    @tff.tensorflow.computation(
      inner.next.type_signature.result.measurements.member
    )
    def measure(measured):
      if not self._signed:
        return ()
      return collections.OrderedDict(
        clipped=measured['secure_upper_clipped_count']
        + measured['secure_lower_clipped_count']
      )

    return mapped.mapped(
      inner, of_values=to_steps, of_result=from_steps, of_measurements=measure
    )


def vector_sum(largest: float) -> FixedPointSumFactory:
  """Returns the sum of vectors in 32 bits per coordinate.

  Args:
    largest: Largest absolute value of a coordinate, > 0.
  """
  return FixedPointSumFactory(largest, _LAST_STEP / largest)


def count_sum(largest: float, steps: float = 1.0) -> FixedPointSumFactory:
  """Returns the exact sum of counts.

  Args:
    largest: Largest count of a client, > 0.
    steps: Steps per unit, where a count is the mean of so many.
  """
  return FixedPointSumFactory(largest, steps, signed=False)


class TierMeanFactory(tff.aggregators.UnweightedAggregationFactory):
  """Weighted mean of `TierValue` by secure sums, tier by tier.

  The created process has the type of `tier_mean.TierMeanFactory`. A client
  sends zeros for the tiers that are not its own, because the values of a secure
  sum have one shape.

  Measurements: `value` and `weight`, those of the two sums, and, with several
  tiers, `mean_size`, the mean length of the vectors without the zeros.
  """

  def __init__(
    self,
    sizes: Sequence[int],
    value_sum_factory: tff.aggregators.UnweightedAggregationFactory,
    weight_sum_factory: tff.aggregators.UnweightedAggregationFactory,
  ):
    """Initializes `TierMeanFactory`.

    Args:
      sizes: Length of the vectors of each tier.
      value_sum_factory: Sums weighted vectors, float32[sum of sizes].
      weight_sum_factory: Sums weights, float32[number of tiers].
    """
    self._sizes = tuple(sizes)
    self._value_sum_factory = value_sum_factory
    self._weight_sum_factory = weight_sum_factory

  def create(self, value_type: tff.Type) -> tff.templates.AggregationProcess:
    """Returns the process for `value_type`, that of a `TierValue`."""
    sizes, total_size = self._sizes, sum(self._sizes)
    ends = np.cumsum(sizes)

    @tff.tensorflow.computation(value_type)
    def spread(update):
      weighted = weighted_mean.weigh(update.value, update.weight)
      end = tf.gather(tf.constant(ends, tf.int32), update.tier)
      filled = tf.pad(weighted, [[end - tf.size(weighted), total_size - end]])
      chosen = tf.one_hot(update.tier, len(sizes))
      return (
        tf.ensure_shape(filled, [total_size]),
        chosen * update.weight,
        chosen,
      )

    vector_type, weights_type, _ = spread.type_signature.result
    value_sum = self._value_sum_factory.create(vector_type)
    weight_sum = self._weight_sum_factory.create(weights_type)
    count = count_sum(1.0).create(weights_type)

    @tff.tensorflow.computation(vector_type, weights_type)
    def divide(value, weights):
      means = tuple(
        tf.math.divide_no_nan(part, weights[tier])
        for tier, part in enumerate(tf.split(value, sizes))
      )
      return tier_mean.TierMean(means, weights)

    @tff.tensorflow.computation(weights_type)
    def mean_size(counts):
      return tf.math.divide_no_nan(
        tf.tensordot(counts, tf.constant(sizes, tf.float32), 1),
        tf.reduce_sum(counts),
      )

    @tff.federated_computation
    def initialize_fn():
      return tff.federated_zip(
        collections.OrderedDict(
          value=value_sum.initialize(), weight=weight_sum.initialize()
        )
      )

    @tff.federated_computation(
      initialize_fn.type_signature.result,
      tff.FederatedType(value_type, tff.CLIENTS),
    )
    def next_fn(state, update):
      vectors, weights, chosen = tff.federated_map(spread, update)
      value = value_sum.next(state['value'], vectors)
      weight = weight_sum.next(state['weight'], weights)
      measurements = collections.OrderedDict(
        value=value.measurements, weight=weight.measurements
      )
      if len(sizes) > 1:
        counts = count.next(count.initialize(), chosen)
        measurements['mean_size'] = tff.federated_map(mean_size, counts.result)
      return tff.templates.MeasuredProcessOutput(
        tff.federated_zip(
          collections.OrderedDict(value=value.state, weight=weight.state)
        ),
        tff.federated_map(divide, (value.result, weight.result)),
        tff.federated_zip(measurements),
      )

    return tff.templates.AggregationProcess(initialize_fn, next_fn)


def build_metrics_sum(
  metrics_type: tff.Type, limits: screening.Limits
) -> tff.templates.AggregationProcess:
  """Returns the secure sum of a `client_work.ClientMetrics`.

  Sums of losses are exact to 2^-17 for each client, and clipped at 2^32: the
  measurement is `clipped`. Weights and totals are exact.

  Args:
    metrics_type: Unplaced type of the metrics.
    limits: Largest counts of a client.
  """
  most = screening.most_examples(limits)
  factories = {
    'sums': FixedPointSumFactory(_LARGEST_METRIC, _METRIC_STEPS),
    'weights': count_sum(most),
    'totals': count_sum(most),
  }
  sums = {
    name: factory.create(metrics_type[name])
    for name, factory in factories.items()
    # A process may withhold its metrics.
    if tff.structure.flatten(metrics_type[name])
  }
  container = metrics_type.python_container

  @tff.tensorflow.computation(metrics_type)
  def keep(metrics):
    return metrics

  @tff.federated_computation
  def initialize_fn():
    return tff.federated_value((), tff.SERVER)

  @tff.federated_computation(
    initialize_fn.type_signature.result,
    tff.FederatedType(metrics_type, tff.CLIENTS),
  )
  def next_fn(state, metrics):
    results = {}
    measurements = tff.federated_value((), tff.SERVER)
    for name in container._fields:
      if name in sums:
        output = sums[name].next(sums[name].initialize(), metrics[name])
        results[name] = output.result
        if name == 'sums':
          measurements = output.measurements
      else:
        results[name] = tff.federated_value(
          collections.OrderedDict(), tff.SERVER
        )
    return tff.templates.MeasuredProcessOutput(
      state,
      tff.federated_map(keep, tff.federated_zip(container(**results))),
      measurements,
    )

  return tff.templates.AggregationProcess(initialize_fn, next_fn)


def build_count() -> tff.templates.AggregationProcess:
  """Returns the process that counts what was turned away, and names nobody.

  It measures what `screening.build_count` does. Its `rejected` is empty.
  """
  count = count_sum(1.0).create(
    tff.TensorType(np.int32, (len(screening.REASONS),))
  )
  pair_type = screening.verdict_type()

  @tff.tensorflow.computation(pair_type)
  def mark(pair):
    places = 1 + tf.range(len(screening.REASONS))
    return tf.cast(tf.equal(places, pair['reason']), tf.int32)

  @tff.tensorflow.computation(mark.type_signature.result)
  def report(counts):
    found = collections.OrderedDict(clients_rejected=tf.reduce_sum(counts))
    for name, number in zip(screening.REASONS, tf.unstack(counts)):
      found[f'clients_rejected_{name}'] = number
    return collections.OrderedDict(found, rejected=tf.zeros([0, 2], tf.int32))

  @tff.federated_computation(
    count.initialize.type_signature.result,
    tff.FederatedType(pair_type, tff.CLIENTS),
  )
  def next_fn(state, pairs):
    output = count.next(state, tff.federated_map(mark, pairs))
    return tff.templates.MeasuredProcessOutput(
      output.state,
      tff.federated_map(report, output.result),
      tff.federated_value((), tff.SERVER),
    )

  return tff.templates.AggregationProcess(count.initialize, next_fn)
