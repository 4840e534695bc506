"""A shared model that clients receive, train beside their own, and send.

Data flow: server -> `receive_fn` -> steps of both models -> `send_fn` ->
aggregation.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Optional

import tensorflow as tf

from tff_fedsa.client import joint_training
from tff_fedsa.client import local_optimizer
from tff_fedsa.client import local_steps
from tff_fedsa.client import local_training
from tff_fedsa.client import objective as objective_lib
from tff_fedsa.data import input_spec as input_spec_lib
from tff_fedsa.models import families
from tff_fedsa.models import functional
from tff_fedsa.models import pairs
from tff_fedsa.runs import errors


class Companion(NamedTuple):
  """A model that clients train beside their own, in the same steps.

  Attributes:
    model: The shared model, with its own Keras layers.
    receive_fn: `fn(broadcast) -> float32[model.num_weights]`, the weights of
      the shared model at the beginning of a round.
    send_fn: `fn(broadcast, weights) -> structure` of tensors, which becomes
      `LocalResult.companion`. `weights` are those after training.
    optimizer: Optimizer of the shared model, reset in every round. Default: the
      client's optimizer.
    clip_norm: Largest norm of the gradient of either model, and of the private
      tensors, in a step. None turns clipping off.
    private_specs: Specifications of further trained tensors that stay with the
      client (`ClientState.private`).
    initial_private_fn: `fn() -> list` of the initial private tensors.
  """

  model: functional.FunctionalModel
  receive_fn: Callable[[Any], tf.Tensor]
  send_fn: Callable[[Any, tf.Tensor], Any] = lambda broadcast, weights: weights
  optimizer: Optional[local_optimizer.LocalOptimizer] = None
  clip_norm: Optional[float] = None
  private_specs: Sequence[tf.TensorSpec] = ()
  initial_private_fn: Callable[[], Sequence[tf.Tensor]] = lambda: []


def choose_model(
  models: Sequence[functional.FunctionalModel],
  shared_model: functional.FunctionalModel | str | None,
  input_spec: input_spec_lib.InputSpec,
) -> functional.FunctionalModel:
  """Returns the shared model, with its own Keras layers.

  Args:
    models: Models of the clients.
    shared_model: A model, the name of a registered architecture, or None for
      the architecture of the clients that has the fewest weights.
    input_spec: Specification of the clients' inputs.

  Raises:
    ValueError: If `shared_model` names several architectures, or does not fit
      the clients' models.
  """
  first = models[0]
  if shared_model is None:
    return min(models, key=lambda model: model.num_weights).copy()
  if isinstance(shared_model, str):
    members = families.build_family(
      shared_model,
      input_spec.model_shape,
      first.num_classes,
      first.feature_dim,
      vocabulary_size=input_spec.vocabulary_size,
      masked=input_spec.masked,
    )
    if len(members) != 1:
      raise errors.UserError(
        'Expected a shared model of one architecture, found '
        f'{shared_model!r}, which is {[model.name for model in members]}.'
      )
    return members[0]
  for name in ('input_shape', 'num_classes', 'feature_dim'):
    found, expected = getattr(shared_model, name), getattr(first, name)
    if found != expected:
      raise errors.UserError(
        f"Expected a shared model with the clients' {name} = {expected}, found "
        f'{found} in {shared_model.name!r}.'
      )
  return shared_model.copy()


def check_clip_norm(clip_norm: Optional[float]) -> None:
  """Raises a ValueError unless the norm is None or positive."""
  if clip_norm is not None and not 0.0 < clip_norm < float('inf'):
    raise errors.UserError(
      f'Expected a clip norm > 0, or None for no clipping, found {clip_norm}.'
    )


def build_training(
  model: functional.FunctionalModel,
  companion: Companion,
  objective: objective_lib.ClientObjective,
  optimizer: local_optimizer.LocalOptimizer,
  input_spec: input_spec_lib.InputSpec,
  config: local_training.LocalTrainingConfig,
) -> Callable[..., local_steps.LocalResult]:
  """Returns local training of a client's model and its companion.

  Args:
    model: The client's model.
    companion: The companion of the client's model.
    objective: Objective of a step. `pairs.ModelPair.build_train_step` describes
      its inputs and results.
    optimizer: Optimizer of the client's model and the private tensors.
    input_spec: Specification of the examples' inputs.
    config: Batches, epochs and kind of prototypes.

  Returns:
    A function like that of `local_training.build_local_training`, with two more
    arguments: the server's `broadcast`, and `private` float32[?], empty before
    the first round. Its result has `companion` and `private`.
  """
  pair, train = _build_pair(
    model,
    companion,
    local_training.build_local_training,
    objective,
    optimizer,
    input_spec,
    config,
  )

  def train_both(
    weights,
    optimizer_vector,
    examples,
    context,
    seed,
    round_num,
    broadcast,
    private,
  ):
    result = train(
      _all_weights(companion, weights, broadcast, private),
      optimizer_vector,
      examples,
      context,
      seed,
      round_num,
    )
    return _parted(pair, companion, broadcast, result)

  return train_both


def build_joint_training(
  model: functional.FunctionalModel,
  companion: Companion,
  objective: objective_lib.ClientObjective,
  optimizer: local_optimizer.LocalOptimizer,
  input_spec: input_spec_lib.InputSpec,
  config: local_training.LocalTrainingConfig,
) -> Callable[..., local_steps.LocalResult]:
  """Returns the training of `config.batch_clients` clients and companions.

  Args:
    model: The clients' model.
    companion: See `build_training`.
    objective: See there.
    optimizer: See there.
    input_spec: See there.
    config: See there.

  Returns:
    A function like that of `joint_training.build_joint_training`, with the
    arguments of that of `build_training`, stacked, and then `num_examples`.
  """
  pair, train = _build_pair(
    model,
    companion,
    joint_training.build_joint_training,
    objective,
    optimizer,
    input_spec,
    config,
  )
  count = config.batch_clients

  def train_both(
    weights,
    optimizer_vectors,
    examples,
    context,
    seeds,
    round_nums,
    broadcast,
    private,
    num_examples,
  ):
    at = joint_training.at
    result = train(
      joint_training.each(
        count,
        lambda i: _all_weights(
          companion, weights[i], at(broadcast, i), private[i]
        ),
      ),
      optimizer_vectors,
      examples,
      context,
      seeds,
      round_nums,
      num_examples,
    )
    return joint_training.each(
      count,
      lambda i: _parted(pair, companion, at(broadcast, i), at(result, i)),
    )

  return train_both


def _build_pair(model, companion, build, objective, optimizer, *parts):
  """Returns both models as one, and the training that `build` makes of it."""
  check_clip_norm(companion.clip_norm)
  pair = pairs.ModelPair(model, companion.model, companion.private_specs)
  optimizers = [
    optimizer,
    (companion.optimizer or optimizer).restarted(),
    optimizer.restarted(),
  ]
  train = build(
    pair,
    objective,
    local_optimizer.GroupedOptimizer(
      [one.clipped(companion.clip_norm) for one in optimizers],
      pair.group_sizes,
    ),
    *parts,
  )
  return pair, train


def _all_weights(companion, weights, broadcast, private):
  """Returns the flat vector of both models and the private tensors."""
  if companion.private_specs:
    private = tf.cond(
      tf.size(private) > 0,
      lambda: private,
      lambda: tf.concat(
        [tf.reshape(t, [-1]) for t in companion.initial_private_fn()], axis=0
      ),
    )
  else:
    private = tf.zeros([0])
  return tf.concat([weights, companion.receive_fn(broadcast), private], axis=0)


def _parted(pair, companion, broadcast, result):
  """Returns the client's part of a result of both, and its message."""
  own, shared, private = pair.parts(result.weights)
  return result._replace(
    weights=own,
    companion=companion.send_fn(broadcast, shared),
    private=private,
  )
