"""FedDistill (FD): clients exchange the mean logits of each class.

Source: Jeong et al., "Communication-Efficient On-Device Machine Learning:
Federated Distillation and Augmentation under Non-IID Private Data", 2018
(arXiv:1811.11479); reference code
`system/flcore/{clients/clientdistill,servers/serverdistill}.py`,
TsingZ0/PFLlib@2b077c1. We use its squared error. HtFLlib's `clientfd.py` passes
logits to a cross-entropy that expects probabilities.
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


@dataclasses.dataclass(frozen=True)
class FedDistillConfig(settings.Settings):
  """FedDistill: the pull to mean logits.

  Attributes:
    lambda_: Weight of the pull to mean logits, >= 0. 1 is the value of
      HtFLlib's `total.sh`.
  """

  flag_prefix: ClassVar[str] = 'feddistill_'

  lambda_: Annotated[float, settings.AtLeast(0.0)] = 1.0


class LogitModel(NamedTuple):
  """The knowledge of FedDistill's server.

  Attributes:
    logits: float32[num_classes, num_classes]. Row `c` holds the mean logits of
      examples of class `c`, or zeros if `present[c]` is False.
    present: bool[num_classes], whether a class has mean logits.
  """

  logits: Any
  present: Any


def build_objective(
  num_classes: int, distillation_weight: float
) -> objective_lib.ClientObjective:
  """Returns the objective of clients: their logits approach mean logits.

    L = L_ce + lambda L_dist

  The server broadcasts a `LogitModel`. L_dist is
  `losses.class_mean_regularization` of the logits. It is 0 in the first round.

  Args:
    num_classes: C.
    distillation_weight: lambda, >= 0.

  Raises:
    ValueError: If the weight is negative or not finite.
  """
  if not 0.0 <= distillation_weight < float('inf'):
    raise errors.UserError(
      f'Expected a distillation weight >= 0, found {distillation_weight}.'
    )
  weight = objective_lib.LossWeight('feddistill_lambda', distillation_weight)

  def loss_fn(features, logits, labels, head_fn, context):
    del features, head_fn  # Unused.
    cross_entropy = label_loss.cross_entropy(logits, labels, context)
    distillation = losses.class_mean_regularization(
      logits, labels, context['logits'], context['present']
    )
    return {
      'loss': cross_entropy + weight.of(context) * distillation,
      'cross_entropy': cross_entropy,
      'distillation': distillation,
    }

  return objective_lib.ClientObjective(
    loss_fn=loss_fn,
    loss_names=('loss', 'cross_entropy', 'distillation'),
    context_fn=lambda known, *_: {
      'logits': known.logits,
      'present': known.present,
    },
    context_specs={
      'logits': tf.TensorSpec([num_classes, num_classes]),
      'present': tf.TensorSpec([num_classes], tf.bool),
    },
    averages_logits=True,
    weights=(weight,),
  )


def build_feddistill(
  models: Sequence[functional.FunctionalModel],
  config: Optional[FedDistillConfig] = None,
  *,
  input_spec: input_spec_lib.InputSpec,
  optimizer: Optional[local_optimizer.LocalOptimizer] = None,
  local: Optional[local_training.LocalTrainingConfig] = None,
  class_means: Optional[prototypes.ClassMeanConfig] = None,
  aggregator_factory: Optional[
    tff.aggregators.UnweightedAggregationFactory
  ] = None,
) -> composer.StatefulProcess:
  """Builds the process of FedDistill over heterogeneous, stateful clients.

  The types are those of `fedsa.build_fedsa`, but the server's model is a
  `LogitModel`. The server broadcasts it unchanged. The classifier is the
  `head`.

  Args:
    models: One model per architecture. A client's state names its architecture.
    config: Hyper-parameters. Default: those of the reference.
    input_spec: How models see the clients' images.
    optimizer: Local optimizer; by default SGD with learning rate 0.01.
    local: Batches and epochs. `prototypes` applies to mean logits, too.
    class_means: How mean logits are averaged.
    aggregator_factory: Takes `ClassPrototypes` of logits and returns their
      mean. Default: `class_mean.ClassMeanFactory()`.

  Raises:
    ValueError: If models and input spec do not fit each other, or a value is
      out of range.
  """
  num_classes, _ = client_work_lib.check_models(models, input_spec)
  config = config or FedDistillConfig()
  class_means = class_means or prototypes.ClassMeanConfig()
  model_type = tff.types.to_type(
    LogitModel(
      logits=tff.TensorType(np.float32, (num_classes, num_classes)),
      present=tff.TensorType(np.bool_, (num_classes,)),
    )
  )
  update_type = prototypes.prototypes_type(num_classes, num_classes)

  def update_fn(unused_model, result):
    return prototypes.ClassPrototypes(
      result.class_logits,
      prototypes.upload_weights(result.counts, class_means.weighting),
    )

  def finalize_fn(model, update):
    return LogitModel(
      *finalizers.known_classes(
        update, model.logits, model.present, class_means.keep_missing
      )
    )

  return composer.compose_process(
    lambda: LogitModel(
      np.zeros([num_classes, num_classes], np.float32),
      np.zeros([num_classes], np.bool_),
    ),
    distribution.build_distributor(model_type),
    client_work_lib.build_client_work(
      models,
      build_objective(num_classes, config.lambda_),
      model_type,
      update_fn=update_fn,
      optimizer=optimizer or local_optimizer.default_optimizer(),
      input_spec=input_spec,
      config=local or local_training.LocalTrainingConfig(),
    ),
    (aggregator_factory or class_mean.ClassMeanFactory()).create(update_type),
    finalizers.build_finalizer(model_type, update_type, finalize_fn),
    limits=screening.Limits(class_means.weighting),
  )


METHOD = method.Method(
  name='feddistill',
  title='FedDistill',
  config=FedDistillConfig,
  build_fn=build_feddistill,
  averages='logits',
  terms={
    'distillation': 'pull of logits to mean logits, unweighted, squared logits'
  },
  metrics={'classes_present': 'classes with mean logits'},
)
