"""Client work: local training of any architecture as one TFF computation."""

import collections
from collections.abc import Callable, Mapping, Sequence
import functools
from typing import Any, NamedTuple, Optional

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_fedsa.client import client_state as client_state_lib
from tff_fedsa.client import companion as companion_lib
from tff_fedsa.client import local_optimizer
from tff_fedsa.client import local_training
from tff_fedsa.client import objective as objective_lib
from tff_fedsa.data import input_spec as input_spec_lib
from tff_fedsa.maths import finite as finite_lib
from tff_fedsa.maths import prototypes
from tff_fedsa.models import functional
from tff_fedsa.runs import errors
from tff_fedsa.server import server_model

# Arguments of client work.
ARGUMENTS = ('round_num', 'broadcast', 'client_state', 'examples')

UpdateFn = Callable[
  [functional.FunctionalModel, local_training.LocalResult], Any
]
MeasureFn = Callable[[local_training.LocalResult], Mapping[str, tf.Tensor]]
ReceiveFn = Callable[[functional.FunctionalModel, Any, tf.Tensor], tf.Tensor]


class ClientMetrics(NamedTuple):
  """A client's contribution to the metrics of a round.

  Attributes:
    sums: Dict of float32 scalars. The metric of the round is the sum of `sums`
      over clients, divided by the sum of `weights`.
    weights: Dict of float32 scalars with the same names.
    totals: Dict of int32 scalars. The metric is the sum over clients.
  """

  sums: Any
  weights: Any
  totals: Any


class ClientOutput(NamedTuple):
  """Result of a client's round.

  Attributes:
    client_state: The `ClientState` after the round.
    update: The message to the server. Its aggregation sees nothing else.
    num_examples: float32 scalar, training examples of all epochs, or 0 if
      training diverged. The client's weight if weights are averaged.
    metrics: `ClientMetrics`.
  """

  client_state: Any
  update: Any
  num_examples: Any
  metrics: Any


def examples_type(input_spec: input_spec_lib.InputSpec) -> tff.Type:
  """Returns the (unplaced) TFF type of a client's stacked examples.

  The type is `<x=D[?, …], y=int32[?]>`. `D` is the dtype
  of stored inputs.
  """
  return tff.types.to_type(
    collections.OrderedDict(
      x=tff.TensorType(
        np.dtype(input_spec.dtype).type, (None, *input_spec.shape)
      ),
      y=tff.TensorType(np.int32, (None,)),
    )
  )


def check_models(
  models: Sequence[functional.FunctionalModel],
  input_spec: input_spec_lib.InputSpec,
) -> tuple[int, int]:
  """Returns `(num_classes, feature_dim)` that all models share.

  Raises:
    ValueError: If there is no model, or if models differ in classes, feature
      dimension or shape of the input.
  """
  if not models:
    raise errors.UserError('Expected at least one model, found none.')
  for attribute in ('num_classes', 'feature_dim'):
    values = [getattr(model, attribute) for model in models]
    if len(set(values)) > 1:
      names = [model.name for model in models]
      raise errors.UserError(
        f'All client models must have the same {attribute}, found {values} for '
        f'{names}. Pool features to a common size with '
        '`pooling.adaptive_average_pooling`.'
      )
  for model in models:
    if tuple(model.input_shape) != tuple(input_spec.model_shape):
      raise errors.UserError(
        f'The model {model.name!r} takes inputs of shape {model.input_shape}, '
        f'but the data gives {input_spec.model_shape}. Build the family with '
        '`input_spec.model_shape` or resize in the input spec.'
      )
  return models[0].num_classes, models[0].feature_dim


def check_heads(
  models: Sequence[functional.FunctionalModel],
) -> list[tf.TensorSpec]:
  """Returns the `head_specs` of all models, for methods with one head.

  Raises:
    ValueError: If the heads of two models differ in the shapes of weights.
  """
  first = models[0]
  for model in models[1:]:
    if model.head_specs != first.head_specs:
      shapes = [[tuple(s.shape) for s in m.head_specs] for m in (first, model)]
      raise errors.UserError(
        'A method with a head for all needs the same head in all models, found '
        f'weights of shapes {shapes[0]} in {first.name!r} and {shapes[1]} in '
        f'{model.name!r}.'
      )
  return first.head_specs


def class_prototypes_update_fn(weighting: str = 'clients') -> UpdateFn:
  """Returns the `update_fn` of clients that send `ClassPrototypes`.

  Args:
    weighting: See `prototypes.upload_weights`.

  Raises:
    ValueError: For an unknown weighting.
  """
  prototypes.check_weighting(weighting)

  def update_fn(unused_model, result):
    return prototypes.ClassPrototypes(
      result.prototypes, prototypes.upload_weights(result.counts, weighting)
    )

  return update_fn


def receive_head(
  model: functional.FunctionalModel,
  broadcast: server_model.HeadModel,
  weights: tf.Tensor,
) -> tf.Tensor:
  """The `receive_fn` of clients that begin a round with the server's head."""
  return model.with_head(weights, broadcast.head)


def build_client_work(
  models: Sequence[functional.FunctionalModel],
  objective: objective_lib.ClientObjective,
  broadcast_type: tff.Type,
  *,
  update_fn: UpdateFn,
  receive_fn: Optional[ReceiveFn] = None,
  companion: Optional[companion_lib.Companion] = None,
  measure_fn: MeasureFn = lambda _: {},
  optimizer: local_optimizer.LocalOptimizer,
  input_spec: input_spec_lib.InputSpec,
  config: local_training.LocalTrainingConfig,
) -> tff.Computation:
  """Returns the computation that a client executes in a round.

  Its type is
  `(<round_num=int32, broadcast=B, client_state=S, examples=E> ->
  <client_state=S, update=U, num_examples=float32, metrics=M>)`, where `S` is
  `client_state.client_state_type`, `E` is `examples_type`, `U` is the type of
  `update_fn`'s result, and `M` is a `ClientMetrics`. Every architecture is one
  branch of a `tf.switch_case`.

  If a client's training diverges, the client keeps its state from before the
  round. It sends zeros, so its weight in any mean is zero. The metric
  `clients_nonfinite` counts it.

  Args:
    models: One model per architecture, in the order of
      `ClientState.architecture`.
    objective: Objective of a client.
    broadcast_type: Unplaced type of the server's message.
    update_fn: `fn(model, result) -> update`, the client's message after
      training. `result` is a `LocalResult`. The type is the same for all
      models.
    receive_fn: `fn(model, broadcast, weights) -> weights`, the flat vector with
      which training starts. Default: the client's own weights.
    companion: A shared model that clients train beside their own.
    measure_fn: `fn(result) -> dict` of float32 scalars. They are averaged over
      clients and reported like the gauges of the objective.
    optimizer: Updates the trainable weights.
    input_spec: Specification of the examples' inputs.
    config: Batches, epochs and kind of prototypes.

  Raises:
    ValueError: If the models disagree (see `check_models`).
  """
  num_classes, feature_dim = check_models(models, input_spec)
  parts = objective, optimizer, input_spec, config
  branches: list[Callable[..., local_training.LocalResult]] = [
    local_training.build_local_training(model, *parts)
    if companion is None
    else companion_lib.build_training(model, companion, *parts)
    for model in models
  ]

  @tf.function(autograph=False)
  def work(round_num, broadcast, state, examples):
    context = objective.context_fn(broadcast, state, round_num)
    structure = None

    def branch(model, train_fn):
      nonlocal structure
      weights = state.weights
      if receive_fn is not None:
        weights = receive_fn(model, broadcast, weights)
      result = train_fn(
        weights,
        state.optimizer,
        examples,
        context,
        state.seed,
        round_num,
        *(() if companion is None else (broadcast, state.private)),
      )
      structure = result, update_fn(model, result)
      return tf.nest.flatten(structure)

    outputs = tf.switch_case(
      state.architecture,
      [functools.partial(branch, *pair) for pair in zip(models, branches)],
    )
    result, update = tf.nest.pack_sequence_as(structure, outputs)
    finite = finite_lib.all_finite(result)
    trained = state._replace(
      weights=result.weights,
      optimizer=result.optimizer,
      prototypes=result.prototypes,
      counts=result.counts,
    )
    if companion is not None:
      trained = trained._replace(private=result.private)
    nothing = tf.nest.map_structure(tf.zeros_like, update)
    # One condition for all, because each one takes time to trace and compile.
    new_state, update = finite_lib.choose(
      finite, (trained, update), (state, nothing)
    )
    gauges = {**objective.gauges_fn(broadcast, state), **measure_fn(result)}
    return ClientOutput(
      new_state,
      update,
      tf.where(finite, result.num_examples, 0.0),
      _metrics(result, gauges, finite),
    )

  client_work = tff.tensorflow.computation(
    lambda round_num, broadcast, client_state, examples: work(
      round_num, broadcast, client_state, examples
    ),
    (
      tff.TensorType(np.int32),
      broadcast_type,
      client_state_lib.client_state_type(num_classes, feature_dim),
      examples_type(input_spec),
    ),
  )
  return client_work


def _metrics(result, gauges, finite):
  """Returns the `ClientMetrics`. A diverged client counts nowhere else."""
  pairs = collections.OrderedDict()
  for name in sorted(result.losses):
    pairs[name] = (result.losses[name], result.num_examples)
  for name in sorted(gauges):
    pairs[name] = (gauges[name], tf.ones([]))
  kept = collections.OrderedDict()
  for name, (value, weight) in pairs.items():
    counted = tf.logical_and(finite, tf.math.is_finite(value))
    zero = tf.zeros([])
    kept[name] = (
      tf.where(counted, value, zero),
      tf.where(counted, weight, zero),
    )
  return ClientMetrics(
    sums=collections.OrderedDict((n, v) for n, (v, _) in kept.items()),
    weights=collections.OrderedDict((n, w) for n, (_, w) in kept.items()),
    totals=collections.OrderedDict(
      clients_nonfinite=tf.cast(tf.logical_not(finite), tf.int32),
      clients_trained=tf.cast(
        tf.logical_and(finite, result.num_examples > 0), tf.int32
      ),
      examples=tf.cast(result.num_examples, tf.int32),
    ),
  )
