"""FedGen: the server trains a generator of features for the clients.

Source: Zhu et al., "Data-Free Knowledge Distillation for Heterogeneous
Federated Learning", ICML 2021 (arXiv:2105.10056); reference code
`system/flcore/{clients/clientgen,servers/servergen}.py`,
TsingZ0/HtFLlib@e959261. The authors' own code is zhuangdizhu/FedGen@dd5807c.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Sequence
import dataclasses
from typing import Annotated, Any, ClassVar, NamedTuple, Optional

from etils import epy
import numpy as np

from tff_fedsa import settings
from tff_fedsa.algorithms import method
from tff_fedsa.runs import errors
from tff_fedsa.server import server_training

with epy.lazy_imports():
  import tensorflow as tf
  import tensorflow_federated as tff

  from tff_fedsa import composer
  from tff_fedsa.aggregation import collecting
  from tff_fedsa.aggregation import screening
  from tff_fedsa.client import client_work as client_work_lib
  from tff_fedsa.client import label_loss
  from tff_fedsa.client import local_optimizer
  from tff_fedsa.client import local_training
  from tff_fedsa.client import objective as objective_lib
  from tff_fedsa.data import input_spec as input_spec_lib
  from tff_fedsa.maths import losses
  from tff_fedsa.models import functional
  from tff_fedsa.models import generator as generator_lib
  from tff_fedsa.server import distribution
  from tff_fedsa.server import finalizers
  from tff_fedsa.server import server_model

ENSEMBLE_WEIGHTINGS = ('examples', 'labels')

# PyTorch's default.
_ADAM_EPSILON = 1e-8


@dataclasses.dataclass(frozen=True)
class FedGenConfig(settings.Settings):
  """FedGen: the generator, and training with it.

  The defaults are those of TsingZ0/HtFLlib's `main.py`.

  Attributes:
    lambda_: Weight of the cross-entropy of generated features, >= 0.
    noise_dim: Length of the noise vector from which a feature is generated, >=
      1.
    hidden_dim: Units of the generator's hidden layer, >= 1.
    server_epochs: The server's steps on the generator in a round, >= 0. Each
      step draws a new batch. 0 never trains the generator. Clients of the
      reference see an untrained generator, too, because the reference does not
      save the trained one.
    generator_learning_rate: Learning rate of the server's Adam on the
      generator, >= 0.
    ensemble_weighting: Weight of a client's head in the training of the
      generator: the client's examples (examples, the reference), or its
      examples of the generated class (labels, the authors' code).
  """

  flag_prefix: ClassVar[str] = 'fedgen_'

  lambda_: Annotated[float, settings.AtLeast(0.0)] = 1.0
  noise_dim: Annotated[int, settings.AtLeast(1)] = 512
  hidden_dim: Annotated[int, settings.AtLeast(1)] = 512
  server_epochs: Annotated[int, settings.AtLeast(0)] = 100
  generator_learning_rate: Annotated[float, settings.AtLeast(0.0)] = 0.005
  ensemble_weighting: Annotated[str, settings.OneOf(ENSEMBLE_WEIGHTINGS)] = (
    'examples'
  )

  @property
  def sizes(self) -> dict[str, int]:
    """Returns the sizes of the generator, as `models.generator` takes them."""
    return {'noise_dim': self.noise_dim, 'hidden_dim': self.hidden_dim}


class FedGenModel(NamedTuple):
  """The knowledge of FedGen's server.

  Attributes:
    generator: `Generator`, trained over all rounds.
    head: Tuple of float32 tensors, the mean of the clients' heads.
    label_counts: float32[num_classes], examples of each class behind the
      updates of all rounds. The probability of a drawn label is proportional to
      its count.
  """

  generator: Any
  head: Any
  label_counts: Any


class FedGenUpdate(NamedTuple):
  """Update that a client of FedGen sends.

  Attributes:
    head: Tuple of float32 tensors, the weights of the client's head.
    counts: float32[num_classes], the client's examples of each class.
  """

  head: Any
  counts: Any


def ensemble_weights(counts: tf.Tensor, weighting: str) -> tf.Tensor:
  """Returns the weight of each client's head for each class.

  Args:
    counts: float32[num_clients, num_classes], examples of clients.
    weighting: `examples` (reference): the client's number of examples, for all
      classes. `labels` (the authors' code): its examples of the generated
      class, or as `examples` if no client has that class.

  Returns:
    float32[num_clients, num_classes]. A column adds up to 1, or to 0 if no
    client has an example.
  """
  sizes = tf.reduce_sum(counts, axis=1, keepdims=True)
  by_examples = tf.math.divide_no_nan(sizes, tf.reduce_sum(sizes))
  by_examples = tf.broadcast_to(by_examples, tf.shape(counts))
  if weighting == 'examples':
    return by_examples
  totals = tf.reduce_sum(counts, axis=0)
  return tf.where(
    totals > 0, tf.math.divide_no_nan(counts, totals), by_examples
  )


def ensemble_logits(
  head_fn: Callable[..., tf.Tensor],
  heads: Sequence[tf.Tensor],
  weights: tf.Tensor,
  features: tf.Tensor,
  labels: tf.Tensor,
) -> tf.Tensor:
  """Returns the weighted mean of the logits of clients' heads.

  Args:
    head_fn: Function made by `FunctionalModel.build_head`.
    heads: Weights of all clients' heads. The first dimension counts clients.
    weights: Weights made by `ensemble_weights`.
    features: float32[batch, feature_dim].
    labels: int32[batch], the classes of the generated features.

  Returns:
    float32[batch, num_classes].
  """
  logits = tf.vectorized_map(
    lambda head: head_fn(list(head), features), tuple(heads)
  )
  return tf.einsum('mb,mbc->bc', tf.gather(weights, labels, axis=1), logits)


def train_generator(
  generator: generator_lib.Generator,
  head_fn: Callable[..., tf.Tensor],
  update: FedGenUpdate,
  label_counts: tf.Tensor,
  config: FedGenConfig,
  batch_size: int,
  seed: tf.Tensor,
) -> tuple[generator_lib.Generator, tf.Tensor]:
  """Trains the generator so that the clients' heads recognize its features.

  Call this while tracing. Adam's state is reset in every round.

    L = CE(sum over m of w_m h_m(G(e, y)), y)

  Args:
    generator: The generator before training.
    head_fn: Function made by `FunctionalModel.build_head`.
    update: `FedGenUpdate`s of all clients, stacked.
    label_counts: See `generator_lib.draw`.
    config: Steps and learning rate.
    batch_size: See `generator_lib.draw`.
    seed: int32[2], seed of all draws.

  Returns:
    The trained generator, and the loss of the last step, before its update.
  """
  weights = ensemble_weights(update.counts, config.ensemble_weighting)
  optimizer = local_optimizer.LocalOptimizer(
    tff.learning.optimizers.build_adam(
      config.generator_learning_rate, epsilon=_ADAM_EPSILON
    )
  )
  initial = [tf.convert_to_tensor(weight) for weight in generator]

  def train_step(step, trained, state, unused_loss):
    noise, labels = generator_lib.draw(
      label_counts,
      config.noise_dim,
      batch_size,
      tf.random.experimental.stateless_fold_in(seed, step),
    )
    with tf.GradientTape() as tape:
      tape.watch(trained)
      features = generator_lib.generate(
        generator_lib.Generator(*trained), noise, labels
      )
      loss = losses.cross_entropy(
        ensemble_logits(head_fn, update.head, weights, features, labels), labels
      )
    gradients = tape.gradient(loss, trained)
    state, trained = optimizer.next(state, trained, gradients)
    return step + 1, trained, state, loss

  # If no client sent a head, there is nothing to learn from.
  num_steps = tf.where(
    tf.reduce_any(update.counts > 0), config.server_epochs, 0
  )
  _, trained, _, loss = tf.while_loop(
    lambda step, *_: step < num_steps,
    train_step,
    (
      tf.constant(0),
      initial,
      optimizer.begin_round(
        tf.zeros([0]),
        [tf.TensorSpec(weight.shape) for weight in initial],
        tf.constant(0),
      ),
      tf.constant(0.0),
    ),
  )
  return generator_lib.Generator(*trained), loss


def build_objective(
  num_classes: int,
  feature_dim: int,
  config: FedGenConfig,
  batch_size: int,
) -> objective_lib.ClientObjective:
  """Returns the objective of clients: heads also learn generated features.

    L = L_ce + lambda CE(h(G(e, y')), y')

  The server broadcasts a `FedGenModel`. Every step draws a new batch e, y'. The
  batch follows from the client's seed, the round and the step.

  Args:
    num_classes: C.
    feature_dim: D.
    config: Has the generator's sizes and lambda.
    batch_size: See `generator_lib.draw`.
  """
  weight = objective_lib.LossWeight('fedgen_lambda', config.lambda_)

  def loss_fn(features, logits, labels, head_fn, context):
    del features  # Unused.
    cross_entropy = label_loss.cross_entropy(logits, labels, context)
    noise, drawn = generator_lib.draw(
      context['label_counts'], config.noise_dim, batch_size, context['seed']
    )
    generator = generator_lib.Generator(
      *(context[name] for name in generator_lib.Generator._fields)
    )
    generative = losses.cross_entropy(
      head_fn(generator_lib.generate(generator, noise, drawn)), drawn
    )
    return {
      'loss': cross_entropy + weight.of(context) * generative,
      'cross_entropy': cross_entropy,
      'generative': generative,
    }

  shapes = generator_lib.generator_type(
    num_classes, feature_dim, **config.sizes
  )
  return objective_lib.ClientObjective(
    loss_fn=loss_fn,
    loss_names=('loss', 'cross_entropy', 'generative'),
    context_fn=lambda known, *_: {
      **known.generator._asdict(),
      'label_counts': known.label_counts,
    },
    context_specs={
      **{
        name: tf.TensorSpec(leaf.shape)
        for name, leaf in shapes._asdict().items()
      },
      'label_counts': tf.TensorSpec([num_classes]),
    },
    weights=(weight,),
  )


def build_finalizer(
  model: functional.FunctionalModel,
  config: FedGenConfig,
  batch_size: int,
  *,
  seed: int = 0,
) -> tff.learning.templates.FinalizerProcess:
  """Returns the process that averages heads and trains the generator.

  See `finalizers.build_training_finalizer`. The model is a `FedGenModel`. The
  update holds the `FedGenUpdate`s of all clients. The mean weighs heads by
  examples. The measurement is `server_loss`, the generator's loss in its last
  step.

  Args:
    model: The architecture of the head.
    config: Settings of the generator.
    batch_size: See `generator_lib.draw`.
    seed: Seed of all draws.

  Raises:
    ValueError: See `FunctionalModel.build_head`.
  """
  head_fn = model.build_head()

  def train_fn(known, update, round_seed):
    shares = ensemble_weights(update.counts, 'examples')[:, 0]
    found = tf.reduce_any(update.counts > 0)
    # If no client sent a head, the server's head stays.
    head = tf.nest.map_structure(
      lambda heads, old: tf.where(found, tf.tensordot(shares, heads, 1), old),
      update.head,
      known.head,
    )
    label_counts = known.label_counts + tf.reduce_sum(update.counts, axis=0)
    generator, loss = train_generator(
      known.generator,
      head_fn,
      update,
      label_counts,
      config,
      batch_size,
      round_seed,
    )
    return FedGenModel(generator, head, label_counts), collections.OrderedDict(
      server_loss=loss
    )

  aggregator = collecting.CollectingFactory().create(_update_type(model))
  return finalizers.build_training_finalizer(
    _model_type(model, config),
    aggregator.next.type_signature.result.result.member,
    train_fn,
    seed=seed,
  )


def build_fedgen(
  models: Sequence[functional.FunctionalModel],
  config: Optional[FedGenConfig] = None,
  *,
  input_spec: input_spec_lib.InputSpec,
  optimizer: Optional[local_optimizer.LocalOptimizer] = None,
  local: Optional[local_training.LocalTrainingConfig] = None,
  model_seed: int = 0,
) -> composer.StatefulProcess:
  """Builds the process of FedGen over heterogeneous, stateful clients.

  The types are those of `fedsa.build_fedsa`, but the server's model is a
  `FedGenModel`. The server broadcasts it unchanged. Clients begin a round with
  the server's head. They send their trained head and their number of examples
  of each class. The server sees the message of each client. The classifiers are
  `head` and `global_head`.

  The reference code differs:

  - It trains the generator of a round and does not save it. So clients always
    receive the initial generator. `FedGenConfig(server_epochs=0)` does the
    same.
  - It counts the labels of all clients before the first round. Here the server
    learns the counts from updates. In the first round all labels are equally
    likely.

  Both differ from the authors' code. There the server has a term for diverse
  features, and clients also distill into their extractors.

  Args:
    models: One model per architecture, all with the same head. A client's state
      names its architecture.
    config: Hyper-parameters. Default: those of the reference.
    input_spec: How models see the clients' images.
    optimizer: Local optimizer; by default SGD with learning rate 0.01.
    local: Batches and epochs. The generator uses the same batch size.
    model_seed: Seed of the first head (the initial head of `models[0]`), of the
      initial generator and of the server's draws.

  Raises:
    ValueError: If models and input spec do not fit each other, the heads of
      models differ, or batches have fewer than two examples.
  """
  num_classes, feature_dim = client_work_lib.check_models(models, input_spec)
  client_work_lib.check_heads(models)
  local = local or local_training.LocalTrainingConfig()
  config = config or FedGenConfig()
  batch_size = local.batch_size
  if batch_size < 2:
    raise errors.UserError(
      'FedGen normalizes generated features over a batch: expected batch_size '
      f'>= 2, found {batch_size}.'
    )
  model_type = _model_type(models[0], config)

  def update_fn(model, result):
    return FedGenUpdate(tuple(model.head_of(result.weights)), result.counts)

  client_work = client_work_lib.build_client_work(
    models,
    build_objective(num_classes, feature_dim, config, batch_size),
    model_type,
    update_fn=update_fn,
    receive_fn=client_work_lib.receive_head,
    optimizer=optimizer or local_optimizer.default_optimizer(),
    input_spec=input_spec,
    config=local,
  )
  initial_model = FedGenModel(
    generator_lib.initial_generator(
      num_classes, feature_dim, **config.sizes, seed=model_seed
    ),
    server_model.initial_head_model(models[0], model_seed).head,
    np.zeros([num_classes], np.float32),
  )
  return composer.compose_process(
    lambda: initial_model,
    distribution.build_distributor(model_type),
    client_work,
    collecting.CollectingFactory().create(_update_type(models[0])),
    build_finalizer(models[0], config, batch_size, seed=model_seed),
    limits=screening.Limits('examples', counts='counts'),
  )


def _update_type(model):
  return tff.types.to_type(
    FedGenUpdate(
      server_model.head_model_type(model.head_specs).head,
      tff.TensorType(np.float32, (model.num_classes,)),
    )
  )


def _model_type(model, config):
  sent = _update_type(model)
  return tff.types.to_type(
    FedGenModel(
      generator_lib.generator_type(
        model.num_classes, model.feature_dim, **config.sizes
      ),
      sent.head,
      sent.counts,
    )
  )


METHOD = method.Method(
  name='fedgen',
  title='FedGen',
  config=FedGenConfig,
  build_fn=build_fedgen,
  sees_clients='Its server trains the generator with the head of each client.',
  terms={'generative': 'cross-entropy of generated features, nats'},
  metrics=server_training.COLUMNS,
)
