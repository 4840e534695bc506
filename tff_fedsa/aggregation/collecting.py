"""Collects every client's update, for servers that train on single updates.

Data flow: client_work.py -> [this module] -> finalizers.py.
"""

import collections
from collections.abc import Sequence
import math
from typing import Any

import tensorflow as tf
import tensorflow_federated as tff

# Rows wait in piles of at most this many, the newest in the first pile. A full
# pile moves to the next one, so each client's row is copied some 20 times
# instead of once for every later client. The last pile has no bound.
_PILES = (8, 64, math.inf)


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
      none = tff.types.structure_from_tensor_type_tree(
        lambda leaf: tf.zeros((0, *leaf.shape), leaf.dtype), value_type
      )
      return (none,) * len(_PILES)

    piles_type = tff.types.to_type((stacked_type,) * len(_PILES))

    @tff.tensorflow.computation(piles_type, value_type)
    def accumulate(piles, value):
      rows = tf.nest.map_structure(lambda row: row[tf.newaxis], value)
      return _pushed(list(piles), rows)

    @tff.tensorflow.computation(piles_type, piles_type)
    def merge(first, second):
      none = tf.nest.map_structure(lambda rows: rows[:0], second[0])
      return (none,) * (len(_PILES) - 1) + (_in_order([*second, *first]),)

    @tff.tensorflow.computation(piles_type)
    def report(piles):
      return _in_order(piles)

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


def _in_order(piles: Sequence[Any]) -> Any:
  """Returns the rows of all piles, the oldest first."""
  return tf.nest.map_structure(
    lambda *parts: tf.concat(parts, axis=0), *reversed(piles)
  )


def _pushed(piles: Sequence[Any], rows: Any, index: int = 0) -> tuple[Any, ...]:
  """Returns the piles from an index on, with newer rows on the first one."""
  joined = _in_order([rows, piles[index]])
  if _PILES[index] == math.inf:
    return (joined,)
  rest = tuple(piles[index + 1 :])
  none = tf.nest.map_structure(lambda part: part[:0], joined)
  count = tf.shape(tf.nest.flatten(joined)[0])[0]
  return tf.cond(
    count < _PILES[index],
    lambda: (joined, *rest),
    lambda: (none, *_pushed(piles, joined, index + 1)),
  )
