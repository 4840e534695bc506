"""Aggregates per-class client prototypes into one global prototype per class.

Data flow: client_work.py -> [this module] -> finalizers.py.
"""

import collections
from typing import Optional

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_fedsa.maths import prototypes


class ClassMeanFactory(tff.aggregators.UnweightedAggregationFactory):
  """Per-class weighted mean of `ClassPrototypes` placed at `CLIENTS`.

  The created process has the type
  `(<S@SERVER, {P}@CLIENTS> -> <state=S, result=P, measurements=M>@SERVER)`,
  `P` being `ClassPrototypes`. For each class `c`,

    result.weights[c] = sum_i weights_i[c]
    result.vectors[c] = sum_i weights_i[c] * vectors_i[c] / result.weights[c]

  and `result.vectors[c]` is all zeros if no client of the round sent class
  `c`: test `result.weights[c] > 0`, never the vector. Rows of weight zero are
  masked before anything is summed, so whatever they hold (NaN included) does
  not leave the client.

  The weights live inside the value, one per class, which is why the factory is
  "unweighted": a scalar weight per client could not express them. Weights of 0
  or 1 give the reference's mean over clients (`FedSA.receive_protos`,
  lokinko/FedSA@75bf106), example counts FedProto's.

  Measurements: `classes_present`, an int32 scalar, and `vectors` and `weights`,
  whatever the two inner sums report.
  """

  def __init__(
    self,
    vectors_sum_factory: Optional[
      tff.aggregators.UnweightedAggregationFactory
    ] = None,
    weights_sum_factory: Optional[
      tff.aggregators.UnweightedAggregationFactory
    ] = None,
  ):
    """Initializes `ClassMeanFactory`.

    The two sums are the seams for secure summation, differential privacy,
    clipping or compression. The sum of vectors gets
    `float32[num_classes, feature_dim]`, that of weights
    `float32[num_classes]`.

    Args:
      vectors_sum_factory: Sums the weighted vectors over clients. Defaults to
        `tff.aggregators.SumFactory`.
      weights_sum_factory: Sums the weights over clients. Defaults to
        `tff.aggregators.SumFactory`.

    Raises:
      TypeError: If one is not an `UnweightedAggregationFactory`.
    """
    self._vectors_sum_factory = _checked_sum_factory(
      'vectors_sum_factory', vectors_sum_factory
    )
    self._weights_sum_factory = _checked_sum_factory(
      'weights_sum_factory', weights_sum_factory
    )

  def create(self, value_type: tff.Type) -> tff.templates.AggregationProcess:
    """Returns the process for `value_type`, that of a `ClassPrototypes`.

    Raises:
      TypeError: If `value_type` is of any other kind.
    """
    _check_value_type(value_type)
    vectors_sum = self._vectors_sum_factory.create(value_type.vectors)
    weights_sum = self._weights_sum_factory.create(value_type.weights)

    @tff.tensorflow.computation(value_type)
    def weigh(value):
      scaled = value.vectors * value.weights[:, tf.newaxis]
      counted = (value.weights > 0)[:, tf.newaxis]
      return tf.where(counted, scaled, tf.zeros_like(scaled))

    @tff.tensorflow.computation(value_type.vectors, value_type.weights)
    def divide(vectors, weights):
      return prototypes.ClassPrototypes(
        prototypes.class_means(vectors, weights), weights
      )

    @tff.tensorflow.computation(value_type.weights)
    def count_present(weights):
      return tf.math.count_nonzero(weights > 0, dtype=tf.int32)

    @tff.federated_computation
    def initialize_fn():
      return tff.federated_zip(
        collections.OrderedDict(
          vectors=vectors_sum.initialize(), weights=weights_sum.initialize()
        )
      )

    @tff.federated_computation(
      initialize_fn.type_signature.result,
      tff.FederatedType(value_type, tff.CLIENTS),
    )
    def next_fn(state, value):
      vectors = vectors_sum.next(
        state['vectors'], tff.federated_map(weigh, value)
      )
      weights = weights_sum.next(state['weights'], value.weights)
      measurements = collections.OrderedDict(
        classes_present=tff.federated_map(count_present, weights.result),
        vectors=vectors.measurements,
        weights=weights.measurements,
      )
      return tff.templates.MeasuredProcessOutput(
        state=tff.federated_zip(
          collections.OrderedDict(vectors=vectors.state, weights=weights.state)
        ),
        result=tff.federated_map(divide, (vectors.result, weights.result)),
        measurements=tff.federated_zip(measurements),
      )

    return tff.templates.AggregationProcess(initialize_fn, next_fn)


def _checked_sum_factory(name, factory):
  if factory is None:
    return tff.aggregators.SumFactory()
  if not isinstance(factory, tff.aggregators.UnweightedAggregationFactory):
    raise TypeError(
      f'`{name}` must be a tff.aggregators.UnweightedAggregationFactory, '
      f'found {type(factory)}.'
    )
  return factory


def _check_value_type(value_type: tff.Type) -> None:
  """Raises `TypeError` unless `value_type` is that of a `ClassPrototypes`."""
  expected = (
    prototypes.is_prototypes_type(value_type)
    and value_type.vectors.dtype == np.float32
  )
  if not expected:
    raise TypeError(
      'Expected the type of a `ClassPrototypes` (see '
      f'`prototypes.prototypes_type`), found {value_type}.'
    )
