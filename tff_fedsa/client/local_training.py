"""A client's round in pure TensorFlow: epochs of steps over stacked examples.

It is a `tf.while_loop` over the client's arrays. For small models in TFF's
runtimes, `Dataset.reduce` takes up to three times as long.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from typing import Annotated, Any, NamedTuple

from etils import epy

from tff_fedsa import settings

with epy.lazy_imports():
  import tensorflow as tf

  from tff_fedsa.client import local_optimizer
  from tff_fedsa.client import objective as objective_lib
  from tff_fedsa.data import input_spec as input_spec_lib
  from tff_fedsa.maths import prototypes
  from tff_fedsa.models import functional
  from tff_fedsa.models import pairs

REMAINDERS = ('short', 'wrap', 'drop')
PROTOTYPE_KINDS = ('running', 'final', 'initial')

# Examples of one forward pass without gradients.
_INFERENCE_BATCH_SIZE = 128


@dataclasses.dataclass(frozen=True)
class LocalTrainingConfig(settings.Settings):
  """Local training: the passes of a client over its examples in a round.

  Attributes:
    batch_size: Examples per step, >= 1.
    num_epochs: Passes over the client's examples, >= 1.
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
  """

  batch_size: Annotated[
    int, settings.AtLeast(1), settings.Flag('client_batch_size')
  ] = 10
  num_epochs: Annotated[
    int, settings.AtLeast(1), settings.Flag('client_epochs_per_round')
  ] = 1
  remainder: Annotated[str, settings.OneOf(REMAINDERS)] = 'short'
  shuffle: bool = True
  prototypes: Annotated[str, settings.OneOf(PROTOTYPE_KINDS)] = 'running'

  def visits(self, num_examples: int) -> int:
    """Returns the examples that a client visits in an epoch, at most.

    Args:
      num_examples: Examples that it has, >= 0.
    """
    if self.remainder != 'wrap':
      return num_examples
    return -(-num_examples // self.batch_size) * self.batch_size


class LocalResult(NamedTuple):
  """Result of a round of local training.

  Attributes:
    weights: float32[?], flat.
    optimizer: float32[?], flat; empty if the optimizer is reset.
    prototypes: float32[num_classes, feature_dim]; zeros for absent classes.
    counts: float32[num_classes], examples behind each prototype, per epoch.
    class_logits: float32[num_classes, num_classes], mean logits by class,
      computed like `prototypes`. `()` unless the objective `averages_logits`.
    losses: Dict of float32 scalars: each term of the objective, summed over
      examples (the mean of a batch times its size).
    num_examples: float32 scalar, number of examples in the sums of `losses`.
    companion: Update of the companion model (see `companion`).
    private: float32[?], private tensors of the companion; they stay at the
      client.
  """

  weights: Any
  optimizer: Any
  prototypes: Any
  counts: Any
  class_logits: Any
  losses: Any
  num_examples: Any
  companion: Any = ()
  private: Any = ()


class _Progress(NamedTuple):
  """Loop variables of the steps of a round."""

  trainable: Any
  model_state: Any
  optimizer: Any
  sums: Any
  counts: Any
  losses: Any
  num_examples: Any


def build_local_training(
  model: functional.FunctionalModel | pairs.ModelPair,
  objective: objective_lib.ClientObjective,
  optimizer: local_optimizer.LocalOptimizer | local_optimizer.GroupedOptimizer,
  input_spec: input_spec_lib.InputSpec,
  config: LocalTrainingConfig,
) -> Callable[..., LocalResult]:
  """Returns `fn(weights, optimizer, examples, context, seed, round_num)`.

  Args:
    model: The client's model. Its step is traced once, here.
    objective: Objective of a step.
    optimizer: Updates the trainable weights.
    input_spec: Specification of the examples' inputs.
    config: Batches, epochs and kind of prototypes.

  Returns:
    A function that returns a `LocalResult`. Call it while tracing. Its
    arguments are `weights` float32[?], `optimizer` float32[?], `examples` (a
    dict of stacked inputs `x` and int32 labels `y`), `context` (the objective's
    inputs, fixed for the round), `seed` int32[2] and `round_num`, an int32
    scalar.
  """
  batch_size = config.batch_size
  step = model.build_train_step(
    objective.loss_fn,
    # Only short batches vary in size. A static size gives faster graphs.
    batch_size=None if config.remainder == 'short' else batch_size,
    context_specs=objective.context_specs,
    input_spec=input_spec,
  )
  if config.prototypes != 'running':
    forward = model.build_forward(input_spec)
  widths = {'features': model.feature_dim}
  if objective.averages_logits:
    widths['logits'] = model.num_classes

  def no_sums():
    tables = {n: tf.zeros([model.num_classes, w]) for n, w in widths.items()}
    return tables, tf.zeros([model.num_classes])

  def add_to_sums(carry, features, logits, labels, example_weights=None):
    sums, counts = carry
    outputs = {'features': features, 'logits': logits}
    for name in widths:
      more, more_counts = prototypes.class_sums(
        outputs[name], labels, model.num_classes, example_weights
      )
      sums = {**sums, name: sums[name] + more}
    return sums, counts + more_counts

  def clean_pass(trainable, model_state, examples):
    def add(carry, inputs, labels):
      features, logits = forward(trainable, model_state, inputs)
      return add_to_sums(carry, features, logits, labels)

    return fold_over_examples(examples, add, no_sums())

  def local_training(
    weights, optimizer_vector, examples, context, seed, round_num
  ):
    inputs, labels = examples['x'], examples['y']
    num_available = tf.shape(labels)[0]
    if config.remainder == 'drop':
      num_steps = num_available // batch_size
    else:
      num_steps = (num_available + batch_size - 1) // batch_size
    trainable, model_state = model.split(weights)

    def add_proximal(current, gradients, losses):
      mu = objective.proximal_weight
      if not mu:
        return gradients, losses
      drifts = [now - before for now, before in zip(current, trainable)]
      proximal = tf.add_n([tf.nn.l2_loss(drift) for drift in drifts])
      return (
        [g + mu * drift for g, drift in zip(gradients, drifts)],
        {
          **losses,
          'loss': losses['loss'] + mu * proximal,
          'proximal': proximal,
        },
      )

    round_seed = _fold_in(seed, round_num)

    def train_epoch(epoch, progress):
      epoch_seed = _fold_in(round_seed, epoch)
      order = tf.range(num_available)
      if config.shuffle:
        order = tf.random.experimental.stateless_shuffle(
          order, seed=_fold_in(epoch_seed, 0)
        )

      def train_step(index, progress):
        chosen, is_first_visit = _batch(order, index, num_available, config)
        batch_labels = tf.gather(labels, chosen)
        output = step(
          progress.trainable,
          progress.model_state,
          _take(inputs, chosen),
          batch_labels,
          context,
          _fold_in(epoch_seed, index + 1),
        )
        gradients, losses = add_proximal(
          progress.trainable, output.gradients, output.losses
        )
        optimizer_state, trainable = optimizer.next(
          progress.optimizer, progress.trainable, gradients
        )
        sums, counts = add_to_sums(
          (progress.sums, progress.counts),
          output.features,
          output.logits,
          batch_labels,
          is_first_visit,
        )
        num_examples = tf.cast(tf.size(batch_labels), tf.float32)
        return index + 1, _Progress(
          trainable=trainable,
          model_state=output.state,
          optimizer=optimizer_state,
          sums=sums,
          counts=counts,
          losses={
            name: total + num_examples * losses[name]
            for name, total in progress.losses.items()
          },
          num_examples=progress.num_examples + num_examples,
        )

      _, progress = tf.while_loop(
        lambda index, _: index < num_steps,
        train_step,
        (tf.constant(0), progress),
      )
      return epoch + 1, progress

    sums, counts = no_sums()
    _, progress = tf.while_loop(
      lambda epoch, _: epoch < config.num_epochs,
      train_epoch,
      (
        tf.constant(0),
        _Progress(
          trainable=trainable,
          model_state=model_state,
          optimizer=optimizer.begin_round(
            optimizer_vector, model.trainable_specs, round_num
          ),
          sums=sums,
          counts=counts,
          losses={name: tf.zeros([]) for name in objective.loss_names},
          num_examples=tf.zeros([]),
        ),
      ),
    )
    if config.prototypes == 'running':
      sums, counts = progress.sums, progress.counts
      counts_per_epoch = counts / config.num_epochs
    elif config.prototypes == 'final':
      sums, counts = clean_pass(
        progress.trainable, progress.model_state, examples
      )
      counts_per_epoch = counts
    else:
      visited = tf.minimum(num_steps * batch_size, num_available)
      sums, counts = clean_pass(
        trainable, model_state, {'x': inputs[:visited], 'y': labels[:visited]}
      )
      counts_per_epoch = counts
    means = {n: prototypes.class_means(sums[n], counts) for n in widths}
    return LocalResult(
      weights=model.flatten(progress.trainable, progress.model_state),
      optimizer=optimizer.to_vector(progress.optimizer),
      prototypes=means['features'],
      counts=counts_per_epoch,
      class_logits=means.get('logits', ()),
      losses=progress.losses,
      num_examples=progress.num_examples,
    )

  return local_training


def fold_over_examples(
  examples: Any, fold_fn: Callable[..., Any], initial: Any
) -> Any:
  """Folds `fold_fn(carry, inputs, labels)` over batches of all examples.

  Batches only limit memory. Every example is visited once, in order.

  Args:
    examples: Dict of stacked inputs `x` and labels `y`.
    fold_fn: Returns the next carry, with the structure of `initial`.
    initial: Structure of tensors.
  """
  inputs, labels = examples['x'], examples['y']
  num_examples = tf.shape(labels)[0]

  def body(start, carry):
    end = tf.minimum(start + _INFERENCE_BATCH_SIZE, num_examples)
    return end, fold_fn(carry, inputs[start:end], labels[start:end])

  _, result = tf.while_loop(
    lambda start, _: start < num_examples, body, (tf.constant(0), initial)
  )
  return result


def _batch(order, index, num_available, config):
  """Returns a batch's example indices, and their 0/1 weights in prototypes."""
  start = index * config.batch_size
  if config.remainder == 'short':
    end = tf.minimum(start + config.batch_size, num_available)
    return order[start:end], None
  positions = start + tf.range(config.batch_size)
  if config.remainder == 'drop':
    return tf.gather(order, positions), None
  # Examples that fill the last batch count once in the prototypes.
  is_first_visit = tf.cast(positions < num_available, tf.float32)
  return tf.gather(order, positions % num_available), is_first_visit


def _take(inputs, chosen):
  """Returns `tf.gather(inputs, chosen)`, also for uint8 on GPUs.

  TensorFlow has no GPU kernel for bytes. Without this function, each step would
  send all inputs of the client to the CPU.
  """
  size = inputs.shape[1:].num_elements()
  if inputs.dtype != tf.uint8 or size is None or size % tf.int64.size:
    return tf.gather(inputs, chosen)
  bytes_of_words = tf.reshape(
    inputs, [-1, size // tf.int64.size, tf.int64.size]
  )
  words = tf.gather(tf.bitcast(bytes_of_words, tf.int64), chosen)
  count = chosen.shape[0]
  return tf.reshape(
    tf.bitcast(words, tf.uint8),
    [-1 if count is None else count, *inputs.shape[1:]],
  )


def _fold_in(seed, data):
  return tf.random.experimental.stateless_fold_in(seed, data)
