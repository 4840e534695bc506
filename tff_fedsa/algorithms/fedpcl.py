"""FedPCL: features are contrasted with the prototypes of all clients.

Source: Tan et al., "Federated Learning from Pre-Trained Models: A Contrastive
Learning Approach", NeurIPS 2022 (arXiv:2209.10083); reference code for whole
models: `system/flcore/{clients/clientpcl,servers/serverpcl}.py`,
TsingZ0/PFLlib@d832e76. The authors' own code, for projections of frozen
pre-trained features, is yuetan031/FedPCL@0c3895b.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
from typing import Annotated, Any, ClassVar, NamedTuple, Optional

from etils import epy
import numpy as np

from tff_fedsa import settings
from tff_fedsa.algorithms import method
from tff_fedsa.maths import prototypes
from tff_fedsa.runs import errors

with epy.lazy_imports():
  import tensorflow as tf
  import tensorflow_federated as tff

  from tff_fedsa import composer
  from tff_fedsa.aggregation import collecting
  from tff_fedsa.aggregation import robust_means
  from tff_fedsa.aggregation import screening
  from tff_fedsa.client import client_work as client_work_lib
  from tff_fedsa.client import label_loss
  from tff_fedsa.client import local_optimizer
  from tff_fedsa.client import local_training
  from tff_fedsa.client import objective as objective_lib
  from tff_fedsa.data import input_spec as input_spec_lib
  from tff_fedsa.models import functional
  from tff_fedsa.server import distribution
  from tff_fedsa.server import finalizers
  from tff_fedsa.server import server_model

# Similarity of absent classes. They never count, and no gradient is NaN, unlike
# with -inf in every class.
_NEVER = -1e9


@dataclasses.dataclass(frozen=True)
class FedPCLConfig(settings.Settings):
  """FedPCL: the contrastive terms, and how prototypes are averaged.

  The weights are those of TsingZ0/PFLlib. The temperature is that of the
  authors' code. PFLlib's is 1.

  Attributes:
    temperature: Divides similarities in both contrastive terms, > 0.
    lambda_: Weight of both contrastive terms, >= 0.
    cross_entropy_weight: Weight of the cross-entropy, >= 0. 0 is the paper: its
      clients train by the contrastive terms alone. Heads then keep their
      initial weights.
    weighting: Weight of a client in a class's global prototype: 1 (clients,
      the reference), or its examples of the class (examples).
  """

  flag_prefix: ClassVar[str] = 'fedpcl_'

  temperature: Annotated[float, settings.Above(0.0)] = 0.07
  lambda_: Annotated[float, settings.AtLeast(0.0)] = 1.0
  cross_entropy_weight: Annotated[float, settings.AtLeast(0.0)] = 1.0
  weighting: Annotated[str, settings.OneOf(prototypes.WEIGHTINGS)] = 'clients'


class FedPCLModel(NamedTuple):
  """The knowledge of FedPCL's server.

  Attributes:
    prototypes: float32[num_classes, feature_dim], the global prototypes, or
      zeros where `present` is False.
    present: bool[num_classes], whether a class has a global prototype.
    client_prototypes: float32[max_participants, num_classes, feature_dim], the
      prototypes of every client of the round before. For classes that a client
      lacks, its table holds the global prototype.
    participated: bool[max_participants], whether a table belongs to a client.
      The other tables hold zeros.
  """

  prototypes: Any
  present: Any
  client_prototypes: Any
  participated: Any


def contrast(
  features: tf.Tensor,
  labels: tf.Tensor,
  centers: tf.Tensor,
  present: tf.Tensor,
  temperature: float,
) -> tf.Tensor:
  """Returns the contrastive loss of features and class centers.

    s_bk = cos(z_b, P_k) / tau
    loss = mean over b of present[y_b] * -log(
      exp(s_by) / sum over present k of exp(s_bk))

  Examples of classes without a center contribute 0 but stay in the mean.

  Args:
    features: float32[batch, feature_dim].
    labels: int32[batch], in `[0, num_classes)`.
    centers: float32[num_tables, num_classes, feature_dim]. No gradient flows
      into them.
    present: bool[num_classes], whether a class has a center, for all tables.
    temperature: tau, > 0.

  Returns:
    float32[num_tables] >= 0, nats per example.

  Raises:
    ValueError: If features and centers differ in `feature_dim`.
  """
  features.shape.assert_has_rank(2)
  features.shape[1:].assert_is_compatible_with(centers.shape[2:])
  # Rows of absent classes may hold anything.
  centers = tf.where(present[:, tf.newaxis], centers, tf.zeros_like(centers))
  similarities = tf.einsum(
    'bd,tcd->tbc',
    tf.math.l2_normalize(features, axis=1),
    tf.math.l2_normalize(tf.stop_gradient(centers), axis=2),
  )
  log_likelihoods = tf.nn.log_softmax(
    tf.where(present, similarities / temperature, _NEVER)
  )
  # The fused cross-entropy would check shapes. The check would make a step
  # stateful, and TensorFlow does not run stateful steps in a client's branch.
  is_own_class = tf.one_hot(labels, tf.shape(centers)[1])
  of_own_class = tf.reduce_sum(is_own_class * log_likelihoods, axis=2)
  counted = tf.gather(present, labels)
  return -tf.reduce_mean(
    tf.where(counted, of_own_class, tf.zeros_like(of_own_class)), axis=1
  )


def build_objective(
  num_classes: int,
  feature_dim: int,
  max_participants: int,
  config: Optional[FedPCLConfig] = None,
) -> objective_lib.ClientObjective:
  """Returns the objective of clients that contrast features with prototypes.

    L = mu L_ce + lambda (L_g + mean over clients p of L_p)

  The server broadcasts a `FedPCLModel`. L_g is the `contrast` with global
  prototypes, and L_p the contrast with the prototypes of client p. Both are 0
  in the first round.

  Args:
    num_classes: C.
    feature_dim: D.
    max_participants: Largest number of clients in a round.
    config: tau (`temperature`), lambda, and mu (`cross_entropy_weight`).
  """
  config = config or FedPCLConfig()
  temperature = config.temperature
  of_labels = objective_lib.LossWeight(
    'fedpcl_cross_entropy_weight', config.cross_entropy_weight
  )
  of_contrast = objective_lib.LossWeight('fedpcl_lambda', config.lambda_)

  def loss_fn(features, logits, labels, head_fn, context):
    del head_fn  # Unused.
    present = context['present']
    cross_entropy = label_loss.cross_entropy(logits, labels, context)
    to_global = contrast(
      features, labels, context['prototypes'][tf.newaxis], present, temperature
    )[0]
    to_clients = contrast(
      features, labels, context['client_prototypes'], present, temperature
    )
    participated = tf.cast(context['participated'], tf.float32)
    to_local = tf.math.divide_no_nan(
      tf.reduce_sum(participated * to_clients), tf.reduce_sum(participated)
    )
    return {
      'loss': (
        of_labels.of(context) * cross_entropy
        + of_contrast.of(context) * (to_global + to_local)
      ),
      'cross_entropy': cross_entropy,
      'contrastive_global': to_global,
      'contrastive_local': to_local,
    }

  shapes = _model_type(num_classes, feature_dim, max_participants)
  return objective_lib.ClientObjective(
    loss_fn=loss_fn,
    loss_names=(
      'loss',
      'cross_entropy',
      'contrastive_global',
      'contrastive_local',
    ),
    context_fn=lambda known, *_: known._asdict(),
    context_specs={
      name: tf.TensorSpec(getattr(shapes, name).shape, dtype)
      for name, dtype in (
        ('prototypes', tf.float32),
        ('present', tf.bool),
        ('client_prototypes', tf.float32),
        ('participated', tf.bool),
      )
    },
    weights=(of_labels, of_contrast),
  )


def build_finalizer(
  num_classes: int, feature_dim: int, max_participants: int
) -> tff.learning.templates.FinalizerProcess:
  """Returns the process that averages prototypes and keeps clients' tables.

  See `finalizers.build_finalizer`. The model is a `FedPCLModel`. The update
  holds the prototypes of all clients. A class that no client sent in this round
  keeps its global prototype. Clients that sent nothing are left out.

  Args:
    num_classes: C.
    feature_dim: D.
    max_participants: Largest number of clients in a round. More clients raise
      an error.
  """

  def finalize_fn(model, collected):
    held = collected.weights > 0
    vectors = tf.where(
      held[:, :, tf.newaxis],
      collected.vectors,
      tf.zeros_like(collected.vectors),
    )
    totals = tf.reduce_sum(collected.weights, axis=0)
    means = prototypes.class_means(
      tf.einsum('mc,mcd->cd', collected.weights, vectors), totals
    )
    known, present = finalizers.known_classes(
      prototypes.ClassPrototypes(means, totals),
      model.prototypes,
      model.present,
      keep_missing=True,
    )
    sent = tf.reduce_any(held, axis=1)
    tables = tf.boolean_mask(
      tf.where(held[:, :, tf.newaxis], vectors, known), sent
    )
    num_tables = tf.shape(tables)[0]
    check = tf.debugging.assert_less_equal(
      num_tables,
      max_participants,
      'More clients took part in a round than FedPCL was built for '
      f'(max_participants={max_participants}).',
    )
    with tf.control_dependencies([check]):
      num_free = max_participants - num_tables
    return FedPCLModel(
      prototypes=known,
      present=present,
      client_prototypes=tf.ensure_shape(
        tf.pad(tables, [[0, num_free], [0, 0], [0, 0]]),
        [max_participants, num_classes, feature_dim],
      ),
      participated=tf.range(max_participants) < num_tables,
    )

  aggregator = collecting.CollectingFactory().create(
    prototypes.prototypes_type(num_classes, feature_dim)
  )
  return finalizers.build_finalizer(
    _model_type(num_classes, feature_dim, max_participants),
    aggregator.next.type_signature.result.result.member,
    finalize_fn,
  )


def build_fedpcl(
  models: Sequence[functional.FunctionalModel],
  config: Optional[FedPCLConfig] = None,
  *,
  input_spec: input_spec_lib.InputSpec,
  optimizer: Optional[local_optimizer.LocalOptimizer] = None,
  local: Optional[local_training.LocalTrainingConfig] = None,
  max_participants: int = 20,
  aggregator_factory: Optional[
    tff.aggregators.UnweightedAggregationFactory
  ] = None,
) -> composer.StatefulProcess:
  """Builds the process of FedPCL over heterogeneous, stateful clients.

  The types are those of `fedsa.build_fedsa`, but the server's model is a
  `FedPCLModel`. The server broadcasts it unchanged. After training, clients
  compute prototypes in a clean pass and send them. The server and all clients
  of the next round see the prototypes of each client. The classifiers are
  `prototype` and `head`.

  The paper differs: its clients train only a projection of frozen pre-trained
  features, by the contrastive terms alone (`cross_entropy_weight=0`). Here they
  train whole models, and their heads by the cross-entropy. The reference code
  differs, also with that weight:

  - Its models normalize features. Here prototypes are means of features that
    are not normalized, and the loss normalizes both. The classifier is the
    nearest global prototype by distance, there the client's own prototypes by
    cosine.
  - It keeps the latest prototypes of every client. Here there are the
    prototypes of the clients of the round before. With full participation this
    is the same.
  - It stores classes in the order in which the first client meets them. Here
    the index of a class is its label.
  - It clips gradients to norm 10.

  Args:
    models: One model per architecture. A client's state names its architecture.
    config: Hyper-parameters.
    input_spec: How models see the clients' images.
    optimizer: Local optimizer; by default SGD with learning rate 0.01.
    local: Batches and epochs. `prototypes` has no effect.
    max_participants: Largest number of clients in a round. As many tables are
      broadcast. A round with more clients fails.
    aggregator_factory: Takes `ClassPrototypes` and returns their mean. The
      server then sees this mean as if one client had sent it. Default: the
      server sees the prototypes of each client.

  Raises:
    ValueError: If models and input spec do not fit each other,
      `max_participants` is not positive, or heads have epochs of their own and
      do not learn.
  """
  num_classes, feature_dim = client_work_lib.check_models(models, input_spec)
  config = config or FedPCLConfig()
  local = local or local_training.LocalTrainingConfig()
  if local.head_epochs and not config.cross_entropy_weight:
    raise errors.UserError(
      'Heads learn nothing with fedpcl_cross_entropy_weight=0: expected '
      f'head_epochs=0, found {local.head_epochs}.'
    )
  if max_participants < 1:
    raise errors.UserError(
      f'Expected max_participants >= 1, found {max_participants}.'
    )
  model_type = _model_type(num_classes, feature_dim, max_participants)
  client_work = client_work_lib.build_client_work(
    models,
    build_objective(num_classes, feature_dim, max_participants, config),
    model_type,
    update_fn=client_work_lib.class_prototypes_update_fn(config.weighting),
    optimizer=optimizer or local_optimizer.default_optimizer(),
    input_spec=input_spec,
    config=dataclasses.replace(local, prototypes='final'),
  )
  return composer.compose_process(
    lambda: FedPCLModel(
      *server_model.initial_prototype_model(num_classes, feature_dim),
      np.zeros([max_participants, num_classes, feature_dim], np.float32),
      np.zeros([max_participants], np.bool_),
    ),
    distribution.build_distributor(model_type),
    client_work,
    robust_means.collector(aggregator_factory).create(
      prototypes.prototypes_type(num_classes, feature_dim)
    ),
    build_finalizer(num_classes, feature_dim, max_participants),
    limits=screening.Limits(config.weighting),
  )


def _model_type(num_classes, feature_dim, max_participants):
  known = server_model.prototype_model_type(num_classes, feature_dim)
  return tff.types.to_type(
    FedPCLModel(
      known.prototypes,
      known.present,
      tff.TensorType(np.float32, (max_participants, num_classes, feature_dim)),
      tff.TensorType(np.bool_, (max_participants,)),
    )
  )


METHOD = method.Method(
  name='fedpcl',
  title='FedPCL',
  config=FedPCLConfig,
  build_fn=build_fedpcl,
  sees_clients='Its server sends the prototypes of each client to all clients.',
  collects_prototypes=True,
  terms={
    'contrastive_global': 'contrast with global prototypes, nats',
    'contrastive_local': "contrast with clients' prototypes, nats",
  },
  metrics={'classes_present': 'classes with a global prototype'},
)
