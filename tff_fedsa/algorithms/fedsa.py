"""FedSA: federated learning via semantic anchors.

Source: Zhou et al., "FedSA: A Unified Representation Learning via Semantic
Anchors for Prototype-based Federated Learning", AAAI 2025 (arXiv:2501.05496);
reference code `system/flcore/{clients/clientsa,servers/serversa}.py`,
lokinko/FedSA@75bf106.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Annotated, Any, Optional

from etils import epy
import numpy as np

from tff_fedsa import settings
from tff_fedsa.algorithms import method
from tff_fedsa.maths import anchors as anchors_lib
from tff_fedsa.maths import prototypes
from tff_fedsa.runs import errors

with epy.lazy_imports():
  import tensorflow as tf
  import tensorflow_federated as tff

  from tff_fedsa import composer
  from tff_fedsa.aggregation import class_mean
  from tff_fedsa.aggregation import screening
  from tff_fedsa.client import client_work as client_work_lib
  from tff_fedsa.client import label_loss
  from tff_fedsa.client import local_optimizer
  from tff_fedsa.client import local_training
  from tff_fedsa.client import objective as objective_lib
  from tff_fedsa.data import input_spec as input_spec_lib
  from tff_fedsa.maths import losses
  from tff_fedsa.maths import margins
  from tff_fedsa.maths import virtual_features
  from tff_fedsa.models import functional
  from tff_fedsa.server import distribution
  from tff_fedsa.server import finalizers
  from tff_fedsa.server import server_model

_OF_OBJECTIVE = (
  'lambda_reg',
  'lambda_mcl',
  'lambda_cc',
  'lambda_structure',
  'lambda_virtual',
  'virtual_features',
  'margin_scale',
  'warmup_rounds',
  'anchor_matching',
  'anchor_agreement',
)
_OF_ANCHORS = ('anchor_init', 'anchor_file', 'anchor_seed', 'anchor_scale')
_NonNegative = Annotated[float, settings.AtLeast(0.0)]


@dataclasses.dataclass(frozen=True)
class FedSAConfig(settings.Settings):
  """FedSA: objective and anchors.

  The defaults are the reference's: `args` of `system/main.py`, and 0.9999 in
  `FedSA.update_semantic_anchors`, lokinko/FedSA@75bf106.

  Attributes:
    lambda_reg: Weight of the anchor regularization, >= 0.
    lambda_mcl: Weight of the margin contrastive term, >= 0.
    lambda_cc: Weight of the classifier calibration, >= 0.
    lambda_structure: Weight of the structural alignment, >= 0: features keep
      the distances between anchors, but may be rotated and shifted (FedSAF,
      arXiv:2605.05959). 0 is the reference. Without the other terms features
      need not lie near anchors.
    lambda_virtual: Weight of the cross-entropy of virtual features, >= 0: each
      client's head learns features of the classes that are rare with it, drawn
      from the mean and the variance by class over all clients (CCVR,
      arXiv:2106.05001). 1 lifts rare classes to the share that they have in
      balanced data. 0 is the reference. Clients then also send mean squares of
      features by class, and receive global prototypes and squares.
    virtual_features: Virtual features of each class in a step, >= 1.
    margin_scale: Factor of the margin in the contrastive term, >= 0. 1 is the
      reference, 0 is no margin.
    warmup_rounds: Rounds in which the weights of the regularization and the
      contrastive term rise from 0 to their values, >= 0. 0 is the reference.
    anchor_init: Initial anchors: random projection (the reference), Gaussian,
      or equally far apart (orthogonal).
    anchor_file: A .npy file with initial anchors, float32[num_classes,
      feature_dim].
    anchor_seed: Seed of the initial anchors.
    anchor_scale: Factor of the initial anchors, >= 0. 1 is the reference. Its
      anchors have a norm of about sqrt(feature_dim / 2).
    anchor_decay: Decay alpha of the anchors' moving average, in [0, 1]: A <-
      alpha A + (1 - alpha) P.
    anchor_evidence: Clients k that must send a class before its anchor moves at
      half the rate of `anchor_decay`, >= 0: the rate is (1 - alpha) n / (n + k)
      for a class that n clients sent. Examples take the place of clients with
      `prototype_weighting`=examples. 0 is the reference: one rate for all
      classes that somebody sent.
    anchor_orthogonality: Share of the way to orthogonal directions by which the
      server turns the anchors after each round, in [0, 1]. Norms stay. 0 is the
      reference. It needs num_classes <= feature_dim. The idea is FedORGP's
      (arXiv:2502.16119); docs/methods.md says what differs.
    anchor_matching: Steps of gradient matching in which the server moves the
      anchors after each round, >= 0: the gradient of the cross-entropy at an
      anchor gets the direction of the mean gradient at the features of its
      class (the idea of FedHPro's hyper-prototypes, arXiv:2605.13475;
      docs/methods.md says what differs). 0 is the reference; 30 is the paper's
      value. Clients then send mean squares, as with `lambda_virtual`.
    anchor_matching_rate: Learning rate of these steps, > 0. With 10 most
      directions are nearly equal after 30 steps. The paper's code has 0.1,
      which hardly moves anchors.
    anchor_agreement: Whether all clients train with the same anchors. False is
      a control for experiments: each client permutes the features of the
      anchors. Distances between anchors stay the same, but clients do not agree
      on anchors. It needs `anchor_decay`=1, and only heads are meaningful
      classifiers.
  """

  lambda_reg: _NonNegative = 10.0
  lambda_mcl: _NonNegative = 1.0
  lambda_cc: _NonNegative = 1.0
  lambda_structure: _NonNegative = 0.0
  lambda_virtual: _NonNegative = 0.0
  virtual_features: Annotated[int, settings.AtLeast(1)] = 4
  margin_scale: _NonNegative = 1.0
  warmup_rounds: Annotated[int, settings.AtLeast(0)] = 0
  anchor_init: Annotated[str, settings.OneOf(anchors_lib.INITIALIZER_NAMES)] = (
    'random_projection'
  )
  anchor_file: Optional[str] = None
  anchor_seed: int = 0
  anchor_scale: _NonNegative = 1.0
  anchor_decay: Annotated[
    float, settings.AtLeast(0.0), settings.AtMost(1.0)
  ] = 0.9999
  anchor_evidence: _NonNegative = 0.0
  anchor_orthogonality: Annotated[
    float, settings.AtLeast(0.0), settings.AtMost(1.0)
  ] = 0.0
  anchor_matching: Annotated[int, settings.AtLeast(0)] = 0
  anchor_matching_rate: Annotated[float, settings.Above(0.0)] = 10.0
  anchor_agreement: bool = True

  def __post_init__(self):
    super().__post_init__()
    if not self.anchor_agreement and self.anchor_decay != 1.0:
      raise settings.SettingsError(
        'Without `anchor_agreement` clients have no common features that '
        'anchors could move to: it needs `anchor_decay`=1, found '
        f'{self.anchor_decay}.'
      )
    for name in ('lambda_virtual', 'anchor_matching'):
      if not self.anchor_agreement and getattr(self, name):
        raise settings.SettingsError(
          f'`{name}` draws features that all clients have in common: it needs '
          f'`anchor_agreement`, found `{name}`={getattr(self, name)} without '
          'it.'
        )

  @property
  def with_squares(self) -> bool:
    """Returns whether clients send mean squares of features by class."""
    return self.lambda_virtual > 0 or self.anchor_matching > 0

  def without_effect(self) -> Mapping[str, str]:
    """Returns the fields that the other fields make pointless."""
    reasons: dict[str, str] = {}
    if self.anchor_file:
      reasons = dict.fromkeys(
        ('anchor_init', 'anchor_seed', 'anchor_scale'),
        'the anchors come from `anchor_file`',
      )
    if self.anchor_decay == 1.0:
      reasons['anchor_evidence'] = (
        'with `anchor_decay`=1 no prototype moves an anchor'
      )
    if not self.lambda_virtual:
      reasons['virtual_features'] = '`lambda_virtual`=0'
    if not self.anchor_matching:
      reasons['anchor_matching_rate'] = '`anchor_matching`=0'
    return reasons

  def initial_anchors(self, num_classes: int, feature_dim: int) -> np.ndarray:
    """Returns the initial anchors, float32[num_classes, feature_dim].

    Raises:
      SettingsError: If `anchor_file` is not a .npy file of numbers.
      ValueError: If no anchors of these sizes exist.
      FileNotFoundError: If there is no `anchor_file`.
    """
    if not self.anchor_file:
      return anchors_lib.initial_anchors(
        num_classes,
        feature_dim,
        seed=self.anchor_seed,
        initializer=self.anchor_init,
        scale=self.anchor_scale,
      )
    try:
      return np.load(self.anchor_file, allow_pickle=False)
    except FileNotFoundError as error:
      raise FileNotFoundError(
        f'There is no anchor_file={self.anchor_file}.'
      ) from error
    except ValueError as error:
      raise settings.SettingsError(
        f'`anchor_file`={self.anchor_file} is not a .npy file of numbers: '
        f'{error}'
      ) from error


def build_objective(
  num_classes: int,
  feature_dim: int,
  config: Optional[FedSAConfig] = None,
) -> objective_lib.ClientObjective:
  """Returns FedSA's client objective. The server broadcasts the anchors.

    L = L_ce + w (lambda_reg L_reg + lambda_mcl L_mcl) + lambda_cc L_cc
        + lambda_structure L_str + lambda_virtual L_virtual

  The margin of L_mcl is fixed for the round (`margins.margin`). The reference
  has w = 1, and lambda_structure = lambda_virtual = 0: then L_str and L_virtual
  are not computed. For L_virtual (`virtual_features`) the server broadcasts a
  `server_model.StatisticsModel`. Rare classes are those of the client's round
  before; in its first round all classes are equally rare. The draws follow from
  the client's seed, the round and the step.

  Args:
    num_classes: C.
    feature_dim: D.
    config: Has the lambdas, the scale of the margin, and `warmup_rounds`: w
      rises linearly from 0 in the first round to 1 after so many rounds.
  """
  config = config or FedSAConfig()
  names = ['lambda_reg', 'lambda_mcl', 'lambda_cc']
  if config.lambda_structure:
    names.append('lambda_structure')
  if config.lambda_virtual:
    names.append('lambda_virtual')
  weights = [
    objective_lib.LossWeight(name, getattr(config, name)) for name in names
  ]

  def anchors_of(broadcast):
    return broadcast.anchors if config.with_squares else broadcast

  def context_fn(broadcast, state, round_num):
    anchors = anchors_of(broadcast)
    if not config.anchor_agreement:
      order = tf.random.experimental.stateless_shuffle(
        tf.range(feature_dim), seed=state.seed
      )
      anchors = tf.gather(anchors, order, axis=1)
    margin = margins.margin(anchors, state.prototypes, state.counts)
    context = {'anchors': anchors, 'margin': config.margin_scale * margin}
    if config.warmup_rounds:
      progress = tf.cast(round_num, tf.float32) / config.warmup_rounds
      context['warmup'] = tf.minimum(progress, 1.0)
    if config.lambda_virtual:
      means = broadcast.prototypes
      context['virtual_means'] = means
      context['virtual_variances'] = virtual_features.class_variances(
        means, broadcast.squares
      )
      context['virtual_weights'] = virtual_features.rarity(
        state.counts, broadcast.present
      )
    return context

  def loss_fn(features, logits, labels, head_fn, context):
    anchors = context['anchors']
    terms = {
      'cross_entropy': label_loss.cross_entropy(logits, labels, context),
      'regularization': losses.anchor_regularization(features, labels, anchors),
      'contrastive': losses.margin_contrastive(
        features, labels, anchors, context['margin']
      ),
      'calibration': losses.classifier_calibration(head_fn, anchors),
    }
    warmup = context.get('warmup', 1.0)
    weight_of = {weight.flag: weight.of(context) for weight in weights}
    total = (
      terms['cross_entropy']
      + warmup * weight_of['lambda_reg'] * terms['regularization']
      + warmup * weight_of['lambda_mcl'] * terms['contrastive']
      + weight_of['lambda_cc'] * terms['calibration']
    )
    if config.lambda_structure:
      terms['structure'] = losses.structural_alignment(
        features, labels, anchors
      )
      total += weight_of['lambda_structure'] * terms['structure']
    if config.lambda_virtual:
      drawn = virtual_features.draw(
        context['virtual_means'],
        context['virtual_variances'],
        config.virtual_features,
        context['seed'],
      )
      terms['virtual'] = virtual_features.cross_entropy(
        head_fn, drawn, context['virtual_weights']
      )
      total += weight_of['lambda_virtual'] * terms['virtual']
    return {'loss': total, **terms}

  def gauges_fn(broadcast, state):
    return {
      'gap_global': margins.class_gap(anchors_of(broadcast)),
      'gap_local': margins.local_gap(state.prototypes, state.counts),
    }

  table = tf.TensorSpec([num_classes, feature_dim])
  context_specs = {'anchors': table, 'margin': tf.TensorSpec([])}
  if config.warmup_rounds:
    context_specs['warmup'] = tf.TensorSpec([])
  if config.lambda_virtual:
    context_specs['virtual_means'] = table
    context_specs['virtual_variances'] = table
    context_specs['virtual_weights'] = tf.TensorSpec([num_classes])
  return objective_lib.ClientObjective(
    context_fn=context_fn,
    context_specs=context_specs,
    loss_fn=loss_fn,
    loss_names=(
      'loss',
      'cross_entropy',
      'regularization',
      'contrastive',
      'calibration',
      *(['structure'] if config.lambda_structure else []),
      *(['virtual'] if config.lambda_virtual else []),
    ),
    gauges_fn=gauges_fn,
    averages_squares=config.with_squares,
    weights=weights,
  )


def build_fedsa(
  models: Sequence[functional.FunctionalModel],
  config: Optional[FedSAConfig] = None,
  *,
  input_spec: input_spec_lib.InputSpec,
  anchors: Optional[np.ndarray] = None,
  optimizer: Optional[local_optimizer.LocalOptimizer] = None,
  objective: Optional[objective_lib.ClientObjective] = None,
  local: Optional[local_training.LocalTrainingConfig] = None,
  class_means: Optional[prototypes.ClassMeanConfig] = None,
  aggregator_factory: Optional[
    tff.aggregators.UnweightedAggregationFactory
    | tff.aggregators.WeightedAggregationFactory
  ] = None,
) -> composer.StatefulProcess:
  """Builds the process of FedSA over heterogeneous, stateful clients.

  `initialize()` returns a `composer.ServerState` whose `model` is a
  `server_model.ServerModel` (with `lambda_virtual` or `anchor_matching` a
  `server_model.StatisticsModel`); `next(server_state, client_states, examples)`
  runs one round of the given clients, all architectures in one federated
  computation (types: `composer.compose_process`). Client states come from
  `client_state.build_initial_state_fn`; the caller keeps them between rounds.

  The defaults differ from the reference code: examples are shuffled, a short
  last batch is used (`LocalTrainingConfig`), and a class that no client sent
  keeps its global prototype (`keep_missing`). The behaviour of the reference is
  `LocalTrainingConfig(remainder='drop', shuffle=False)` and
  `ClassMeanConfig(keep_missing=False)`.

  Args:
    models: One model per architecture. A client's state names its architecture.
    config: Hyper-parameters. Default: those of the reference.
    input_spec: How models see the clients' images.
    anchors: float32[num_classes, feature_dim], initial anchors. Default:
      `config.initial_anchors`.
    optimizer: Local optimizer; by default SGD with learning rate 0.01.
    objective: Another objective of clients, e.g. that of `build_objective` with
      one more term. It receives the anchors as the broadcast.
    local: Batches, epochs, kind of prototypes.
    class_means: How prototypes are averaged.
    aggregator_factory: Takes `ClassPrototypes` and returns their mean; by
      default `class_mean.ClassMeanFactory()`. A weighted one gets the anchors
      in place of weights, as `robust_means.AnchorScreenedFactory` does.

  Raises:
    ValueError: If models, input spec and anchors do not fit each other, or a
      value is out of range.
    TypeError: If a part is of the wrong kind.
  """
  num_classes, feature_dim = client_work_lib.check_models(models, input_spec)
  config = config or FedSAConfig()
  class_means = class_means or prototypes.ClassMeanConfig()
  if objective is not None:
    _refuse(config, _OF_OBJECTIVE, 'objective')
  if anchors is not None:
    _refuse(config, _OF_ANCHORS, 'anchors')
  else:
    anchors = config.initial_anchors(num_classes, feature_dim)
  if np.shape(anchors) != (num_classes, feature_dim):
    raise errors.UserError(
      f'Expected anchors [num_classes, feature_dim] = [{num_classes}, '
      f'{feature_dim}], found {list(np.shape(anchors))}.'
    )
  factory = aggregator_factory or class_mean.ClassMeanFactory()
  with_squares = config.with_squares
  if with_squares and not isinstance(factory, class_mean.ClassMeanFactory):
    name = 'lambda_virtual' if config.lambda_virtual else 'anchor_matching'
    raise errors.UserError(
      f'`{name}` needs means of features and of their squares over the same '
      f'clients, a `class_mean.ClassMeanFactory`, found '
      f'{type(factory).__name__}. Give `aggregator`=mean, or `{name}`=0.'
    )
  initial_model: Any = server_model.initial_server_model(anchors)
  distributor = distribution.build_anchor_distributor(num_classes, feature_dim)
  if with_squares:
    initial_model = server_model.with_squares(initial_model)
    distributor = distribution.build_distributor(
      server_model.statistics_model_type(num_classes, feature_dim)
    )
  client_work = client_work_lib.build_client_work(
    models,
    objective or build_objective(num_classes, feature_dim, config),
    distributor.next.type_signature.result.result.member,
    update_fn=client_work_lib.class_prototypes_update_fn(
      class_means.weighting, with_squares
    ),
    optimizer=optimizer or local_optimizer.default_optimizer(),
    input_spec=input_spec,
    config=local or local_training.LocalTrainingConfig(),
  )
  width = 2 * feature_dim if with_squares else feature_dim
  aggregated = [prototypes.prototypes_type(num_classes, width)]
  if isinstance(factory, tff.aggregators.WeightedAggregationFactory):
    aggregated.append(distributor.next.type_signature.result.result.member)
  aggregator = factory.create(*aggregated)
  finalizer = finalizers.build_anchor_finalizer(
    num_classes,
    feature_dim,
    decay=config.anchor_decay,
    evidence=config.anchor_evidence,
    orthogonality=config.anchor_orthogonality,
    matching=config.anchor_matching,
    matching_rate=config.anchor_matching_rate,
    keep_missing=class_means.keep_missing,
    with_squares=with_squares,
  )
  return composer.compose_process(
    lambda: initial_model,
    distributor,
    client_work,
    aggregator,
    finalizer,
    limits=screening.Limits(class_means.weighting),
  )


def _refuse(config, names, instead):
  """Refuses settings that an argument replaces."""
  default = FedSAConfig()
  found = [n for n in names if getattr(config, n) != getattr(default, n)]
  if found:
    raise errors.UserError(
      f'Expected `{instead}` or {", ".join(found)} in `config`, found both.'
    )


METHOD = method.Method(
  name='fedsa',
  title='FedSA',
  config=FedSAConfig,
  build_fn=build_fedsa,
  averages='prototypes',
  broadcasts_anchors=True,
  terms={
    'regularization': 'pull of features to anchors, unweighted, squared units',
    'contrastive': 'margin contrastive term, unweighted, nats',
    'calibration': 'classifier calibration term, unweighted, nats',
    'structure': (
      'structural alignment, unweighted, in [0, 1]; if lambda_structure > 0'
    ),
    'virtual': (
      'cross-entropy of virtual features of rare classes, unweighted, nats; if '
      'lambda_virtual > 0'
    ),
  },
  metrics={
    'gap_global': 'gap of the anchors, feature distance',
    'gap_local': (
      "gap of a client's prototypes, mean over clients; 0 in its first " 'round'
    ),
    'anchor_separation_min': 'smallest distance between two anchors',
    'anchor_separation_mean': 'mean distance of an anchor to the nearest other',
    'anchor_drift': 'mean distance of an anchor from its first place',
    'classes_present': 'classes with a global prototype',
  },
)
