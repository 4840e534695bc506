"""FML: a shared model and each client's own model teach each other.

Source: Shen et al., "Federated Mutual Learning", 2020 (arXiv:2006.16765);
reference code `system/flcore/{clients/clientfml,servers/serverfml}.py`,
TsingZ0/HtFLlib@e959261.
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
  from tff_fedsa.aggregation import screening
  from tff_fedsa.aggregation import weighted_mean
  from tff_fedsa.client import client_work as client_work_lib
  from tff_fedsa.client import companion as companion_lib
  from tff_fedsa.client import label_loss
  from tff_fedsa.client import local_optimizer
  from tff_fedsa.client import local_training
  from tff_fedsa.client import objective as objective_lib
  from tff_fedsa.data import input_spec as input_spec_lib
  from tff_fedsa.maths import losses
  from tff_fedsa.models import functional
  from tff_fedsa.server import distribution
  from tff_fedsa.server import finalizers

_Share = Annotated[float, settings.AtLeast(0.0), settings.AtMost(1.0)]


@dataclasses.dataclass(frozen=True)
class FMLConfig(settings.Settings):
  """FML: the shared model, and the weights of mutual learning.

  The defaults of alpha and beta are those of `system/total.sh`, and the
  clipping that of the reference code, TsingZ0/HtFLlib.

  Attributes:
    shared_model: Architecture of the shared model, a name that --family takes.
      Default: the smallest architecture of the clients.
    alpha: Weight of the labels in the training of a client's own model, in [0,
      1]. The shared model's output has the rest.
    beta: Weight of the labels in the training of the shared model, in [0, 1].
      The output of the client's own model has the rest.
    weighting: Weight of a client's shared model in the mean: its examples
      (examples), or 1 (clients, the reference).
    clip_norm: Largest norm of each model's gradient in a step, >= 0. 0 turns
      clipping off.
    reference_losses: Average divergences also over classes, and let them move
      both models, teacher and pupil, as in the reference.
  """

  flag_prefix: ClassVar[str] = 'fml_'

  shared_model: Optional[str] = None
  alpha: _Share = 0.5
  beta: _Share = 0.5
  weighting: Annotated[str, settings.OneOf(prototypes.WEIGHTINGS)] = 'examples'
  clip_norm: Annotated[float, settings.AtLeast(0.0)] = 10.0
  reference_losses: bool = False


class FMLModel(NamedTuple):
  """The knowledge of FML's server.

  Attributes:
    shared_weights: float32[num_weights], flat weights of the shared model (the
      paper's meme model).
  """

  shared_weights: Any


def build_objective(
  alpha: float, beta: float, *, reference: bool = False
) -> objective_lib.ClientObjective:
  """Returns the objective of two models that teach each other.

    L        = alpha * L_ce(own)   + (1 - alpha) * KL(shared || own)
    L_shared = beta * L_ce(shared) + (1 - beta) * KL(own || shared)

  See `losses.mutual_distillation` and `pairs.ModelPair.build_train_step`.

  Args:
    alpha: Weight of the labels for the client's own model, in [0, 1].
    beta: Weight of the labels for the shared model, in [0, 1].
    reference: See `losses.mutual_distillation`.

  Raises:
    ValueError: If a weight is not in [0, 1].
  """
  for name, value in (('alpha', alpha), ('beta', beta)):
    if not 0.0 <= value <= 1.0:
      raise errors.UserError(f'Expected {name} in [0, 1], found {value}.')

  def loss_fn(features, logits, labels, head_fn, context):
    del features, head_fn  # Unused.
    shared_logits = context['shared_logits']
    cross_entropy = label_loss.cross_entropy(logits, labels, context)
    distillation, shared_distillation = losses.mutual_distillation(
      logits, shared_logits, reference=reference
    )
    return {
      'loss': alpha * cross_entropy + (1 - alpha) * distillation,
      'cross_entropy': cross_entropy,
      'distillation': distillation,
      'shared': beta * label_loss.cross_entropy(shared_logits, labels, context)
      + (1 - beta) * shared_distillation,
    }

  return objective_lib.ClientObjective(
    loss_fn, ('loss', 'cross_entropy', 'distillation', 'shared')
  )


def build_fml(
  models: Sequence[functional.FunctionalModel],
  config: Optional[FMLConfig] = None,
  *,
  input_spec: input_spec_lib.InputSpec,
  optimizer: Optional[local_optimizer.LocalOptimizer] = None,
  shared_model: Optional[functional.FunctionalModel] = None,
  local: Optional[local_training.LocalTrainingConfig] = None,
  model_seed: int = 0,
  aggregator_factory: Optional[
    tff.aggregators.UnweightedAggregationFactory
  ] = None,
) -> composer.StatefulProcess:
  """Builds the process of FML over heterogeneous, stateful clients.

  The types are those of `fedsa.build_fedsa`, but the server's model is an
  `FMLModel`. Clients begin a round with the shared model, train it in the same
  steps as their own model and send it back. The classifier is the `head` of the
  client's own model.

  Three things differ from the reference code. The mean weighs a client's shared
  model by examples. Teachers' logits are constants (see
  `losses.mutual_distillation`). The mean includes the shared model's BatchNorm
  statistics.

  Args:
    models: One model per architecture. A client's state names its architecture.
    config: Hyper-parameters.
    input_spec: How models see the clients' images.
    optimizer: Local optimizer of both models; by default SGD with learning rate
      0.01. For the shared model its state is reset in every round.
    shared_model: Replaces `config.shared_model`.
    local: Batches and epochs.
    model_seed: Seed of the first shared model.
    aggregator_factory: Takes a `weighted_mean.WeightedValue` and returns the
      mean; by default `weighted_mean.WeightedMeanFactory()`.

  Raises:
    ValueError: If models, shared model and input spec do not fit each other.
  """
  client_work_lib.check_models(models, input_spec)
  config = config or FMLConfig()
  shared = companion_lib.choose_model(
    models, shared_model or config.shared_model, input_spec
  )
  initial_model = FMLModel(shared.initial_weights(model_seed))
  model_type = tff.types.to_type(
    FMLModel(tff.TensorType(np.float32, (shared.num_weights,)))
  )

  def update_fn(unused_model, result):
    return weighted_mean.WeightedValue(
      result.companion,
      prototypes.upload_weights(result.num_examples, config.weighting),
    )

  client_work = client_work_lib.build_client_work(
    models,
    build_objective(
      config.alpha, config.beta, reference=config.reference_losses
    ),
    model_type,
    update_fn=update_fn,
    companion=companion_lib.Companion(
      shared,
      receive_fn=lambda broadcast: broadcast.shared_weights,
      clip_norm=config.clip_norm or None,
    ),
    optimizer=optimizer or local_optimizer.default_optimizer(),
    input_spec=input_spec,
    config=local or local_training.LocalTrainingConfig(),
  )
  update_type = client_work.type_signature.result.update

  def finalize_fn(model, mean):
    # If no client sent a model, the shared model stays.
    return FMLModel(tf.where(mean.weight > 0, mean.value, model.shared_weights))

  return composer.compose_process(
    lambda: initial_model,
    distribution.build_distributor(model_type),
    client_work,
    (aggregator_factory or weighted_mean.WeightedMeanFactory()).create(
      update_type
    ),
    finalizers.build_finalizer(model_type, update_type, finalize_fn),
    limits=screening.Limits(config.weighting),
  )


METHOD = method.Method(
  name='fml',
  title='FML',
  config=FMLConfig,
  build_fn=build_fml,
  terms={
    'distillation': "pull of logits to the shared model's, unweighted, nats",
    'shared': "the shared model's objective in clients' training, nats",
  },
)
