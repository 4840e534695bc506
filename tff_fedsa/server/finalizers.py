"""Updates the server's model with the aggregate of a round."""

import collections
from collections.abc import Callable
import functools
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_fedsa.maths import anchors
from tff_fedsa.maths import finite as finite_lib
from tff_fedsa.maths import hyper_prototypes
from tff_fedsa.maths import prototypes
from tff_fedsa.maths import virtual_features
from tff_fedsa.runs import errors
from tff_fedsa.server import server_model

# Features of a class from which the server estimates a mean gradient.
_MATCHING_DRAWS = 64


def build_finalizer(
  model_type: tff.Type,
  update_type: tff.Type,
  finalize_fn: Callable[[Any, Any], Any],
) -> tff.learning.templates.FinalizerProcess:
  """Returns a finalizer process without state.

  Its `next` has the type `(<<>@SERVER, M@SERVER, U@SERVER> -> <state=<>,
  result=M, measurements=D>@SERVER)`. If a value of the new model is not finite
  or exceeds `finite.LARGEST`, the model from before the round stays. So a
  broken client costs one round, not the run. D holds int32 `server_nonfinite`,
  1 if that happened. (The references continue with values that are not finite.)

  Args:
    model_type: Unplaced type of the server's model, M.
    update_type: Unplaced type of the aggregate of the round, U.
    finalize_fn: `fn(model, update) -> model`, in TensorFlow.
  """

  @tff.tensorflow.computation(model_type, update_type)
  def finalize(model, update):
    updated = finalize_fn(model, update)
    usable = finite_lib.all_usable(updated)
    return finite_lib.choose(usable, updated, model), _left_out(usable)

  @tff.federated_computation
  def initialize_fn():
    return tff.federated_value((), tff.SERVER)

  @tff.federated_computation(
    initialize_fn.type_signature.result,
    tff.FederatedType(model_type, tff.SERVER),
    tff.FederatedType(update_type, tff.SERVER),
  )
  def next_fn(state, model, update):
    model, measurements = tff.federated_map(finalize, (model, update))
    return tff.templates.MeasuredProcessOutput(state, model, measurements)

  return tff.learning.templates.FinalizerProcess(initialize_fn, next_fn)


def build_training_finalizer(
  model_type: tff.Type,
  update_type: tff.Type,
  train_fn: Callable[[Any, Any, tf.Tensor], tuple[Any, Any]],
  *,
  seed: int = 0,
) -> tff.learning.templates.FinalizerProcess:
  """Returns a finalizer process that trains at the server.

  Its `next` has the type `(<int32@SERVER, M@SERVER, U@SERVER> ->
  <state=int32, result=M, measurements=D>@SERVER)`. The state counts rounds. If
  the trained model is not finite, the model from before the round stays. (The
  references continue with values that are not finite.)

  Args:
    model_type: Unplaced type of the server's model, M.
    update_type: Unplaced type of the aggregate of the round, U.
    train_fn: `fn(model, update, seed) -> (model, measurements)`, in TensorFlow.
      The seed, int32[2], differs in each round. The measurements are a dict of
      scalars. D holds them and int32 `server_nonfinite`, 1 if training was left
      out.
    seed: Seed of all draws in training.
  """

  @tff.tensorflow.computation
  def initial_state():
    return tf.constant(0)

  @tff.tensorflow.computation(np.int32, model_type, update_type)
  def finalize(num_rounds, model, update):
    trained, measurements = train_fn(
      model, update, tf.stack([seed, num_rounds])
    )
    finite = finite_lib.all_finite(trained)
    measurements = collections.OrderedDict(measurements, **_left_out(finite))
    return (
      num_rounds + 1,
      finite_lib.choose(finite, trained, model),
      measurements,
    )

  @tff.federated_computation
  def initialize_fn():
    return tff.federated_eval(initial_state, tff.SERVER)

  @tff.federated_computation(
    initialize_fn.type_signature.result,
    tff.FederatedType(model_type, tff.SERVER),
    tff.FederatedType(update_type, tff.SERVER),
  )
  def next_fn(state, model, update):
    state, model, measurements = tff.federated_map(
      finalize, (state, model, update)
    )
    return tff.templates.MeasuredProcessOutput(state, model, measurements)

  return tff.learning.templates.FinalizerProcess(initialize_fn, next_fn)


def _left_out(usable: tf.Tensor) -> collections.OrderedDict[str, tf.Tensor]:
  return collections.OrderedDict(
    server_nonfinite=tf.cast(tf.logical_not(usable), tf.int32)
  )


def known_classes(
  update: prototypes.ClassPrototypes,
  known: tf.Tensor,
  present: tf.Tensor,
  keep_missing: bool,
) -> tuple[tf.Tensor, tf.Tensor]:
  """Returns the global vectors of classes after a round, and their presence.

  Args:
    update: Aggregate of the round.
    known: float32[num_classes, dim], the vectors before the round.
    present: bool[num_classes], whether a class had a vector before the round.
    keep_missing: Whether a class that no client sent keeps its last vector. The
      reference forgets it (False), so the class cannot be predicted in that
      round.
  """
  sent = update.weights > 0
  if not keep_missing:
    return update.vectors, sent
  vectors = tf.where(sent[:, tf.newaxis], update.vectors, known)
  return vectors, tf.logical_or(sent, present)


@functools.lru_cache
def build_prototype_finalizer(
  num_classes: int, feature_dim: int, *, keep_missing: bool = True
) -> tff.learning.templates.FinalizerProcess:
  """Returns the process that replaces global prototypes.

  See `build_finalizer`. The model is a `server_model.PrototypeModel`.

  Args:
    num_classes: C.
    feature_dim: D.
    keep_missing: See `known_classes`.
  """

  def finalize_fn(model, update):
    return server_model.PrototypeModel(
      *known_classes(update, model.prototypes, model.present, keep_missing)
    )

  return build_finalizer(
    server_model.prototype_model_type(num_classes, feature_dim),
    prototypes.prototypes_type(num_classes, feature_dim),
    finalize_fn,
  )


@functools.lru_cache
def build_anchor_finalizer(
  num_classes: int,
  feature_dim: int,
  *,
  decay: float = 0.9999,
  evidence: float = 0.0,
  orthogonality: float = 0.0,
  matching: int = 0,
  matching_rate: float = 10.0,
  keep_missing: bool = True,
  with_squares: bool = False,
) -> tff.learning.templates.FinalizerProcess:
  """Returns the process that updates anchors and global prototypes.

  Its `next` has the type
  `(<<>@SERVER, M@SERVER, P@SERVER> -> <state=<>, result=M,
  measurements=D>@SERVER)` of `build_finalizer`. `M` is
  `server_model.ServerModel`, and `P` is `prototypes.ClassPrototypes`, the
  aggregate of the round.

    A_c <- decay * A_c + (1 - decay) * P_c   for classes somebody sent

  Source: `FedSA.update_semantic_anchors`, lokinko/FedSA@75bf106. With
  `orthogonality` all anchors are then turned, in every round, whether somebody
  sent their classes or not.

  Args:
    num_classes: C.
    feature_dim: D.
    decay: Decay of the moving average, in [0, 1]. The reference uses 0.9999.
    evidence: See `anchors.decay_by_evidence`, with the weights of the aggregate
      as evidence, >= 0. 0 is the reference: one decay for all classes.
    orthogonality: Share of `anchors.separated`, in [0, 1]. 0 is the reference.
    matching: Steps of `hyper_prototypes.matched` after the moving average and
      before `anchors.separated`, for classes somebody sent, >= 0. The
      classifier is that of the anchors before the round. The targets are
      directions at features drawn from the known means and squares, with the
      same noise in every round. It needs `with_squares`. 0 is the reference.
    matching_rate: Learning rate of these steps, > 0.
    keep_missing: See `known_classes`.
    with_squares: Whether `M` is `server_model.StatisticsModel`, and the vectors
      of `P` have mean squares of features after each prototype.

  Raises:
    ValueError: If a value is out of range, or if anchors of more classes than
      features should be orthogonal.
  """
  if not 0.0 <= decay <= 1.0:
    raise errors.UserError(
      f'Expected an anchor decay in [0, 1], found {decay}.'
    )
  if not 0.0 <= evidence < float('inf'):
    raise errors.UserError(f'Expected anchor evidence >= 0, found {evidence}.')
  if not 0.0 <= orthogonality <= 1.0:
    raise errors.UserError(
      f'Expected an anchor orthogonality in [0, 1], found {orthogonality}.'
    )
  if orthogonality and num_classes > feature_dim:
    raise errors.UserError(
      'Anchor orthogonality needs num_classes <= feature_dim, found '
      f'num_classes={num_classes} and feature_dim={feature_dim}. Use a larger '
      'feature_dim.'
    )
  if matching < 0 or (matching and not with_squares):
    raise errors.UserError(
      'Expected steps of matching >= 0, and `with_squares` if there are any, '
      f'found matching={matching} and with_squares={with_squares}.'
    )
  if not 0.0 < matching_rate < float('inf'):
    raise errors.UserError(
      f'Expected matching_rate > 0, found {matching_rate}.'
    )

  def finalize_fn(model, update, squares=None):
    known, present = known_classes(
      update, model.prototypes, model.present, keep_missing
    )
    decays = decay
    if evidence:
      decays = anchors.decay_by_evidence(decay, update.weights, evidence)
    moved = anchors.moving_average(
      model.anchors, update.vectors, update.weights > 0, decays
    )
    if matching:
      drawn = virtual_features.draw(
        known,
        virtual_features.class_variances(known, squares),
        _MATCHING_DRAWS,
        tf.zeros([2], tf.int32),
      )
      moved = hyper_prototypes.matched(
        moved,
        hyper_prototypes.gradient_directions(drawn, model.anchors),
        model.anchors,
        update.weights > 0,
        num_steps=matching,
        learning_rate=matching_rate,
      )
    if orthogonality:
      moved = anchors.separated(moved, orthogonality)
    return server_model.ServerModel(
      anchors=moved,
      prototypes=known,
      present=present,
    )

  def finalize_all_fn(model, update):
    means, squares = tf.split(update.vectors, 2, axis=1)
    known, _ = known_classes(
      update._replace(vectors=squares),
      model.squares,
      model.present,
      keep_missing,
    )
    plain = finalize_fn(model, update._replace(vectors=means), known)
    return server_model.StatisticsModel(*plain, squares=known)

  if with_squares:
    return build_finalizer(
      server_model.statistics_model_type(num_classes, feature_dim),
      prototypes.prototypes_type(num_classes, 2 * feature_dim),
      finalize_all_fn,
    )
  return build_finalizer(
    server_model.server_model_type(num_classes, feature_dim),
    prototypes.prototypes_type(num_classes, feature_dim),
    finalize_fn,
  )
