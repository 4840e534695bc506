"""A client's round in pure TensorFlow: epochs of steps over stacked examples.

It is a `tf.while_loop` over the client's arrays. For small models in TFF's
runtimes, `Dataset.reduce` takes up to three times as long.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import dataclasses
from typing import Annotated, Any, Optional

from etils import epy

from tff_fedsa import settings

with epy.lazy_imports():
  import tensorflow as tf

  from tff_fedsa.client import client_settings as client_settings_lib
  from tff_fedsa.client import local_optimizer
  from tff_fedsa.client import local_steps
  from tff_fedsa.client import objective as objective_lib
  from tff_fedsa.data import input_spec as input_spec_lib
  from tff_fedsa.models import functional
  from tff_fedsa.models import pairs

REMAINDERS = ('short', 'wrap', 'drop')
CLASS_WEIGHTS = ('none', 'balanced')
PROTOTYPE_KINDS = ('running', 'final', 'initial')


@dataclasses.dataclass(frozen=True)
class LocalTrainingConfig(settings.Settings):
  """Local training: the passes of a client over its examples in a round.

  Attributes:
    batch_size: Examples per step, >= 1.
    num_epochs: Passes over the client's examples, >= 1.
    head_epochs: The first epochs of a round, >= 0, which train the head alone;
      the other epochs then train the extractor alone. It is FedRep (Collins et
      al., ICML 2021, arXiv:2102.07078) with `share_weights`=extractor. 0: all
      epochs train both. docs/methods.md says what else moves.
    remainder: Treatment of examples that do not fill a batch. short: they form
      a smaller last batch. wrap: the first examples of the epoch fill the last
      batch. drop: they are left out (the reference); a client with fewer
      examples than a batch then neither trains nor sends.
    shuffle: Draw a new order of examples for each epoch, from seed, client,
      round and epoch. The reference does not shuffle.
    prototypes: How local prototypes, or mean logits, are computed. running:
      mean over the training steps, before each step's update (the reference).
      final: one pass with the trained model, in inference mode. initial: one
      such pass with the model from before the round, without examples that
      `remainder` drops (the reference of FedTGP).
    label_smoothing: Share of a label that is spread over all classes, in [0,
      1), in the cross-entropy of all methods.
    class_weights: Weights of examples in the cross-entropy. balanced: inverse
      to the number of the client's examples of the class, 1 on average.
    logit_adjustment: Weight tau >= 0 of the log share of each class among the
      client's examples, added to the logits in the cross-entropy (Menon et al.,
      ICLR 2021). With 1, rare and absent classes are not pushed down. Classes
      that the client lacks count as a share of 1e-6.
    client_settings: Values of single clients, in place of the flags'
      (docs/comparing.md): a CSV file with a column client, or JSON text by
      client, {"3": {"client_batch_size": 5}}; in Python a dict. Columns are
      client_optimizer, client_learning_rate, client_epochs_per_round,
      client_batch_size and the weights of the method's loss, e.g. lambda_reg. A
      schedule changes the learning rates of all clients by the same factor.
    batch_clients: Clients of one architecture that are trained together, with
      stacked weights, >= 2 (runtime in_process; docs/gpu.md). It keeps GPUs
      busy with small models. The last digits of results depend on it. Default:
      each client is trained alone.
  """

  batch_size: Annotated[
    int, settings.AtLeast(1), settings.Flag('client_batch_size')
  ] = 10
  num_epochs: Annotated[
    int, settings.AtLeast(1), settings.Flag('client_epochs_per_round')
  ] = 1
  head_epochs: Annotated[int, settings.AtLeast(0)] = 0
  remainder: Annotated[str, settings.OneOf(REMAINDERS)] = 'short'
  shuffle: bool = True
  prototypes: Annotated[str, settings.OneOf(PROTOTYPE_KINDS)] = 'running'
  label_smoothing: Annotated[
    float, settings.AtLeast(0.0), settings.Below(1.0)
  ] = 0.0
  class_weights: Annotated[str, settings.OneOf(CLASS_WEIGHTS)] = 'none'
  logit_adjustment: Annotated[float, settings.AtLeast(0.0)] = 0.0
  client_settings: Optional[str] = None
  batch_clients: Annotated[Optional[int], settings.AtLeast(2)] = None

  def __post_init__(self):
    if not isinstance(self.client_settings, str | None):
      text = client_settings_lib.as_text(self.client_settings)
      object.__setattr__(self, 'client_settings', text)
    super().__post_init__()
    if self.head_epochs and self.head_epochs >= self.num_epochs:
      raise settings.SettingsError(
        f'Expected `head_epochs` < `num_epochs`={self.num_epochs}, so that the '
        f'extractor learns, too; found {self.head_epochs}.'
      )
    if self.client_settings is not None and self.remainder != 'short':
      raise settings.SettingsError(
        f'`client_settings` needs `remainder`=short, found {self.remainder}.'
      )

  @property
  def files(self) -> Mapping[str, str]:
    """Settings that name a file: setting -> path."""
    if self.client_settings is None or client_settings_lib.is_text(
      self.client_settings
    ):
      return {}
    return {'client_settings': self.client_settings}

  def of_clients(
    self, num_clients: Optional[int] = None, *, optimizer: str = 'sgd'
  ) -> client_settings_lib.ClientSettings:
    """Returns the settings of single clients.

    Args:
      num_clients: Number of clients, if it is known.
      optimizer: Name of the optimizer of clients without one of their own.

    Raises:
      UserError: See `client_settings.read`.
    """
    if self.client_settings is None:
      return client_settings_lib.ClientSettings()
    return client_settings_lib.read(
      self.client_settings,
      optimizer=optimizer,
      num_epochs=self.num_epochs,
      batch_size=self.batch_size,
      num_clients=num_clients,
    )

  def visits(self, num_examples: int) -> int:
    """Returns the examples that a client visits in an epoch, at most.

    Args:
      num_examples: Examples that it has, >= 0.
    """
    if self.remainder != 'wrap':
      return num_examples
    return -(-num_examples // self.batch_size) * self.batch_size


def build_local_training(
  model: functional.FunctionalModel | pairs.ModelPair,
  objective: objective_lib.ClientObjective,
  optimizer: local_optimizer.LocalOptimizer
  | local_optimizer.ChosenOptimizer
  | local_optimizer.GroupedOptimizer,
  input_spec: input_spec_lib.InputSpec,
  config: LocalTrainingConfig,
) -> Callable[..., local_steps.LocalResult]:
  """Returns `fn(weights, optimizer, examples, context, seed, round_num)`.

  Args:
    model: The client's model. Its step is traced once, here.
    objective: Objective of a step.
    optimizer: Updates the trainable weights.
    input_spec: Specification of the examples' inputs.
    config: Batches, epochs and kind of prototypes.

  Returns:
    A function that returns a `local_steps.LocalResult`. Call it while tracing.
    Its arguments are `weights` float32[?], `optimizer` float32[?], `examples`
    (a dict of stacked inputs `x` and int32 labels `y`), `context` (the
    objective's inputs, fixed for the round), `seed` int32[2] and `round_num`,
    an int32 scalar.
  """
  own = config.of_clients()
  steps = local_steps.LocalSteps(
    model,
    objective,
    optimizer,
    input_spec,
    config,
    # Only short batches vary in size. A static size gives faster graphs.
    batch_size=None if config.remainder == 'short' else config.batch_size,
  )

  def local_training(
    weights, optimizer_vector, examples, context, seed, round_num
  ):
    inputs, labels = examples['x'], examples['y']
    context = steps.context(context, labels, seed[1])
    num_available = tf.shape(labels)[0]
    batch_size: Any = config.batch_size
    num_epochs: Any = config.num_epochs
    learning_rate = None
    if own.batch_size is not None:
      batch_size = client_settings_lib.of_client(own.batch_size, seed[1])
    if own.num_epochs is not None:
      num_epochs = client_settings_lib.of_client(own.num_epochs, seed[1])
    if own.learning_rate is not None:
      learning_rate = client_settings_lib.of_client(own.learning_rate, seed[1])
    if config.remainder == 'drop':
      num_steps = num_available // batch_size
    else:
      num_steps = (num_available + batch_size - 1) // batch_size
    before = steps.begin(
      weights, optimizer_vector, round_num, seed[1], learning_rate
    )
    round_seed = local_steps.fold_in(seed, round_num)

    def train_epoch(epoch, progress):
      epoch_seed = local_steps.fold_in(round_seed, epoch)
      order = steps.order(num_available, epoch_seed)

      def train_step(index, progress):
        chosen, is_first_visit = _batch(
          order, index, num_available, batch_size, config.remainder
        )
        return index + 1, steps.train(
          progress,
          before.trainable,
          local_steps.take(inputs, chosen),
          tf.gather(labels, chosen),
          is_first_visit,
          context,
          local_steps.fold_in(epoch_seed, index + 1),
          epoch,
        )

      _, progress = tf.while_loop(
        lambda index, _: index < num_steps,
        train_step,
        (tf.constant(0), progress),
      )
      return epoch + 1, progress

    _, progress = tf.while_loop(
      lambda epoch, _: epoch < num_epochs,
      train_epoch,
      (tf.constant(0), before),
    )
    visited = tf.minimum(num_steps * batch_size, num_available)
    return steps.finish(before, progress, examples, visited, num_epochs)

  return local_training


def _batch(order, index, num_available, batch_size, remainder):
  """Returns a batch's example indices, and their 0/1 weights in prototypes."""
  start = index * batch_size
  if remainder == 'short':
    end = tf.minimum(start + batch_size, num_available)
    return order[start:end], None
  positions = start + tf.range(batch_size)
  if remainder == 'drop':
    return tf.gather(order, positions), None
  # Examples that fill the last batch count once in the prototypes.
  is_first_visit = tf.cast(positions < num_available, tf.float32)
  return tf.gather(order, positions % num_available), is_first_visit
