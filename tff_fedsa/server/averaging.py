"""Averages whole models of clients that all have one architecture.

The optional part of a process (`composer.compose_process`) that makes any
method one with a global model; with plain cross-entropy it is FedAvg.

Source: McMahan et al., "Communication-Efficient Learning of Deep Networks from
Decentralized Data", AISTATS 2017 (arXiv:1602.05629).
"""

import collections
from collections.abc import Sequence
import functools
from typing import Any, NamedTuple, Optional

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_fedsa.aggregation import weighted_mean
from tff_fedsa.client import client_state as client_state_lib
from tff_fedsa.maths import prototypes
from tff_fedsa.models import functional
from tff_fedsa.runs import errors


class WeightAveraging(NamedTuple):
  """Averaging of weights at the server.

  Attributes:
    initial_weights: float32[num_weights], with which the first round begins.
    weighting: See `prototypes.upload_weights`.
    aggregator: Averages a `weighted_mean.WeightedValue` of such vectors.
  """

  initial_weights: np.ndarray
  weighting: str
  aggregator: tff.templates.AggregationProcess


class RoundEnds(NamedTuple):
  """Both ends of a round with averaged weights.

  `M` is the server's model of the method, `W` the same with a field `weights`,
  `C` a `ClientState`.

  Attributes:
    initial_model: `( -> W)`.
    begin: `(<W@SERVER, {C}@CLIENTS> -> <M@SERVER, {C}@CLIENTS>)`; clients have
      the averaged weights.
    end: `(<S@SERVER, W@SERVER, M@SERVER, {C}@CLIENTS, {float32}@CLIENTS> ->
      <state=S, result=W, measurements=X>@SERVER)`, of the model before the
      round, the method's after it, what clients trained and on how many
      examples. Where no client trained, the weights stay.
  """

  initial_model: tff.Computation
  begin: tff.Computation
  end: tff.Computation


def build_weight_averaging(
  models: Sequence[functional.FunctionalModel],
  *,
  model_seed: int = 0,
  weighting: str = 'examples',
  aggregator_factory: Optional[
    tff.aggregators.UnweightedAggregationFactory
  ] = None,
) -> WeightAveraging:
  """Returns the part that averages clients' weights after each round.

  All of the flat vector is averaged: of layers with statistics (BatchNorm),
  these as well, as FedAvg's reference implementations do.

  Args:
    models: A single one, the architecture of all clients.
    model_seed: That of `FunctionalModel.initial_weights`.
    weighting: `examples`: a client counts as much as the examples that it
      trained on in the round; `clients`: all count the same.
    aggregator_factory: Takes a `weighted_mean.WeightedValue` and returns the
      mean; by default `weighted_mean.WeightedMeanFactory()`.

  Raises:
    ValueError: If there are several architectures, or for an unknown weighting.
  """
  if len(models) != 1:
    raise errors.UserError(
      'Averaging weights (protocol global, FedAvg, FedProx) needs one '
      f'architecture for all clients, found {len(models)}: '
      f'{", ".join(model.name for model in models)}. Take a family of one.'
    )
  prototypes.check_weighting(weighting)
  (model,) = models
  return WeightAveraging(
    model.initial_weights(model_seed),
    weighting,
    (aggregator_factory or weighted_mean.WeightedMeanFactory()).create(
      tff.types.to_type(
        weighted_mean.WeightedValue(
          tff.TensorType(np.float32, [model.num_weights]),
          tff.TensorType(np.float32),
        )
      )
    ),
  )


def with_weights(model: Any, weights: Any) -> Any:
  """Returns a method's server model with one more field, `weights`.

  Args:
    model: A NamedTuple, or `()`.
    weights: float32[num_weights].

  Raises:
    ValueError: If the model has such a field already.
  """
  fields = getattr(model, '_fields', ())
  if 'weights' in fields:
    raise errors.UserError('The method averages weights already.')
  return _averaged_class(fields)(*model, weights)


@functools.cache
def _averaged_class(fields: tuple[str, ...]) -> Any:
  return collections.namedtuple('AveragedModel', (*fields, 'weights'))


def build_round_ends(
  averaging: WeightAveraging, model: Any, client_state_type: tff.Type
) -> RoundEnds:
  """Returns the steps before and after a method's own part of a round.

  Args:
    averaging: Averaging made by `build_weight_averaging`.
    model: The method's initial server model, a NamedTuple or `()`.
    client_state_type: Unplaced type of a `ClientState`.
  """

  @tff.tensorflow.computation
  def initial_model():
    return tf.nest.map_structure(
      tf.constant, with_weights(model, averaging.initial_weights)
    )

  joined_type = initial_model.type_signature.result
  mean_type = averaging.aggregator.next.type_signature.result.result.member

  @tff.tensorflow.computation(joined_type)
  def take_apart(joined):
    own = [getattr(joined, field) for field in getattr(model, '_fields', ())]
    return type(model)(*own), joined.weights

  @tff.tensorflow.computation(joined_type.weights, client_state_type)
  def receive(weights, state):
    return client_state_lib.ClientState(
      **{**state._asdict(), 'weights': weights}
    )

  @tff.tensorflow.computation(client_state_type, np.float32)
  def weigh(state, num_examples):
    return weighted_mean.WeightedValue(
      tf.ensure_shape(state.weights, averaging.initial_weights.shape),
      prototypes.upload_weights(num_examples, averaging.weighting),
    )

  model_type = take_apart.type_signature.result[0]

  @tff.tensorflow.computation(joined_type, model_type, mean_type)
  def put_together(before, new_model, mean):
    return with_weights(
      new_model, tf.where(mean.weight > 0, mean.value, before.weights)
    )

  @tff.federated_computation(
    tff.FederatedType(joined_type, tff.SERVER),
    tff.FederatedType(client_state_type, tff.CLIENTS),
  )
  def begin(joined, client_states):
    own, weights = tff.federated_map(take_apart, joined)
    return own, tff.federated_map(
      receive, (tff.federated_broadcast(weights), client_states)
    )

  @tff.federated_computation(
    averaging.aggregator.initialize.type_signature.result,
    tff.FederatedType(joined_type, tff.SERVER),
    tff.FederatedType(model_type, tff.SERVER),
    tff.FederatedType(client_state_type, tff.CLIENTS),
    tff.FederatedType(np.float32, tff.CLIENTS),
  )
  def end(state, before, new_model, client_states, num_examples):
    mean = averaging.aggregator.next(
      state, tff.federated_map(weigh, (client_states, num_examples))
    )
    return tff.templates.MeasuredProcessOutput(
      mean.state,
      tff.federated_map(put_together, (before, new_model, mean.result)),
      mean.measurements,
    )

  return RoundEnds(initial_model, begin, end)
