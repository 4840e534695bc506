"""FML: a shared model and each client's own teach each other.

Source: Shen et al., "Federated Mutual Learning", 2020 (arXiv:2006.16765);
reference code `system/flcore/{clients/clientfml,servers/serverfml}.py`,
TsingZ0/HtFLlib@e959261.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Optional

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_fedsa import composer
from tff_fedsa.aggregation import weighted_mean
from tff_fedsa.client import client_work as client_work_lib
from tff_fedsa.client import companion as companion_lib
from tff_fedsa.client import local_optimizer
from tff_fedsa.client import local_training
from tff_fedsa.client import objective as objective_lib
from tff_fedsa.data import input_spec as input_spec_lib
from tff_fedsa.maths import losses
from tff_fedsa.maths import prototypes
from tff_fedsa.models import functional
from tff_fedsa.server import distribution
from tff_fedsa.server import finalizers


class FMLModel(NamedTuple):
  """The knowledge of FML's server.

  Attributes:
    shared_weights: float32[num_weights], flat, of the shared model (the
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
    alpha: Weight of labels in the client's own model, in [0, 1].
    beta: Weight of labels in the shared model, in [0, 1].
    reference: See `losses.mutual_distillation`.

  Raises:
    ValueError: If a weight is not in [0, 1].
  """
  for name, value in (('alpha', alpha), ('beta', beta)):
    if not 0.0 <= value <= 1.0:
      raise ValueError(f'Expected {name} in [0, 1], found {value}.')

  def loss_fn(features, logits, labels, head_fn, context):
    del features, head_fn  # Unused.
    shared_logits = context['shared_logits']
    cross_entropy = losses.cross_entropy(logits, labels)
    distillation, shared_distillation = losses.mutual_distillation(
      logits, shared_logits, reference=reference
    )
    return {
      'loss': alpha * cross_entropy + (1 - alpha) * distillation,
      'cross_entropy': cross_entropy,
      'distillation': distillation,
      'shared': beta * losses.cross_entropy(shared_logits, labels)
      + (1 - beta) * shared_distillation,
    }

  return objective_lib.ClientObjective(
    loss_fn, ('loss', 'cross_entropy', 'distillation', 'shared')
  )


def build_fml(
  models: Sequence[functional.FunctionalModel],
  *,
  input_spec: input_spec_lib.InputSpec,
  optimizer: Optional[local_optimizer.LocalOptimizer] = None,
  shared_model: functional.FunctionalModel | str | None = None,
  alpha: float = 0.5,
  beta: float = 0.5,
  local: Optional[local_training.LocalTrainingConfig] = None,
  weighting: str = 'examples',
  clip_norm: Optional[float] = 10.0,
  reference_losses: bool = False,
  model_seed: int = 0,
  aggregator_factory: Optional[
    tff.aggregators.UnweightedAggregationFactory
  ] = None,
) -> composer.StatefulProcess:
  """Builds the process of FML over heterogeneous, stateful clients.

  The types are those of `fedsa.build_fedsa`, but the server's model is an
  `FMLModel`. Clients begin a round with its shared model, train it in the same
  steps as their own and send it back. Of its classifiers there is the `head`,
  of the client's own model.

  Differs from the reference code: a client's shared model counts by examples,
  teachers' logits are constants (see `losses.mutual_distillation`), and the
  shared model's BatchNorm statistics are averaged, too.

  Args:
    models: One per architecture; a client's state says which is its own.
    input_spec: Of the clients' images.
    optimizer: Local optimizer of both models; by default SGD with learning
      rate 0.01. The shared model's starts anew every round.
    shared_model: See `companion.choose_model`; by default the smallest of the
      clients' architectures.
    alpha: Weight of labels against the shared model's opinion, in [0, 1].
    beta: Weight of labels against the client's opinion in the training of the
      shared model, in [0, 1].
    local: Batches and epochs.
    weighting: `examples`: a client counts as much as the examples that it
      trained on; `clients` (reference): all count the same.
    clip_norm: Largest norm of each model's gradient in a step; None lets it be.
    reference_losses: See `losses.mutual_distillation`.
    model_seed: The first shared model follows from it.
    aggregator_factory: Takes a `weighted_mean.WeightedValue` and returns the
      mean; by default `weighted_mean.WeightedMeanFactory()`.

  Raises:
    ValueError: If models, shared model and input spec do not fit each other,
      or a value is out of range.
  """
  client_work_lib.check_models(models, input_spec)
  prototypes.check_weighting(weighting)
  shared = companion_lib.choose_model(models, shared_model, input_spec)
  initial_model = FMLModel(shared.initial_weights(model_seed))
  model_type = tff.types.to_type(
    FMLModel(tff.TensorType(np.float32, (shared.num_weights,)))
  )

  def update_fn(unused_model, result):
    return weighted_mean.WeightedValue(
      result.companion,
      prototypes.upload_weights(result.num_examples, weighting),
    )

  client_work = client_work_lib.build_client_work(
    models,
    build_objective(alpha, beta, reference=reference_losses),
    model_type,
    update_fn=update_fn,
    companion=companion_lib.Companion(
      shared,
      receive_fn=lambda broadcast: broadcast.shared_weights,
      clip_norm=clip_norm,
    ),
    optimizer=optimizer or local_optimizer.default_optimizer(),
    input_spec=input_spec,
    config=local or local_training.LocalTrainingConfig(),
  )
  update_type = client_work.type_signature.result.update

  def finalize_fn(model, mean):
    # Without any client the shared model stays.
    return FMLModel(tf.where(mean.weight > 0, mean.value, model.shared_weights))

  return composer.compose_process(
    lambda: initial_model,
    distribution.build_distributor(model_type),
    client_work,
    (aggregator_factory or weighted_mean.WeightedMeanFactory()).create(
      update_type
    ),
    finalizers.build_finalizer(model_type, update_type, finalize_fn),
  )
