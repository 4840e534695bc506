"""Averages values of which every client says how much its own counts.

Data flow: client_work.py -> [this module] -> finalizers.py.
"""

import collections
from typing import Any, NamedTuple, Optional

import tensorflow as tf
import tensorflow_federated as tff

from tff_fedsa.maths import finite as finite_lib


class WeightedValue(NamedTuple):
  """A value and its weight in a mean.

  Attributes:
    value: Structure of float32 tensors; ignored wherever `weight == 0`.
    weight: float32 scalar >= 0.
  """

  value: Any
  weight: Any


def weigh(value: Any, weight: tf.Tensor) -> Any:
  """Returns weight * value, and zeros if the weight is 0, whatever the value.

  Args:
    value: Structure of float32 tensors.
    weight: float32 scalar >= 0.
  """
  weighted = tf.nest.map_structure(lambda part: weight * part, value)
  return finite_lib.choose(weight > 0, weighted)


class WeightedMeanFactory(tff.aggregators.UnweightedAggregationFactory):
  """Weighted mean of `WeightedValue` placed at `CLIENTS`.

  The created process has the type
  `(<S@SERVER, {V}@CLIENTS> -> <state=S, result=V, measurements=M>@SERVER)`,
  `V` being a `WeightedValue`:

    result.weight = sum_i weight_i
    result.value = sum_i weight_i * value_i / result.weight

  and `result.value` is all zeros if all weights are: test
  `result.weight > 0`, never the value.

  Measurements: `value` and `weight`, whatever the two inner sums report.
  """

  def __init__(
    self,
    sum_factory: Optional[tff.aggregators.UnweightedAggregationFactory] = None,
    weight_sum_factory: Optional[
      tff.aggregators.UnweightedAggregationFactory
    ] = None,
  ):
    """Initializes `WeightedMeanFactory`.

    Args:
      sum_factory: Sums weighted values over clients. Defaults to
        `tff.aggregators.SumFactory`.
      weight_sum_factory: Sums weights. Defaults to `sum_factory`.
    """
    self._sum_factory = sum_factory or tff.aggregators.SumFactory()
    self._weight_sum_factory = weight_sum_factory or self._sum_factory

  def create(self, value_type: tff.Type) -> tff.templates.AggregationProcess:
    """Returns the process for `value_type`, that of a `WeightedValue`."""
    value_sum = self._sum_factory.create(value_type.value)
    weight_sum = self._weight_sum_factory.create(value_type.weight)

    @tff.tensorflow.computation(value_type)
    def weigh_update(update):
      return weigh(update.value, update.weight)

    @tff.tensorflow.computation(value_type.value, value_type.weight)
    def divide(total, weight):
      return WeightedValue(
        tf.nest.map_structure(
          lambda part: tf.math.divide_no_nan(part, weight), total
        ),
        weight,
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
      weighted = tff.federated_map(weigh_update, update)
      total = value_sum.next(state['value'], weighted)
      weight = weight_sum.next(state['weight'], update.weight)
      return tff.templates.MeasuredProcessOutput(
        state=tff.federated_zip(
          collections.OrderedDict(value=total.state, weight=weight.state)
        ),
        result=tff.federated_map(divide, (total.result, weight.result)),
        measurements=tff.federated_zip(
          collections.OrderedDict(
            value=total.measurements, weight=weight.measurements
          )
        ),
      )

    return tff.templates.AggregationProcess(initialize_fn, next_fn)
