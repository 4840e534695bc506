"""Moves the anchors towards the prototypes that a round brought."""

import collections

import tensorflow as tf
import tensorflow_federated as tff

from tff_fedsa import anchors
from tff_fedsa import prototypes
from tff_fedsa import server_model


def build_anchor_finalizer(
  num_classes: int,
  feature_dim: int,
  *,
  decay: float = 0.9999,
  keep_missing: bool = True,
) -> tff.learning.templates.FinalizerProcess:
  """Returns the process that updates anchors and global prototypes.

  Its `next` has the type
  `(<<>@SERVER, M@SERVER, P@SERVER> -> <state=<>, result=M,
  measurements=<>>@SERVER)`, `M` being `server_model.ServerModel` and `P`
  `prototypes.ClassPrototypes`, the aggregate of the round.

    A_c <- decay * A_c + (1 - decay) * P_c   for classes somebody sent

  Source: `FedSA.update_semantic_anchors`, lokinko/FedSA@75bf106.

  Args:
    num_classes: C.
    feature_dim: D.
    decay: In [0, 1]; the reference uses 0.9999.
    keep_missing: Whether a class that nobody sent in this round keeps its last
      known global prototype. The reference forgets it (False), so that the
      class can't be predicted in that round.

  Raises:
    ValueError: If `decay` is not in [0, 1].
  """
  if not 0.0 <= decay <= 1.0:
    raise ValueError(f'Expected an anchor decay in [0, 1], found {decay}.')
  model_type = server_model.server_model_type(num_classes, feature_dim)
  update_type = prototypes.prototypes_type(num_classes, feature_dim)

  @tff.tensorflow.computation(model_type, update_type)
  def finalize(model, update):
    sent = update.weights > 0
    known = update.vectors
    present = sent
    if keep_missing:
      known = tf.where(sent[:, tf.newaxis], update.vectors, model.prototypes)
      present = tf.logical_or(sent, model.present)
    return server_model.ServerModel(
      anchors=anchors.moving_average(
        model.anchors, update.vectors, sent, decay
      ),
      prototypes=known,
      present=present,
    )

  @tff.federated_computation
  def initialize_fn():
    return tff.federated_value((), tff.SERVER)

  @tff.federated_computation(
    initialize_fn.type_signature.result,
    tff.FederatedType(model_type, tff.SERVER),
    tff.FederatedType(update_type, tff.SERVER),
  )
  def next_fn(state, model, update):
    return tff.templates.MeasuredProcessOutput(
      state,
      tff.federated_map(finalize, (model, update)),
      tff.federated_value(collections.OrderedDict(), tff.SERVER),
    )

  return tff.learning.templates.FinalizerProcess(initialize_fn, next_fn)
