"""FedSA: federated learning via semantic anchors.

Source: Zhou et al., "FedSA: A Unified Representation Learning via Semantic
Anchors for Prototype-based Federated Learning", AAAI 2025 (arXiv:2501.05496);
reference code `system/flcore/{clients/clientsa,servers/serversa}.py`,
lokinko/FedSA@75bf106.
"""

from collections.abc import Sequence
import dataclasses
from typing import Optional

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_fedsa import composer
from tff_fedsa.aggregation import class_mean
from tff_fedsa.client import client_work as client_work_lib
from tff_fedsa.client import local_optimizer
from tff_fedsa.client import local_training
from tff_fedsa.client import objective as objective_lib
from tff_fedsa.data import input_spec as input_spec_lib
from tff_fedsa.maths import anchors as anchors_lib
from tff_fedsa.maths import losses
from tff_fedsa.maths import margins
from tff_fedsa.maths import prototypes
from tff_fedsa.models import functional
from tff_fedsa.server import distribution
from tff_fedsa.server import finalizers
from tff_fedsa.server import server_model


@dataclasses.dataclass(frozen=True)
class LossWeights:
  """Weights of the terms beside the cross-entropy, all >= 0.

  Attributes:
    regularization: lambda_reg, of `losses.anchor_regularization`.
    contrastive: lambda_mcl, of `losses.margin_contrastive`.
    calibration: lambda_cc, of `losses.classifier_calibration`.
  """

  regularization: float = 10.0
  contrastive: float = 1.0
  calibration: float = 1.0

  def __post_init__(self):
    for name, value in dataclasses.asdict(self).items():
      if not (np.isfinite(value) and value >= 0.0):
        raise ValueError(f'Expected {name} weight >= 0, found {value}.')


def build_objective(
  num_classes: int,
  feature_dim: int,
  weights: LossWeights,
  *,
  margin_scale: float = 1.0,
  warmup_rounds: int = 0,
) -> objective_lib.ClientObjective:
  """Returns FedSA's client objective; the server broadcasts the anchors.

    L = L_ce + w (lambda_reg L_reg + lambda_mcl L_mcl) + lambda_cc L_cc

  The margin of L_mcl is fixed for the round: `margins.margin`. In the reference
  w is 1.

  Args:
    num_classes: C.
    feature_dim: D.
    weights: The lambdas.
    margin_scale: The margin is multiplied by it, >= 0.
    warmup_rounds: w rises evenly from 0 in the first round to 1 after so many.

  Raises:
    ValueError: If a value is negative or not finite.
  """
  if not 0.0 <= margin_scale < float('inf'):
    raise ValueError(f'Expected margin_scale >= 0, found {margin_scale}.')
  if warmup_rounds < 0:
    raise ValueError(f'Expected warmup_rounds >= 0, found {warmup_rounds}.')

  def context_fn(anchors, state, round_num):
    margin = margins.margin(anchors, state.prototypes, state.counts)
    context = {'anchors': anchors, 'margin': margin_scale * margin}
    if warmup_rounds:
      progress = tf.cast(round_num, tf.float32) / warmup_rounds
      context['warmup'] = tf.minimum(progress, 1.0)
    return context

  def loss_fn(features, logits, labels, head_fn, context):
    anchors = context['anchors']
    terms = {
      'cross_entropy': losses.cross_entropy(logits, labels),
      'regularization': losses.anchor_regularization(features, labels, anchors),
      'contrastive': losses.margin_contrastive(
        features, labels, anchors, context['margin']
      ),
      'calibration': losses.classifier_calibration(head_fn, anchors),
    }
    warmup = context.get('warmup', 1.0)
    total = (
      terms['cross_entropy']
      + warmup * weights.regularization * terms['regularization']
      + warmup * weights.contrastive * terms['contrastive']
      + weights.calibration * terms['calibration']
    )
    return {'loss': total, **terms}

  def gauges_fn(anchors, state):
    return {
      'gap_global': margins.class_gap(anchors),
      'gap_local': margins.local_gap(state.prototypes, state.counts),
    }

  return objective_lib.ClientObjective(
    context_fn=context_fn,
    context_specs={
      'anchors': tf.TensorSpec([num_classes, feature_dim]),
      'margin': tf.TensorSpec([]),
      **({'warmup': tf.TensorSpec([])} if warmup_rounds else {}),
    },
    loss_fn=loss_fn,
    loss_names=(
      'loss',
      'cross_entropy',
      'regularization',
      'contrastive',
      'calibration',
    ),
    gauges_fn=gauges_fn,
  )


def build_fedsa(
  models: Sequence[functional.FunctionalModel],
  *,
  input_spec: input_spec_lib.InputSpec,
  anchors: Optional[np.ndarray] = None,
  optimizer: Optional[local_optimizer.LocalOptimizer] = None,
  loss_weights: Optional[LossWeights] = None,
  margin_scale: float = 1.0,
  warmup_rounds: int = 0,
  objective: Optional[objective_lib.ClientObjective] = None,
  local: Optional[local_training.LocalTrainingConfig] = None,
  weighting: str = 'clients',
  anchor_decay: float = 0.9999,
  keep_missing: bool = True,
  aggregator_factory: Optional[
    tff.aggregators.UnweightedAggregationFactory
  ] = None,
) -> composer.StatefulProcess:
  """Builds the process of FedSA over heterogeneous, stateful clients.

  `initialize()` returns a `composer.ServerState` whose `model` is a
  `server_model.ServerModel`; `next(server_state, client_states, examples)`
  runs one round of the given clients, all architectures in one federated
  computation (types: `composer.compose_process`). Client states come from
  `client_state.build_initial_state_fn`; the caller keeps them between rounds.

  Differs from the reference code in its defaults: examples are shuffled and
  a short last batch is used (`LocalTrainingConfig`), and a class that nobody
  sent keeps its global prototype (`keep_missing`). The reference's behaviour is
  `LocalTrainingConfig(remainder='drop', shuffle=False)`, `keep_missing=False`.

  Args:
    models: One per architecture; a client's state says which is its own.
    input_spec: Of the clients' images.
    anchors: float32[num_classes, feature_dim], where the server starts; by
      default `anchors.initial_anchors` with seed 0.
    optimizer: Local optimizer; by default SGD with learning rate 0.01.
    loss_weights: The lambdas; the reference's by default.
    margin_scale: See `build_objective`.
    warmup_rounds: See `build_objective`.
    objective: What clients minimize instead, e.g. `build_objective`'s with a
      term more; it gets the anchors as broadcast.
    local: Batches, epochs, kind of prototypes.
    weighting: `clients` (reference) or `examples`, see
      `prototypes.upload_weights`.
    anchor_decay: alpha of the moving average; the reference uses 0.9999.
    keep_missing: See `finalizers.build_anchor_finalizer`.
    aggregator_factory: Takes `ClassPrototypes` and returns their mean; by
      default `class_mean.ClassMeanFactory()`.

  Raises:
    ValueError: If models, input spec and anchors do not fit each other, or a
      value is out of range.
    TypeError: If a part is of the wrong kind.
  """
  num_classes, feature_dim = client_work_lib.check_models(models, input_spec)
  chosen = loss_weights is not None or margin_scale != 1.0 or warmup_rounds
  if objective is not None and chosen:
    raise ValueError(
      'Expected `objective` or `loss_weights`, `margin_scale` and '
      '`warmup_rounds`, found both: give them to `build_objective`.'
    )
  if anchors is None:
    anchors = anchors_lib.initial_anchors(num_classes, feature_dim)
  if np.shape(anchors) != (num_classes, feature_dim):
    raise ValueError(
      f'Expected anchors [num_classes, feature_dim] = [{num_classes}, '
      f'{feature_dim}], found {list(np.shape(anchors))}.'
    )
  initial_model = server_model.initial_server_model(anchors)
  distributor = distribution.build_anchor_distributor(num_classes, feature_dim)
  client_work = client_work_lib.build_client_work(
    models,
    objective
    or build_objective(
      num_classes,
      feature_dim,
      loss_weights or LossWeights(),
      margin_scale=margin_scale,
      warmup_rounds=warmup_rounds,
    ),
    distributor.next.type_signature.result.result.member,
    update_fn=client_work_lib.class_prototypes_update_fn(weighting),
    optimizer=optimizer or local_optimizer.default_optimizer(),
    input_spec=input_spec,
    config=local or local_training.LocalTrainingConfig(),
  )
  aggregator = (aggregator_factory or class_mean.ClassMeanFactory()).create(
    prototypes.prototypes_type(num_classes, feature_dim)
  )
  finalizer = finalizers.build_anchor_finalizer(
    num_classes, feature_dim, decay=anchor_decay, keep_missing=keep_missing
  )
  return composer.compose_process(
    lambda: initial_model, distributor, client_work, aggregator, finalizer
  )
