"""Averages weights of clients in tiers: one mean per architecture.

This is an optional part of a process (`composer.compose_process`), for any
method: clients begin a round with averaged weights. With the cross-entropy
alone and whole models it is FedAvg in each tier. With extractors it is FedPer.
Statistics that stay with clients are the idea of SiloBN.

Sources: McMahan et al., "Communication-Efficient Learning of Deep Networks from
Decentralized Data", AISTATS 2017 (arXiv:1602.05629). Arivazhagan et al.,
"Federated Learning with Personalization Layers", 2019 (arXiv:1912.00818).
Andreux et al., "Siloed Federated Learning for Multi-Centric Histopathology
Datasets", 2020 (arXiv:2008.07424).
"""

import collections
from collections.abc import Callable, Sequence
import functools
from typing import Any, NamedTuple, Optional

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_fedsa.aggregation import tier_mean
from tff_fedsa.aggregation import weighted_mean
from tff_fedsa.maths import prototypes
from tff_fedsa.models import functional
from tff_fedsa.models import tiers as tiers_lib
from tff_fedsa.runs import errors


class WeightAveraging(NamedTuple):
  """Averaging of weights at the server.

  Attributes:
    tiers: The shared weights of each architecture.
    initial_weights: float32[tiers.num_weights], the shared weights of the first
      round.
    weighting: See `prototypes.upload_weights`.
    aggregator: Averages `tier_mean.TierValue`s. Your own aggregator averages
      `weighted_mean.WeightedValue`s.
    sends_all: Whether a client sends a vector with room for all tiers.
  """

  tiers: tiers_lib.Tiers
  initial_weights: np.ndarray
  weighting: str
  aggregator: tff.templates.AggregationProcess
  sends_all: bool = False

  @property
  def update_type(self) -> tff.Type:
    """Unplaced type of a client's message. The server knows its tier."""
    if self.sends_all:
      return self.aggregator.next.type_signature.result.result.member
    return tff.types.to_type(
      weighted_mean.WeightedValue(
        self.tiers.message_type, tff.TensorType(np.float32)
      )
    )


class RoundEnds(NamedTuple):
  """The first and the last step of a round with averaged weights.

  `M` is the server's model of the method. `W` is the same model with a field
  `weights`.

  Attributes:
    initial_model: `( -> W)`.
    take_apart: `(W -> <M, weights>)`.
    train: `fn(work, arguments)` for `client_work.wrap`: the client begins with
      the shared weights. It receives `<B, weights>`, where `B` is what the
      method's client work receives.
    weigh: `fn(output)` returns the message of a client with this
      `ClientOutput`, in TensorFlow.
    end: `(<S@SERVER, W@SERVER, M@SERVER, {V}@CLIENTS> -> <state=S, result=W,
      measurements=X>@SERVER)`, with the model before the round, the method's
      model after it, and the messages. If no client of a tier trained, the
      weights of the tier stay.
  """

  initial_model: tff.Computation
  take_apart: tff.Computation
  train: Callable[[Any, Any], Any]
  weigh: Callable[[Any], weighted_mean.WeightedValue]
  end: tff.Computation


def build_weight_averaging(
  models: Sequence[functional.FunctionalModel],
  *,
  tiers: Optional[tiers_lib.Tiers] = None,
  model_seed: int = 0,
  weighting: str = 'examples',
  aggregator_factory: Optional[
    tff.aggregators.UnweightedAggregationFactory
  ] = None,
) -> WeightAveraging:
  """Returns the part that averages clients' weights after each round.

  The mean of a tier is over its participants. A tier without participants keeps
  its weights.

  Args:
    models: One per architecture.
    tiers: The shared weights. Default: all weights, with the statistics of
      BatchNorm, as in FedAvg's reference implementations.
    model_seed: Seed of `FunctionalModel.initial_weights`.
    weighting: Weight of a client: its training examples of the round
      (`examples`), or 1 (`clients`).
    aggregator_factory: Takes a `weighted_mean.WeightedValue` and returns the
      mean, for clients of one architecture. Default:
      `tier_mean.TierMeanFactory`.

  Raises:
    ValueError: If there are several architectures and your own factory, or the
      weighting is unknown.
  """
  prototypes.check_weighting(weighting)
  tiers = tiers or tiers_lib.Tiers(models)
  weight_type = tff.TensorType(np.float32)
  value: Any = weighted_mean.WeightedValue(tiers.message_type, weight_type)
  if aggregator_factory is None:
    aggregator_factory = tier_mean.TierMeanFactory(tiers.sizes)
    value = tier_mean.TierValue(tff.TensorType(np.int32), *value)
  elif len(models) > 1:
    raise errors.UserError(
      'An aggregation of weights of your own needs one architecture for all '
      f'clients, found {len(models)}: {", ".join(tiers.names)}. Take a family '
      'of one, or leave out the aggregation.'
    )
  return WeightAveraging(
    tiers,
    tiers.initial_weights(model_seed),
    weighting,
    aggregator_factory.create(tff.types.to_type(value)),
  )


def with_weights(model: Any, weights: Any) -> Any:
  """Returns a method's server model with one more field, `weights`.

  Args:
    model: A NamedTuple, or `()`.
    weights: float32[tiers.num_weights].

  Raises:
    ValueError: If the model already has this field.
  """
  fields = getattr(model, '_fields', ())
  if 'weights' in fields:
    raise errors.UserError('The method averages weights already.')
  return _averaged_class(fields)(*model, weights)


@functools.cache
def _averaged_class(fields: tuple[str, ...]) -> Any:
  return collections.namedtuple('AveragedModel', (*fields, 'weights'))


def build_round_ends(averaging: WeightAveraging, model: Any) -> RoundEnds:
  """Returns the steps before and after the method's part of a round.

  Args:
    averaging: Result of `build_weight_averaging`.
    model: The method's initial server model, a NamedTuple or `()`.
  """

  @tff.tensorflow.computation
  def initial_model():
    return tf.nest.map_structure(
      tf.constant, with_weights(model, averaging.initial_weights)
    )

  tiers, aggregator = averaging.tiers, averaging.aggregator
  joined_type = initial_model.type_signature.result
  value_type = aggregator.next.type_signature.parameter[1].member
  mean_type = aggregator.next.type_signature.result.result.member

  @tff.tensorflow.computation(joined_type)
  def take_apart(joined):
    own = [getattr(joined, field) for field in getattr(model, '_fields', ())]
    return type(model)(*own), joined.weights

  def train(work, arguments):
    own, weights = arguments.broadcast
    before = arguments.client_state
    received = tff.structure.update_struct(
      before, weights=tiers.received(before, weights)
    )
    output = work(arguments._replace(broadcast=own, client_state=received))
    if tiers.mixing == 1.0:
      return output
    # Received weights are no result of training: a client that diverges in
    # every round would lose its own weights.
    diverged = output.metrics.totals['clients_nonfinite'] > 0
    after = output.client_state
    kept = tf.where(diverged, before.weights, after.weights)
    return output._replace(
      client_state=tff.structure.update_struct(after, weights=kept)
    )

  def weigh(output):
    state = output.client_state
    value = weighted_mean.WeightedValue(
      tiers.sent(state.architecture, state.weights),
      prototypes.upload_weights(output.num_examples, averaging.weighting),
    )
    if not tff.structure.has_field(value_type, 'tier'):
      return value
    return tier_mean.TierValue(state.architecture, *value)

  model_type = take_apart.type_signature.result[0]

  @tff.tensorflow.computation(joined_type, model_type, mean_type)
  def put_together(before, new_model, mean):
    weights = tf.unstack(tf.reshape(mean.weight, [len(tiers.sizes)]))
    # A tuple, or one vector of an aggregator of your own.
    means = tf.nest.flatten(mean.value)
    shared = tiers.replaced(before.weights, means, [w > 0 for w in weights])
    return with_weights(new_model, shared)

  @tff.federated_computation(
    aggregator.initialize.type_signature.result,
    tff.FederatedType(joined_type, tff.SERVER),
    tff.FederatedType(model_type, tff.SERVER),
    averaging.aggregator.next.type_signature.parameter[1],
  )
  def end(state, before, new_model, sent):
    mean = aggregator.next(state, sent)
    return tff.templates.MeasuredProcessOutput(
      mean.state,
      tff.federated_map(put_together, (before, new_model, mean.result)),
      mean.measurements,
    )

  return RoundEnds(initial_model, take_apart, train, weigh, end)
