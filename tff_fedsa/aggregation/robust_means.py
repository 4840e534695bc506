"""Aggregators that hold although some clients send what they made up.

Data flow: client_work.py -> [this module] -> finalizers.py.
"""

import collections
from collections.abc import Callable
from typing import Any, Optional

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_fedsa.aggregation import class_mean
from tff_fedsa.aggregation import collecting
from tff_fedsa.aggregation import mapped
from tff_fedsa.aggregation import weighted_mean
from tff_fedsa.maths import prototypes
from tff_fedsa.maths import robust
from tff_fedsa.runs import errors

CombineFn = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


class RobustMeanFactory(tff.aggregators.UnweightedAggregationFactory):
  """Applies a function of `maths.robust` to the values of all clients.

  The created process has the type
  `(<<>@SERVER, {V}@CLIENTS> -> <state=<>, result=V, measurements=<>>@SERVER)`,
  `V` being `ClassPrototypes`, joined class by class, or a `WeightedValue`,
  joined as one vector. Each client counts 1 where its weight is above 0: a
  weight is what the client says of itself. The weight of the result is the
  number of clients.

  The server sees the value of each client.
  """

  def __init__(self, combine_fn: CombineFn):
    """Initializes `RobustMeanFactory`.

    Args:
      combine_fn: `fn(vectors, held) -> vectors`, see `maths.robust`.
    """
    self._combine_fn = combine_fn

  def create(self, value_type: tff.Type) -> tff.templates.AggregationProcess:
    """Returns the process for `ClassPrototypes` or a `WeightedValue`."""
    container = _container(value_type)
    collect = collecting.CollectingFactory().create(value_type)
    stacked_type = collect.next.type_signature.result.result.member

    @tff.tensorflow.computation(stacked_type)
    def combine(stacked):
      if container is prototypes.ClassPrototypes:
        held = stacked.weights > 0
        return prototypes.ClassPrototypes(
          self._combine_fn(stacked.vectors, held), _numbers(held)
        )
      held = (stacked.weight > 0)[:, tf.newaxis]
      parts = tf.nest.flatten(stacked.value)
      sizes = [part.shape[1:].num_elements() for part in parts]
      rows = tf.concat(
        [tf.reshape(part, [-1, size]) for part, size in zip(parts, sizes)],
        axis=1,
      )
      (joined,) = tf.unstack(self._combine_fn(rows[:, tf.newaxis], held), num=1)
      joined_parts = [
        tf.reshape(vector, part.shape[1:])
        for vector, part in zip(tf.split(joined, sizes), parts)
      ]
      return weighted_mean.WeightedValue(
        tf.nest.pack_sequence_as(stacked.value, joined_parts),
        _numbers(held)[0],
      )

    return mapped.mapped(collect, of_result=combine)


class NormClippedFactory(tff.aggregators.UnweightedAggregationFactory):
  """Clips norms to a multiple of the round's median norm, and averages.

  The norms are those of each class's prototype, or of a `WeightedValue` as one
  vector. The server sees each client's norms, and the mean of the clipped
  values. The multiple of the median takes the place of the fixed bound in Sun
  et al., "Can You Really Backdoor Federated Learning?", 2019
  (arXiv:1911.07963).

  Measurements: `clipped`, how many vectors were clipped in the round, and
  `mean`, what the inner mean measures.
  """

  def __init__(self, multiple: float = 1.0):
    """Initializes `NormClippedFactory`.

    Args:
      multiple: Largest norm as a multiple of the median, > 0.

    Raises:
      ValueError: If `multiple` is not above 0.
    """
    if not multiple > 0.0:
      raise errors.UserError(f'Expected a multiple > 0, found {multiple}.')
    self._multiple = multiple

  def create(self, value_type: tff.Type) -> tff.templates.AggregationProcess:
    """Returns the process for `ClassPrototypes` or a `WeightedValue`."""
    is_by_class = _container(value_type) is prototypes.ClassPrototypes
    inner: tff.aggregators.UnweightedAggregationFactory
    inner = weighted_mean.WeightedMeanFactory()
    if is_by_class:
      inner = class_mean.ClassMeanFactory()
    mean = inner.create(value_type)

    @tff.tensorflow.computation(value_type)
    def measure(value):
      if is_by_class:
        norms = tf.norm(value.vectors, axis=1)
        return tf.where(value.weights > 0, norms, -tf.ones_like(norms))
      norm = tf.linalg.global_norm(tf.nest.flatten(value.value))
      return tf.where(value.weight > 0, norm, -1.0)[tf.newaxis]

    norms_type = measure.type_signature.result
    collect = collecting.CollectingFactory().create(norms_type)
    stacked_type = collect.next.type_signature.result.result.member

    @tff.tensorflow.computation(stacked_type)
    def bound(norms):
      # Absent ones are negative.
      medians = robust.median(norms[:, :, tf.newaxis], norms >= 0)[:, 0]
      return self._multiple * medians

    bound_type = bound.type_signature.result

    @tff.tensorflow.computation(stacked_type, bound_type)
    def count(norms, bounds):
      return tf.math.count_nonzero(norms > bounds, dtype=tf.int32)

    @tff.tensorflow.computation(value_type, norms_type, bound_type)
    def clip(value, norms, bounds):
      ones = tf.ones_like(norms)
      factors = tf.where(norms > bounds, bounds / norms, ones)
      if is_by_class:
        return value._replace(vectors=value.vectors * factors[:, tf.newaxis])
      return value._replace(
        value=tf.nest.map_structure(lambda part: part * factors[0], value.value)
      )

    @tff.federated_computation(
      mean.initialize.type_signature.result,
      tff.FederatedType(value_type, tff.CLIENTS),
    )
    def next_fn(state, value):
      norms = tff.federated_map(measure, value)
      collected = collect.next(collect.initialize(), norms).result
      bounds = tff.federated_map(bound, collected)
      clipped = tff.federated_map(
        clip, (value, norms, tff.federated_broadcast(bounds))
      )
      output = mean.next(state, clipped)
      return tff.templates.MeasuredProcessOutput(
        output.state,
        output.result,
        tff.federated_zip(
          collections.OrderedDict(
            clipped=tff.federated_map(count, (collected, bounds)),
            mean=output.measurements,
          )
        ),
      )

    return tff.templates.AggregationProcess(mean.initialize, next_fn)


class AnchorScreenedFactory(tff.aggregators.WeightedAggregationFactory):
  """Averages the prototypes that lie near the anchor of their class.

  The created process has the type `(<S@SERVER, {P}@CLIENTS, {A}@CLIENTS> ->
  <state=S, result=P, measurements=M>@SERVER)`, `P` being `ClassPrototypes` and
  `A` the anchors that clients received, float32[num_classes, feature_dim]. See
  `robust.near_own_anchor`. A prototype that is turned away has weight 0.

  Measurements: `turned_away`, how many prototypes of the round, and `mean`,
  what the inner mean measures.
  """

  def __init__(self, radius: float = 1.0):
    """Initializes `AnchorScreenedFactory`.

    Args:
      radius: Largest distance as a multiple of the anchors' gap, > 0.

    Raises:
      ValueError: If `radius` is not above 0.
    """
    if not radius > 0.0:
      raise errors.UserError(f'Expected a radius > 0, found {radius}.')
    self._radius = radius

  def create(
    self, value_type: tff.Type, weight_type: tff.Type
  ) -> tff.templates.AggregationProcess:
    """Returns the process for `ClassPrototypes` and anchors."""
    mean = class_mean.ClassMeanFactory().create(value_type)

    @tff.tensorflow.computation(value_type, weight_type)
    def keep(value, anchors):
      near = robust.near_own_anchor(value.vectors, anchors, self._radius)
      weights = tf.where(near, value.weights, tf.zeros_like(value.weights))
      gone = tf.math.count_nonzero(value.weights > weights, dtype=tf.int32)
      return value._replace(weights=weights), gone

    @tff.federated_computation(
      mean.initialize.type_signature.result,
      tff.FederatedType(value_type, tff.CLIENTS),
      tff.FederatedType(weight_type, tff.CLIENTS),
    )
    def next_fn(state, value, anchors):
      kept, gone = tff.federated_map(keep, (value, anchors))
      output = mean.next(state, kept)
      return tff.templates.MeasuredProcessOutput(
        output.state,
        output.result,
        tff.federated_zip(
          collections.OrderedDict(
            turned_away=tff.federated_sum(gone), mean=output.measurements
          )
        ),
      )

    return tff.templates.AggregationProcess(mean.initialize, next_fn)


class OneTableFactory(tff.aggregators.UnweightedAggregationFactory):
  """Gives servers that collect prototypes one table: the mean of all clients.

  The result of the created process is that of `collecting.CollectingFactory`
  for a single client.
  """

  def __init__(
    self, inner_factory: tff.aggregators.UnweightedAggregationFactory
  ):
    """Initializes `OneTableFactory`.

    Args:
      inner_factory: Takes `ClassPrototypes` and returns their mean.
    """
    self._inner_factory = inner_factory

  def create(self, value_type: tff.Type) -> tff.templates.AggregationProcess:
    """Returns the process for `ClassPrototypes`."""
    inner = self._inner_factory.create(value_type)

    @tff.tensorflow.computation(value_type)
    def stack(value):
      return tf.nest.map_structure(lambda part: part[tf.newaxis], value)

    return mapped.mapped(inner, of_result=stack)


def collector(
  mean_factory: Optional[tff.aggregators.UnweightedAggregationFactory],
) -> tff.aggregators.UnweightedAggregationFactory:
  """Returns the factory for servers that collect prototypes.

  Args:
    mean_factory: See `OneTableFactory`; None for a table of each client.
  """
  if mean_factory is None:
    return collecting.CollectingFactory()
  return OneTableFactory(mean_factory)


def _container(value_type: tff.Type) -> Any:
  """Returns the class of the values of a type.

  Raises:
    TypeError: If it is neither `ClassPrototypes` nor `WeightedValue`.
  """
  container = getattr(value_type, 'python_container', None)
  known = (prototypes.ClassPrototypes, weighted_mean.WeightedValue)
  leaves = tff.structure.flatten(value_type) if container in known else []
  if not leaves or any(leaf.dtype != np.float32 for leaf in leaves):
    raise TypeError(
      'Expected the type of `ClassPrototypes` or of a `WeightedValue` of '
      f'float32 tensors, found {value_type}.'
    )
  return container


def _numbers(held: tf.Tensor) -> tf.Tensor:
  """Returns how many clients have each class, float32[num_classes]."""
  return tf.reduce_sum(tf.cast(held, tf.float32), axis=0)
