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
from tff_fedsa.client import joint_training
from tff_fedsa.client import local_optimizer
from tff_fedsa.client import local_steps
from tff_fedsa.client import local_training
from tff_fedsa.client import objective as objective_lib
from tff_fedsa.data import input_spec as input_spec_lib
from tff_fedsa.execution import joint_calls
from tff_fedsa.maths import finite as finite_lib
from tff_fedsa.maths import prototypes
from tff_fedsa.models import functional
from tff_fedsa.runs import errors
from tff_fedsa.server import server_model

UpdateFn = Callable[[functional.FunctionalModel, local_steps.LocalResult], Any]
MeasureFn = Callable[[local_steps.LocalResult], Mapping[str, tf.Tensor]]
ReceiveFn = Callable[[functional.FunctionalModel, Any, tf.Tensor], tf.Tensor]


class Arguments(NamedTuple):
  """The arguments of client work.

  Attributes:
    round_num: int32 scalar, rounds done before.
    broadcast: What the client receives from the server.
    client_state: The `ClientState` before the round.
    examples: The client's stacked examples, see `examples_type`.
  """

  round_num: Any
  broadcast: Any
  client_state: Any
  examples: Any


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
    if model.input_shape != input_spec.model_shape:
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


def class_prototypes_update_fn(
  weighting: str = 'clients', with_squares: bool = False
) -> UpdateFn:
  """Returns the `update_fn` of clients that send `ClassPrototypes`.

  Args:
    weighting: See `prototypes.upload_weights`.
    with_squares: Whether vectors are float32[num_classes, 2 * feature_dim]: a
      prototype, and then the mean squares of its features.

  Raises:
    ValueError: For an unknown weighting.
  """
  prototypes.check_weighting(weighting)

  def update_fn(unused_model, result):
    vectors = result.prototypes
    if with_squares:
      vectors = tf.concat([vectors, result.class_squares], axis=1)
    return prototypes.ClassPrototypes(
      vectors, prototypes.upload_weights(result.counts, weighting)
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
  branches: list[Callable[..., local_steps.LocalResult]] = [
    local_training.build_local_training(model, *parts)
    if companion is None
    else companion_lib.build_training(model, companion, *parts)
    for model in models
  ]

  joint_branches = (
    _joint_branches(models, receive_fn, update_fn, companion, *parts)
    if config.batch_clients is not None
    else None
  )

  @tf.function(autograph=False)
  def work(round_num, broadcast, state, examples):
    context = objective.context_fn(broadcast, state, round_num)
    structure = None

    def branch(model, train_fn, round_num, broadcast, state, examples, context):
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

    def train(round_num, broadcast, state, context, examples):
      arguments = round_num, broadcast, state, examples, context
      return tf.switch_case(
        state.architecture,
        [
          functools.partial(branch, *pair, *arguments)
          for pair in zip(models, branches)
        ],
      )

    arguments = round_num, broadcast, state, context
    if joint_branches is None:
      outputs = train(*arguments, examples)
    else:
      outputs = _marked(
        train, joint_branches, arguments, examples, config.batch_clients
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


def _joint_branches(models, receive_fn, update_fn, companion, *parts):
  """Returns, per model, the training and the messages of several clients."""

  def branch(model, train_fn):
    def joint(round_nums, broadcast, state, context, examples, num_examples):
      count = num_examples.shape[0]
      weights = state.weights
      if receive_fn is not None:
        weights = joint_training.each(
          count,
          lambda client: receive_fn(
            model, joint_training.at(broadcast, client), weights[client]
          ),
        )
      result = train_fn(
        weights,
        state.optimizer,
        examples,
        context,
        state.seed,
        round_nums,
        *(() if companion is None else (broadcast, state.private)),
        num_examples,
      )
      update = joint_training.each(
        count,
        lambda client: update_fn(model, joint_training.at(result, client)),
      )
      return tf.nest.flatten((result, update))

    return joint

  return [
    branch(
      model,
      joint_training.build_joint_training(model, *parts)
      if companion is None
      else companion_lib.build_joint_training(model, companion, *parts),
    )
    for model in models
  ]


def _marked(train, joint_branches, arguments, examples, num_clients):
  """Returns `train(*arguments, examples)`, in a call marked for joint ones."""
  *_, state, _ = arguments

  def unpack(flat):
    return tf.nest.pack_sequence_as((*arguments, examples), flat)

  def alone(architecture, *flat):
    del architecture  # Also in the state.
    return train(*unpack(flat))

  def joint(architectures, *flat):
    *flat, num_examples = flat
    return tf.switch_case(
      architectures[0],
      [
        functools.partial(branch, *unpack(flat), num_examples)
        for branch in joint_branches
      ],
    )

  return joint_calls.call(
    alone,
    joint,
    [state.architecture, *tf.nest.flatten(arguments)],
    tf.nest.flatten(examples),
    num_clients,
  )


def wrap(
  client_work: tff.Computation,
  fn: Callable[[Callable[[Arguments], ClientOutput], Arguments], Any],
  broadcast_type: Optional[tff.Type] = None,
) -> tff.Computation:
  """Returns client work with something before or after it.

  Both are one TensorFlow computation, so a client still makes one call in a
  round.

  Args:
    client_work: See `build_client_work`.
    fn: `fn(work, arguments) -> output`, in TensorFlow. `work(arguments)` is the
      given client work.
    broadcast_type: Unplaced type of what the result receives from the server.
      Default: that of `client_work`.
  """
  types = client_work.type_signature.parameter
  if broadcast_type is not None:
    types = tff.StructType(
      [
        (name, broadcast_type if name == 'broadcast' else part)
        for name, part in tff.structure.iter_elements(types)
      ]
    )

  def work(arguments):
    return client_work(*arguments)

  @tff.tensorflow.computation(types)
  def wrapped(arguments):
    return fn(work, Arguments(*(arguments[name] for name in Arguments._fields)))

  return wrapped


def _metrics(result, gauges, finite):
  """Returns the `ClientMetrics`. A diverged client counts nowhere else."""
  num_examples = result.num_examples
  values = collections.OrderedDict()
  for name in sorted(result.losses):
    values[name] = result.losses[name]
  for name in sorted(gauges):
    values[name] = gauges[name]
  # All at once: each operation takes time to trace. (Never stack one tensor
  # several times: Grappler may take another output of its operation.)
  weights = tf.where([name in gauges for name in values], 1.0, num_examples)
  sums = tf.stack(list(values.values()))
  counted = tf.logical_and(finite, tf.math.is_finite(sums))
  zero = tf.zeros([])
  return ClientMetrics(
    sums=collections.OrderedDict(
      zip(values, tf.unstack(tf.where(counted, sums, zero)))
    ),
    weights=collections.OrderedDict(
      zip(values, tf.unstack(tf.where(counted, weights, zero)))
    ),
    totals=collections.OrderedDict(
      clients_nonfinite=tf.cast(tf.logical_not(finite), tf.int32),
      clients_trained=tf.cast(
        tf.logical_and(finite, num_examples > 0), tf.int32
      ),
      examples=tf.cast(num_examples, tf.int32),
    ),
  )
