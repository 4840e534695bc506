"""FedKD: mutual distillation with a shared model, sent compressed.

Source: Wu et al., "Communication-efficient federated learning via knowledge
distillation", Nature Communications 2022 (arXiv:2108.13323); reference code
`system/flcore/{clients/clientkd,servers/serverkd}.py`, TsingZ0/HtFLlib@e959261.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence
import dataclasses
import math
from typing import Annotated, Any, ClassVar, NamedTuple, Optional

from etils import epy
import numpy as np

from tff_fedsa import settings
from tff_fedsa.algorithms import method
from tff_fedsa.maths import prototypes

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
  from tff_fedsa.maths import low_rank
  from tff_fedsa.models import functional
  from tff_fedsa.server import distribution
  from tff_fedsa.server import finalizers

_Energy = Annotated[float, settings.Above(0.0), settings.AtMost(1.0)]


@dataclasses.dataclass(frozen=True)
class FedKDConfig(settings.Settings):
  """FedKD: the shared model, its training and its compression.

  The defaults of the energies are those of `system/total.sh`, and the clipping
  that of the reference code, TsingZ0/HtFLlib.

  Attributes:
    shared_model: Architecture of the shared model, a name that --family takes.
      Default: the smallest architecture of the clients.
    shared_learning_rate: Learning rate of the clients' optimizer for the shared
      model, >= 0. Default: the learning rate for their own models.
    energy_start: Share of the squared singular values that compression keeps
      in the first round, in (0, 1].
    energy_end: Share that compression keeps after `energy_rounds`. In between
      the share grows linearly.
    energy_rounds: Rounds until compression keeps `energy_end`, >= 1. The paper
      uses the length of the run. Here it is a separate number, so that a longer
      run repeats a shorter one.
    weighting: Weight of a client's update in the mean: its examples
      (examples), or 1 (clients, the reference).
    clip_norm: Largest norm of the gradient of each model, and of W_h, in a
      step, >= 0. 0 turns clipping off.
    reference_losses: Average divergences also over classes, and let all terms
      move both models, as in the reference.
    reference_compression: Compress weights instead of updates, and convolutions
      kernel by kernel, as in the reference.
  """

  flag_prefix: ClassVar[str] = 'fedkd_'

  shared_model: Optional[str] = None
  shared_learning_rate: Annotated[Optional[float], settings.AtLeast(0.0)] = None
  energy_start: _Energy = 0.95
  energy_end: _Energy = 0.98
  energy_rounds: Annotated[int, settings.AtLeast(1)] = 100
  weighting: Annotated[str, settings.OneOf(prototypes.WEIGHTINGS)] = 'examples'
  clip_norm: Annotated[float, settings.AtLeast(0.0)] = 10.0
  reference_losses: bool = False
  reference_compression: bool = False

  def energy_at(self, round_num: tf.Tensor) -> tf.Tensor:
    """Returns the share that compression keeps in a round, float32 in (0, 1].

      T(t) = start + min(t / rounds, 1) * (end - start)

    Args:
      round_num: int32 scalar, counted from 0.
    """
    progress = tf.minimum(
      tf.cast(round_num, tf.float32) / self.energy_rounds, 1.0
    )
    return self.energy_start + progress * (self.energy_end - self.energy_start)


class FedKDModel(NamedTuple):
  """The knowledge of FedKD's server.

  Attributes:
    shared_weights: float32[num_weights], flat weights of the shared model (the
      paper's mentee; a client's own model is its mentor).
    energy: float32 scalar in (0, 1], the share that compression keeps in this
      round.
    num_floats: float32 scalar, how many numbers the server sends to a client
      that has the weights of the round before.
  """

  shared_weights: Any
  energy: Any
  num_floats: Any


def build_objective(
  *, reference: bool = False
) -> objective_lib.ClientObjective:
  """Returns the objective of two models that distill into each other.

    L        = L_ce        + (KL(shared || own) + L_hidden) / (L_ce + L_ce_s)
    L_shared = L_ce_s      + (KL(own || shared) + L_hidden) / (L_ce + L_ce_s)
    L_hidden = mean over b and d of (z[b, d] - (z_s W_h)[b, d])^2

  The larger the errors of the models, the less they learn from each other. W_h
  is a matrix of the client (`private`), and both terms move it. See
  `losses.mutual_distillation` and `pairs.ModelPair.build_train_step`. The
  output of the other model is a constant, also in the divisor, except with
  `reference`.

  Args:
    reference: See `losses.mutual_distillation`.
  """

  def from_other(tensor):
    return tensor if reference else tf.stop_gradient(tensor)

  def loss_fn(features, logits, labels, head_fn, context):
    del head_fn  # Unused.
    shared_features = context['shared_features']
    (transformation,) = context['private']
    own = label_loss.cross_entropy(logits, labels, context)
    shared = label_loss.cross_entropy(context['shared_logits'], labels, context)
    distillation, shared_distillation = losses.mutual_distillation(
      logits, context['shared_logits'], reference=reference
    )

    def hidden(features, shared_features):
      return tf.reduce_mean(
        tf.math.squared_difference(features, shared_features @ transformation)
      )

    own_hidden = hidden(features, from_other(shared_features))
    shared_hidden = hidden(from_other(features), shared_features)
    return {
      'loss': own
      + tf.math.divide_no_nan(
        distillation + own_hidden, own + from_other(shared)
      ),
      'cross_entropy': own,
      'distillation': distillation,
      'hidden': own_hidden,
      'shared': shared
      + tf.math.divide_no_nan(
        shared_distillation + shared_hidden, from_other(own) + shared
      ),
    }

  return objective_lib.ClientObjective(
    loss_fn, ('loss', 'cross_entropy', 'distillation', 'hidden', 'shared')
  )


def build_finalizer(
  model: functional.FunctionalModel, config: FedKDConfig
) -> tff.learning.templates.FinalizerProcess:
  """Returns the process that compresses the mean update and applies it.

  See `finalizers.build_training_finalizer`. The model is a `FedKDModel`. The
  update is a `weighted_mean.WeightedValue`. The measurements describe the
  message to clients: `bytes_down_per_client`, energy and round number included,
  and `compression_down`, the ratio of uncompressed to compressed size.

  Args:
    model: The shared model.
    config: Settings of the compression.
  """
  reference_compression = config.reference_compression
  compress = _compression(model, reference_compression)

  def finalize_fn(known, mean, round_seed):
    base = _base(known, reference_compression)
    compressed = compress(mean.value, known.energy)
    sent = mean.weight > 0
    new_model = FedKDModel(
      # If no client sent an update, the shared model stays.
      tf.where(sent, base + compressed.vector, known.shared_weights),
      config.energy_at(round_seed[1] + 1),
      # Then there is no update, and the weights are sent again.
      tf.where(
        sent,
        compressed.num_floats,
        known.num_floats if reference_compression else 0.0,
      ),
    )
    full = 4.0 * model.num_weights + 8
    needed = 4.0 * known.num_floats + 8
    return new_model, collections.OrderedDict(
      bytes_down_per_client=needed, compression_down=full / needed
    )

  return finalizers.build_training_finalizer(
    _model_type(model),
    tff.types.to_type(
      weighted_mean.WeightedValue(
        tff.TensorType(np.float32, (model.num_weights,)),
        tff.TensorType(np.float32),
      )
    ),
    finalize_fn,
  )


def build_fedkd(
  models: Sequence[functional.FunctionalModel],
  config: Optional[FedKDConfig] = None,
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
  """Builds the process of FedKD over heterogeneous, stateful clients.

  The types are those of `fedsa.build_fedsa`, but the server's model is a
  `FedKDModel`. Clients begin a round with the shared model, train it in the
  same steps as their own model and send its update, compressed. The server
  compresses the mean of the updates and applies it. The classifier is the
  `head` of the client's own model.

  The simulation sends whole matrices, so that types are static. It measures the
  bytes that their factors would take: `bytes_up_per_client`,
  `bytes_down_per_client`, `compression_up` and `compression_down`. It assumes
  that a client that missed the round before has that round's update.

  Four things differ from the reference code. The mean weighs a client by
  examples. The output of the other model is a constant (see `build_objective`).
  Updates are compressed, as in the paper and the authors' code, not weights. A
  matrix that needs all of its singular values is kept, not dropped.

  Args:
    models: One model per architecture. A client's state names its architecture.
    config: Hyper-parameters.
    input_spec: How models see the clients' images.
    optimizer: Local optimizer; by default SGD with learning rate 0.01. For the
      shared model and W_h its state is reset in every round.
    shared_model: Replaces `config.shared_model`.
    local: Batches and epochs.
    model_seed: Seed of the first shared model and of the first W_h, which is
      the same for all clients.
    aggregator_factory: Takes a `weighted_mean.WeightedValue` and returns the
      mean; by default `weighted_mean.WeightedMeanFactory()`.

  Raises:
    ValueError: If models, shared model and input spec do not fit each other.
  """
  _, feature_dim = client_work_lib.check_models(models, input_spec)
  config = config or FedKDConfig()
  reference_compression = config.reference_compression
  optimizer = optimizer or local_optimizer.default_optimizer()
  shared = companion_lib.choose_model(
    models, shared_model or config.shared_model, input_spec
  )
  compress = _compression(shared, reference_compression)
  model_type = _model_type(shared)
  initial_weights = shared.initial_weights(model_seed)

  def send_fn(known, weights):
    return compress(weights - _base(known, reference_compression), known.energy)

  def initial_private_fn():
    # The distribution of PyTorch's linear layers.
    bound = 1.0 / math.sqrt(feature_dim)
    shape = [feature_dim, feature_dim]
    return [tf.random.stateless_uniform(shape, [model_seed, 0], -bound, bound)]

  def measure_fn(result):
    full = 4.0 * shared.num_weights + 4
    needed = 4.0 * result.companion.num_floats + 4
    return {'bytes_up_per_client': needed, 'compression_up': full / needed}

  def update_fn(unused_model, result):
    return weighted_mean.WeightedValue(
      result.companion.vector,
      prototypes.upload_weights(result.num_examples, config.weighting),
    )

  client_work = client_work_lib.build_client_work(
    models,
    build_objective(reference=config.reference_losses),
    model_type,
    update_fn=update_fn,
    companion=companion_lib.Companion(
      shared,
      receive_fn=lambda known: known.shared_weights,
      send_fn=send_fn,
      optimizer=optimizer.restarted(config.shared_learning_rate),
      clip_norm=config.clip_norm or None,
      private_specs=[tf.TensorSpec([feature_dim, feature_dim])],
      initial_private_fn=initial_private_fn,
    ),
    measure_fn=measure_fn,
    optimizer=optimizer,
    input_spec=input_spec,
    config=local or local_training.LocalTrainingConfig(),
  )
  return composer.compose_process(
    lambda: FedKDModel(
      initial_weights,
      np.float32(config.energy_start),
      np.float32(shared.num_weights),
    ),
    distribution.build_distributor(model_type),
    client_work,
    (aggregator_factory or weighted_mean.WeightedMeanFactory()).create(
      client_work.type_signature.result.update
    ),
    build_finalizer(shared, config),
    limits=screening.Limits(config.weighting),
  )


def _base(known, reference_compression):
  """Returns the weights to which an update is added."""
  if reference_compression:
    return tf.zeros_like(known.shared_weights)
  return known.shared_weights


def _compression(model, reference_compression):
  return low_rank.build_compression(
    model.trainable_specs + model.state_specs, kernelwise=reference_compression
  )


def _model_type(model):
  scalar = tff.TensorType(np.float32)
  return tff.types.to_type(
    FedKDModel(tff.TensorType(np.float32, (model.num_weights,)), scalar, scalar)
  )


METHOD = method.Method(
  name='fedkd',
  title='FedKD',
  config=FedKDConfig,
  build_fn=build_fedkd,
  terms={
    'distillation': "pull of logits to the shared model's, unweighted, nats",
    'hidden': (
      "pull of features to the shared model's, transformed, unweighted, "
      'squared units'
    ),
    'shared': "the shared model's objective in clients' training, nats",
  },
  metrics={
    'compression_down': (
      'size without compression / size, of the message to a ' 'client'
    ),
    'compression_up': (
      "size without compression / size, of a client's message, " 'mean'
    ),
  },
)
