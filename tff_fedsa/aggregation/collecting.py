"""Collects every client's update, for servers that train on single updates.

Data flow: client_work.py -> [this module] -> finalizers.py.
"""

import collections

import tensorflow as tf
import tensorflow_federated as tff


class CollectingFactory(tff.aggregators.UnweightedAggregationFactory):
  """Stacks the values of all clients of a round.

  The created process has the type
  `(<<>@SERVER, {V}@CLIENTS> -> <state=<>, result=R, measurements=<>>@SERVER)`,
  `R` being the structure of `V`, each tensor with a first dimension more, of
  unknown size: the clients of the round.

  The server sees the value of each client, so no secure summation can hide it:
  only for methods that need the values and not their mean.
  """

  def create(self, value_type: tff.Type) -> tff.templates.AggregationProcess:
    """Returns the process for a structure of tensors with static shapes."""
    stacked_type = tff.types.to_type(
      tff.types.structure_from_tensor_type_tree(
        lambda leaf: tff.TensorType(leaf.dtype, (None, *leaf.shape)), value_type
      )
    )

    @tff.tensorflow.computation
    def zero():
      return tff.types.structure_from_tensor_type_tree(
        lambda leaf: tf.zeros((0, *leaf.shape), leaf.dtype), value_type
      )

    @tff.tensorflow.computation(stacked_type, value_type)
    def accumulate(stacked, value):
      return tf.nest.map_structure(
        lambda rows, row: tf.concat([rows, row[tf.newaxis]], axis=0),
        stacked,
        value,
      )

    @tff.tensorflow.computation(stacked_type, stacked_type)
    def merge(first, second):
      return tf.nest.map_structure(
        lambda *parts: tf.concat(parts, axis=0), first, second
      )

    @tff.tensorflow.computation(stacked_type)
    def report(stacked):
      return stacked

    @tff.federated_computation
    def initialize_fn():
      return tff.federated_value((), tff.SERVER)

    @tff.federated_computation(
      initialize_fn.type_signature.result,
      tff.FederatedType(value_type, tff.CLIENTS),
    )
    def next_fn(state, value):
      return tff.templates.MeasuredProcessOutput(
        state=state,
        result=tff.federated_aggregate(
          value, zero(), accumulate, merge, report
        ),
        measurements=tff.federated_value(collections.OrderedDict(), tff.SERVER),
      )

    return tff.templates.AggregationProcess(initialize_fn, next_fn)
