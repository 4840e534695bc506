"""FedTGP: the server trains global prototypes, with an adaptive margin.

Source: Zhang et al., "FedTGP: Trainable Global Prototypes with
Adaptive-Margin-Enhanced Contrastive Learning for Data and Model Heterogeneity
in Federated Learning", AAAI 2024 (arXiv:2401.03230); reference code
`system/flcore/{clients/clienttgp,servers/servertgp}.py`, lokinko/FedSA@75bf106
and TsingZ0/HtFLlib@e959261.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence
import dataclasses
from typing import Annotated, Any, ClassVar, NamedTuple, Optional

from etils import epy
import numpy as np

from tff_fedsa import settings
from tff_fedsa.algorithms import method
from tff_fedsa.maths import prototypes
from tff_fedsa.runs import errors
from tff_fedsa.server import server_training

with epy.lazy_imports():
  import tensorflow as tf
  import tensorflow_federated as tff

  from tff_fedsa import composer
  from tff_fedsa.aggregation import collecting
  from tff_fedsa.aggregation import robust_means
  from tff_fedsa.aggregation import screening
  from tff_fedsa.algorithms import fedproto
  from tff_fedsa.client import client_work as client_work_lib
  from tff_fedsa.client import local_optimizer
  from tff_fedsa.client import local_training
  from tff_fedsa.data import input_spec as input_spec_lib
  from tff_fedsa.maths import distances
  from tff_fedsa.maths import losses
  from tff_fedsa.maths import margins
  from tff_fedsa.models import functional
  from tff_fedsa.server import distribution
  from tff_fedsa.server import finalizers
  from tff_fedsa.server import server_model


@dataclasses.dataclass(frozen=True)
class FedTGPConfig(settings.Settings):
  """FedTGP: the pull to prototypes, and the server's training.

  The defaults are those of `system/total.sh`, TsingZ0/HtFLlib.

  Attributes:
    lambda_: Weight of the pull to global prototypes, >= 0.
    server_epochs: The server's passes over the prototypes of a round, >= 1.
    server_learning_rate: Learning rate of the server's SGD on the prototypes,
      >= 0. Default: the learning rate of the clients, as in the reference.
    max_margin: Upper bound of the margin, feature distance, >= 0.
    reference_order: Send prototypes of the model from before the round, not of
      the trained model. The reference does so, because it computes prototypes
      before it saves the model.
  """

  flag_prefix: ClassVar[str] = 'fedtgp_'

  lambda_: Annotated[float, settings.AtLeast(0.0)] = 10.0
  server_epochs: Annotated[int, settings.AtLeast(1)] = 100
  server_learning_rate: Annotated[Optional[float], settings.AtLeast(0.0)] = None
  max_margin: Annotated[float, settings.AtLeast(0.0)] = 100.0
  reference_order: bool = False


class Generator(NamedTuple):
  """Weights of the network that makes a prototype of each class.

    P = ReLU(E W1 + b1) W2 + b2

  Attributes:
    embedding: float32[num_classes, feature_dim], E.
    hidden_kernel: float32[feature_dim, feature_dim], W1, `[in, out]`.
    hidden_bias: float32[feature_dim], b1.
    output_kernel: float32[feature_dim, feature_dim], W2, `[in, out]`.
    output_bias: float32[feature_dim], b2.
  """

  embedding: Any
  hidden_kernel: Any
  hidden_bias: Any
  output_kernel: Any
  output_bias: Any


class FedTGPModel(NamedTuple):
  """The knowledge of FedTGP's server.

  Attributes:
    generator: `Generator`, trained over all rounds. It stays at the server.
    prototypes: float32[num_classes, feature_dim], the generator's output.
    present: bool[num_classes], all True after the first round.
  """

  generator: Any
  prototypes: Any
  present: Any


def initial_generator(
  num_classes: int, feature_dim: int, seed: int = 0
) -> Generator:
  """Draws a generator from PyTorch's distributions.

  The embedding ~ N(0, 1); kernels and biases ~ U(-1/sqrt(D), 1/sqrt(D)).
  """
  rng = np.random.default_rng(seed)
  bound = 1.0 / np.sqrt(feature_dim)

  def uniform(*shape):
    return rng.uniform(-bound, bound, shape).astype(np.float32)

  square = (feature_dim, feature_dim)
  return Generator(
    rng.standard_normal((num_classes, feature_dim)).astype(np.float32),
    uniform(*square),
    uniform(feature_dim),
    uniform(*square),
    uniform(feature_dim),
  )


def generate(generator: Generator) -> tf.Tensor:
  """Returns the prototypes, float32[num_classes, feature_dim]."""
  hidden = generator.embedding @ generator.hidden_kernel + generator.hidden_bias
  return tf.nn.relu(hidden) @ generator.output_kernel + generator.output_bias


def server_margin(
  collected: prototypes.ClassPrototypes, max_margin: float
) -> tf.Tensor:
  """Returns the margin of a round: the largest gap between class centers.

  The center of a class is the mean of its prototypes over clients. The gap of a
  class is the distance from its center to the nearest other center.

  Args:
    collected: See `server_training.train`.
    max_margin: Upper bound of the margin. It is the margin if fewer than two
      classes were sent.

  Returns:
    float32 scalar in [0, max_margin].
  """
  held = tf.cast(collected.weights > 0, tf.float32)
  counts = tf.reduce_sum(held, axis=0)
  means = prototypes.class_means(
    tf.einsum('mc,mcd->cd', held, collected.vectors), counts
  )
  gaps = margins.nearest_class_distances(means, counts > 0)
  known = tf.math.is_finite(gaps)
  largest = tf.reduce_max(tf.where(known, gaps, tf.zeros_like(gaps)))
  return tf.where(
    tf.reduce_any(known), tf.minimum(largest, max_margin), max_margin
  )


def generator_loss(
  generator: Generator, vectors: tf.Tensor, labels: tf.Tensor, margin: tf.Tensor
) -> tf.Tensor:
  """Returns the loss of classifying clients' prototypes by generated ones.

    L = CE(-(d + onehot(y) * margin), y),  d_bk = ||v_b - P_k||_2

  If a prototype equals a generated one, the gradient is finite. The reference's
  gradient is not (see `distances.distances`).

  Args:
    generator: Generates P.
    vectors: float32[batch, feature_dim], prototypes of clients.
    labels: int32[batch], their classes.
    margin: float32 scalar, see `server_margin`.

  Returns:
    float32 scalar >= 0, nats per prototype.
  """
  generated = generate(generator)
  to_generated = distances.distances(vectors, generated)
  is_true_class = tf.one_hot(labels, tf.shape(generated)[0])
  return losses.cross_entropy(-(to_generated + margin * is_true_class), labels)


def build_finalizer(
  num_classes: int,
  feature_dim: int,
  config: server_training.ServerTrainingConfig,
  *,
  max_margin: float = 100.0,
  seed: int = 0,
) -> tff.learning.templates.FinalizerProcess:
  """Returns the process that trains the generator and generates prototypes.

  See `finalizers.build_training_finalizer`. The model is a `FedTGPModel`. The
  update holds the prototypes of all clients. The measurements are
  `server_loss`, the mean over the last epoch, and `server_margin`.

  Args:
    num_classes: C.
    feature_dim: D.
    config: Epochs, batch size and learning rate.
    max_margin: See `server_margin`.
    seed: Seed of the order of prototypes.

  Raises:
    ValueError: If `max_margin` is negative.
  """
  if not max_margin >= 0.0:
    raise errors.UserError(f'Expected max_margin >= 0, found {max_margin}.')

  def train_fn(model, collected, round_seed):
    margin = server_margin(collected, max_margin)
    generator, loss = server_training.train(
      model.generator,
      lambda generator, vectors, labels: generator_loss(
        generator, vectors, labels, margin
      ),
      collected,
      config,
      round_seed,
    )
    measurements = collections.OrderedDict(
      server_loss=loss, server_margin=margin
    )
    return FedTGPModel(
      generator, generate(generator), tf.ones([num_classes], tf.bool)
    ), measurements

  one_client = prototypes.prototypes_type(num_classes, feature_dim)
  aggregator = collecting.CollectingFactory().create(one_client)
  return finalizers.build_training_finalizer(
    _model_type(num_classes, feature_dim),
    aggregator.next.type_signature.result.result.member,
    train_fn,
    seed=seed,
  )


def build_fedtgp(
  models: Sequence[functional.FunctionalModel],
  config: Optional[FedTGPConfig] = None,
  *,
  input_spec: input_spec_lib.InputSpec,
  optimizer: Optional[local_optimizer.LocalOptimizer] = None,
  local: Optional[local_training.LocalTrainingConfig] = None,
  model_seed: int = 0,
  aggregator_factory: Optional[
    tff.aggregators.UnweightedAggregationFactory
  ] = None,
) -> composer.StatefulProcess:
  """Builds the process of FedTGP over heterogeneous, stateful clients.

  The types are those of `fedsa.build_fedsa`, but the server's model is a
  `FedTGPModel`. The server broadcasts its prototypes. After training, clients
  compute prototypes in a clean pass and send them. The server sees the
  prototypes of each client. The classifiers are `prototype` and `head`.

  The reference code differs: it makes this pass before it saves the trained
  model. So its prototypes belong to the weights from before the round.
  `config.reference_order` does the same.

  Args:
    models: One model per architecture. A client's state names its architecture.
    config: Hyper-parameters. Default: those of the reference.
    input_spec: How models see the clients' images.
    optimizer: Local optimizer; by default SGD with learning rate 0.01.
    local: Batches and epochs. The server uses the same batch size. `prototypes`
      has no effect.
    model_seed: Seed of the initial generator and of the server's order of
      prototypes.
    aggregator_factory: Takes `ClassPrototypes` and returns their mean. The
      server then sees this mean as if one client had sent it. Default: the
      server sees the prototypes of each client.

  Raises:
    ValueError: If models and input spec do not fit each other, or neither
      `config` nor `optimizer` sets the server's learning rate.
  """
  num_classes, feature_dim = client_work_lib.check_models(models, input_spec)
  config = config or FedTGPConfig()
  optimizer = optimizer or local_optimizer.default_optimizer()
  local = dataclasses.replace(
    local or local_training.LocalTrainingConfig(),
    prototypes='initial' if config.reference_order else 'final',
  )
  learning_rate = config.server_learning_rate
  if learning_rate is None:
    learning_rate = optimizer.learning_rate
  if learning_rate is None:
    raise errors.UserError(
      "The clients' optimizer has no learning rate for the server to take: "
      'FedTGP needs `server_learning_rate`.'
    )
  server_config = server_training.ServerTrainingConfig(
    config.server_epochs, local.batch_size, learning_rate
  )
  distributor = distribution.build_distributor(
    _model_type(num_classes, feature_dim),
    lambda model: tff.federated_zip(
      server_model.PrototypeModel(model.prototypes, model.present)
    ),
  )
  client_work = client_work_lib.build_client_work(
    models,
    fedproto.build_objective(
      num_classes, feature_dim, config.lambda_, flag='fedtgp_lambda'
    ),
    distributor.next.type_signature.result.result.member,
    update_fn=client_work_lib.class_prototypes_update_fn(),
    optimizer=optimizer,
    input_spec=input_spec,
    config=local,
  )
  return composer.compose_process(
    lambda: FedTGPModel(
      initial_generator(num_classes, feature_dim, model_seed),
      *server_model.initial_prototype_model(num_classes, feature_dim),
    ),
    distributor,
    client_work,
    robust_means.collector(aggregator_factory).create(
      prototypes.prototypes_type(num_classes, feature_dim)
    ),
    build_finalizer(
      num_classes,
      feature_dim,
      server_config,
      max_margin=config.max_margin,
      seed=model_seed,
    ),
    limits=screening.Limits('clients'),
  )


def _model_type(num_classes, feature_dim):
  known = server_model.prototype_model_type(num_classes, feature_dim)
  square = tff.TensorType(np.float32, (feature_dim, feature_dim))
  bias = tff.TensorType(np.float32, (feature_dim,))
  return tff.types.to_type(
    FedTGPModel(
      Generator(known.prototypes, square, bias, square, bias),
      known.prototypes,
      known.present,
    )
  )


METHOD = method.Method(
  name='fedtgp',
  title='FedTGP',
  config=FedTGPConfig,
  build_fn=build_fedtgp,
  sees_clients='Its server trains on the prototypes of each client.',
  collects_prototypes=True,
  terms={
    'regularization': (
      'pull of features to global prototypes, unweighted, squared units'
    )
  },
  metrics={
    **server_training.COLUMNS,
    'server_margin': "margin of the server's training, feature distance",
    'classes_present': 'classes with a global prototype',
  },
)
