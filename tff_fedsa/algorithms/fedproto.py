"""FedProto: federated prototype learning across heterogeneous clients.

Source: Tan et al., "FedProto: Federated Prototype Learning across
Heterogeneous Clients", AAAI 2022 (arXiv:2105.00243); reference code
`system/flcore/{clients/clientproto,servers/serverproto}.py`,
lokinko/FedSA@75bf106 and TsingZ0/HtFLlib@e959261.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
from typing import Annotated, ClassVar, Optional

from etils import epy

from tff_fedsa import settings
from tff_fedsa.algorithms import method
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
  from tff_fedsa.models import functional
  from tff_fedsa.server import distribution
  from tff_fedsa.server import finalizers
  from tff_fedsa.server import server_model


@dataclasses.dataclass(frozen=True)
class FedProtoConfig(settings.Settings):
  """FedProto: the pull to global prototypes.

  Attributes:
    lambda_: Weight of the pull to global prototypes, >= 0. 10 is the value of
      HtFLlib's `total.sh`.
  """

  flag_prefix: ClassVar[str] = 'fedproto_'

  lambda_: Annotated[float, settings.AtLeast(0.0)] = 10.0


def build_objective(
  num_classes: int,
  feature_dim: int,
  regularization_weight: float,
  *,
  flag: str = 'fedproto_lambda',
) -> objective_lib.ClientObjective:
  """Returns the objective of clients: features approach global prototypes.

    L = L_ce + lambda L_reg

  The server broadcasts a `server_model.PrototypeModel`. L_reg is
  `losses.class_mean_regularization` of the features. It is 0 in the first
  round.

  Args:
    num_classes: C.
    feature_dim: D.
    regularization_weight: lambda, >= 0.
    flag: Flag of lambda.

  Raises:
    ValueError: If the weight is negative or not finite.
  """
  if not 0.0 <= regularization_weight < float('inf'):
    raise errors.UserError(
      f'Expected a regularization weight >= 0, found {regularization_weight}.'
    )
  weight = objective_lib.LossWeight(flag, regularization_weight)

  def loss_fn(features, logits, labels, head_fn, context):
    del head_fn  # Unused.
    cross_entropy = label_loss.cross_entropy(logits, labels, context)
    regularization = losses.class_mean_regularization(
      features, labels, context['prototypes'], context['present']
    )
    return {
      'loss': cross_entropy + weight.of(context) * regularization,
      'cross_entropy': cross_entropy,
      'regularization': regularization,
    }

  return objective_lib.ClientObjective(
    loss_fn=loss_fn,
    loss_names=('loss', 'cross_entropy', 'regularization'),
    context_fn=lambda known, *_: {
      'prototypes': known.prototypes,
      'present': known.present,
    },
    context_specs={
      'prototypes': tf.TensorSpec([num_classes, feature_dim]),
      'present': tf.TensorSpec([num_classes], tf.bool),
    },
    weights=(weight,),
  )


def build_fedproto(
  models: Sequence[functional.FunctionalModel],
  config: Optional[FedProtoConfig] = None,
  *,
  input_spec: input_spec_lib.InputSpec,
  optimizer: Optional[local_optimizer.LocalOptimizer] = None,
  local: Optional[local_training.LocalTrainingConfig] = None,
  class_means: Optional[prototypes.ClassMeanConfig] = None,
  aggregator_factory: Optional[
    tff.aggregators.UnweightedAggregationFactory
  ] = None,
) -> composer.StatefulProcess:
  """Builds the process of FedProto over heterogeneous, stateful clients.

  The types are those of `fedsa.build_fedsa`, but the server's model is a
  `server_model.PrototypeModel`. The server broadcasts it unchanged: clients
  send their prototypes and receive the global prototypes of the round before.
  The classifiers are `prototype` and `head`.

  The defaults differ from the reference code as FedSA's do: see
  `LocalTrainingConfig` and `ClassMeanConfig`.

  Args:
    models: One model per architecture. A client's state names its architecture.
    config: Hyper-parameters. Default: those of the reference.
    input_spec: How models see the clients' images.
    optimizer: Local optimizer; by default SGD with learning rate 0.01.
    local: Batches, epochs, kind of prototypes.
    class_means: How prototypes are averaged. The paper weighs them by examples.
    aggregator_factory: Takes `ClassPrototypes` and returns their mean; by
      default `class_mean.ClassMeanFactory()`.

  Raises:
    ValueError: If models and input spec do not fit each other, or a value is
      out of range.
  """
  num_classes, feature_dim = client_work_lib.check_models(models, input_spec)
  config = config or FedProtoConfig()
  class_means = class_means or prototypes.ClassMeanConfig()
  model_type = server_model.prototype_model_type(num_classes, feature_dim)
  client_work = client_work_lib.build_client_work(
    models,
    build_objective(num_classes, feature_dim, config.lambda_),
    model_type,
    update_fn=client_work_lib.class_prototypes_update_fn(class_means.weighting),
    optimizer=optimizer or local_optimizer.default_optimizer(),
    input_spec=input_spec,
    config=local or local_training.LocalTrainingConfig(),
  )
  aggregator = (aggregator_factory or class_mean.ClassMeanFactory()).create(
    prototypes.prototypes_type(num_classes, feature_dim)
  )
  return composer.compose_process(
    lambda: server_model.initial_prototype_model(num_classes, feature_dim),
    distribution.build_distributor(model_type),
    client_work,
    aggregator,
    finalizers.build_prototype_finalizer(
      num_classes, feature_dim, keep_missing=class_means.keep_missing
    ),
    limits=screening.Limits(class_means.weighting),
  )


METHOD = method.Method(
  name='fedproto',
  title='FedProto',
  config=FedProtoConfig,
  build_fn=build_fedproto,
  averages='prototypes',
  terms={
    'regularization': (
      'pull of features to global prototypes, unweighted, squared units'
    )
  },
  metrics={'classes_present': 'classes with a global prototype'},
)
