"""The parts of a client's round: its beginning, a step, and its result.

`local_training` joins them for one client, `joint_training` for several.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Optional, TYPE_CHECKING

import tensorflow as tf

from tff_fedsa.client import client_settings
from tff_fedsa.client import label_loss
from tff_fedsa.client import local_optimizer
from tff_fedsa.client import objective as objective_lib
from tff_fedsa.data import input_spec as input_spec_lib
from tff_fedsa.execution import training_steps
from tff_fedsa.maths import prototypes
from tff_fedsa.models import functional
from tff_fedsa.models import pairs
from tff_fedsa.models import stacking
from tff_fedsa.runs import errors

if TYPE_CHECKING:
  from tff_fedsa.client import local_training

# Examples of one forward pass without gradients.
_INFERENCE_BATCH_SIZE = 128


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
    class_squares: float32[num_classes, feature_dim], mean squares of features
      by class, computed like `prototypes`. `()` unless the objective
      `averages_squares`.
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
  class_squares: Any = ()


class Progress(NamedTuple):
  """Loop variables of the steps of a round."""

  trainable: Any
  model_state: Any
  optimizer: Any
  sums: Any
  counts: Any
  losses: Any
  num_examples: Any


class LocalSteps:
  """Beginning, steps and result of a client's round."""

  def __init__(
    self,
    model: functional.FunctionalModel | pairs.ModelPair,
    objective: objective_lib.ClientObjective,
    optimizer: local_optimizer.LocalOptimizer
    | local_optimizer.ChosenOptimizer
    | local_optimizer.GroupedOptimizer,
    input_spec: input_spec_lib.InputSpec,
    config: local_training.LocalTrainingConfig,
    *,
    batch_size: Optional[int],
  ):
    """Traces the model's step, and its forward pass if it is needed.

    Args:
      model: The client's model.
      objective: Objective of a step.
      optimizer: Updates the trainable weights.
      input_spec: Specification of the examples' inputs.
      config: Epochs and kind of prototypes.
      batch_size: Static size of a batch, None if it varies.

    Raises:
      UserError: If heads are to be trained alone, and clients have numbers of
        epochs of their own, or train a companion model.
    """
    if config.head_epochs:
      _check_head_epochs(model, config)
    self._model = model
    self._objective = objective
    self._optimizer = optimizer
    self._config = config
    self._weights_of_clients = config.of_clients().weights_of(objective.weights)
    self._step = model.build_train_step(
      objective.loss_fn,
      batch_size=batch_size,
      context_specs={
        **objective.context_specs,
        **label_loss.context_specs(config, model.num_classes),
        **{name: tf.TensorSpec([]) for name in self._weights_of_clients},
      },
      input_spec=input_spec,
    )
    if config.prototypes != 'running':
      self._forward = model.build_forward(input_spec)
    self._widths = {'features': model.feature_dim}
    if objective.averages_logits:
      self._widths['logits'] = model.num_classes
    if objective.averages_squares:
      self._widths['squares'] = model.feature_dim

  def check_stackable(self) -> None:
    """Raises a UserError if the steps have no form for several clients."""
    stacking.check_shapes(
      self._step, name=self._model.name, halves=self._model.halves
    )

  def context(
    self,
    context: Mapping[str, tf.Tensor],
    labels: tf.Tensor,
    client_id: tf.Tensor,
  ) -> dict[str, tf.Tensor]:
    """Returns the context of the steps.

    Args:
      context: The objective's.
      labels: int32[?], those of the client's examples.
      client_id: int32 scalar.
    """
    return {
      **context,
      **label_loss.context(self._config, labels, self._model.num_classes),
      **{
        name: client_settings.of_client(values, client_id)
        for name, values in self._weights_of_clients.items()
      },
    }

  def begin(
    self,
    weights: tf.Tensor,
    optimizer_vector: tf.Tensor,
    round_num: tf.Tensor,
    client_id: tf.Tensor,
    learning_rate: Optional[tf.Tensor] = None,
  ) -> Progress:
    """Returns the progress before the first step.

    Args:
      weights: float32[?], flat.
      optimizer_vector: float32[?], see `LocalOptimizer.begin_round`.
      round_num: See there.
      client_id: int32 scalar.
      learning_rate: See there.
    """
    trainable, model_state = self._model.split(weights)
    sums, counts = self._no_sums()
    return Progress(
      trainable=trainable,
      model_state=model_state,
      optimizer=self._optimizer.begin_round(
        optimizer_vector,
        self._model.trainable_specs,
        round_num,
        learning_rate,
        client_id=client_id,
      ),
      sums=sums,
      counts=counts,
      losses=tf.zeros([len(self._objective.loss_names)]),
      num_examples=tf.zeros([]),
    )

  def order(self, num_examples: tf.Tensor, epoch_seed: tf.Tensor) -> tf.Tensor:
    """Returns the order of examples in an epoch, int32[num_examples]."""
    order = tf.range(num_examples)
    if self._config.shuffle:
      order = tf.random.experimental.stateless_shuffle(
        order, seed=fold_in(epoch_seed, 0)
      )
    return order

  def train(
    self,
    progress: Progress,
    initial: list[tf.Tensor],
    inputs: tf.Tensor,
    labels: tf.Tensor,
    is_first_visit: Optional[tf.Tensor],
    context: Mapping[str, tf.Tensor],
    seed: tf.Tensor,
    epoch: Optional[tf.Tensor] = None,
  ) -> Progress:
    """Returns the progress after one more step.

    Args:
      progress: Before the step.
      initial: Trainable weights at the beginning of the round.
      inputs: Inputs of the batch.
      labels: int32[batch].
      is_first_visit: float32[batch], 0 for examples that do not count in
        prototypes; None if all count.
      context: See `context`.
      seed: int32[2], of the step.
      epoch: int32 scalar, the epoch of the round, counted from 0. Needed with
        `head_epochs` only.
    """
    output = self._step(
      progress.trainable, progress.model_state, inputs, labels, context, seed
    )
    training_steps.mark(output)
    gradients, losses = self._add_proximal(
      initial, progress.trainable, output.gradients, output.losses, context
    )
    learns = self._learns(epoch)
    optimizer_state, trainable = self._optimizer.next(
      progress.optimizer,
      progress.trainable,
      _where(learns, gradients, map(tf.zeros_like, gradients)),
    )
    # Momentum and decay would move weights without a gradient.
    trainable = _where(learns, trainable, progress.trainable)
    sums, counts = self._add_to_sums(
      (progress.sums, progress.counts),
      output.features,
      output.logits,
      labels,
      is_first_visit,
    )
    num_examples = tf.cast(tf.size(labels), tf.float32)
    return Progress(
      trainable=trainable,
      model_state=output.state,
      optimizer=optimizer_state,
      sums=sums,
      counts=counts,
      losses=progress.losses
      + num_examples
      * tf.stack([losses[name] for name in self._objective.loss_names]),
      num_examples=progress.num_examples + num_examples,
    )

  def finish(
    self,
    before: Progress,
    progress: Progress,
    examples: Any,
    visited: tf.Tensor,
    num_epochs: Any,
  ) -> LocalResult:
    """Returns the result of the round.

    Args:
      before: Result of `begin`.
      progress: After the last step.
      examples: Dict of the client's stacked inputs `x` and labels `y`.
      visited: int32 scalar, examples that an epoch visits.
      num_epochs: int32 scalar.
    """
    if self._config.prototypes == 'running':
      sums, counts = progress.sums, progress.counts
      counts_per_epoch = counts / tf.cast(num_epochs, tf.float32)
    elif self._config.prototypes == 'final':
      sums, counts = self._clean_pass(progress, examples)
      counts_per_epoch = counts
    else:
      sums, counts = self._clean_pass(
        before, {'x': examples['x'][:visited], 'y': examples['y'][:visited]}
      )
      counts_per_epoch = counts
    means = {n: prototypes.class_means(sums[n], counts) for n in self._widths}
    return LocalResult(
      weights=self._model.flatten(progress.trainable, progress.model_state),
      optimizer=self._optimizer.to_vector(progress.optimizer),
      prototypes=means['features'],
      counts=counts_per_epoch,
      class_logits=means.get('logits', ()),
      losses=dict(zip(self._objective.loss_names, tf.unstack(progress.losses))),
      num_examples=progress.num_examples,
      class_squares=means.get('squares', ()),
    )

  def _add_proximal(self, initial, current, gradients, losses, context):
    mu = self._objective.proximal_weight
    if not mu:
      return gradients, losses
    if isinstance(mu, objective_lib.LossWeight):
      mu = mu.of(context)
    drifts = [now - before for now, before in zip(current, initial)]
    proximal = tf.add_n([tf.nn.l2_loss(drift) for drift in drifts])
    return (
      [g + mu * drift for g, drift in zip(gradients, drifts)],
      {
        **losses,
        'loss': losses['loss'] + mu * proximal,
        'proximal': proximal,
      },
    )

  def _learns(self, epoch):
    """Returns a bool scalar for each trainable weight; None if all learn."""
    if not self._config.head_epochs:
      return None
    of_head = len(self._model.head_specs)
    in_head = epoch < self._config.head_epochs
    of_extractor = len(self._model.trainable_specs) - of_head
    return [tf.logical_not(in_head)] * of_extractor + [in_head] * of_head

  def _no_sums(self):
    num_classes = self._model.num_classes
    tables = {n: tf.zeros([num_classes, w]) for n, w in self._widths.items()}
    return tables, tf.zeros([num_classes])

  def _add_to_sums(self, carry, features, logits, labels, example_weights=None):
    sums, counts = carry
    outputs = {'features': features, 'logits': logits}
    if 'squares' in self._widths:
      outputs['squares'] = tf.square(features)
    for name in self._widths:
      more, more_counts = prototypes.class_sums(
        outputs[name], labels, self._model.num_classes, example_weights
      )
      sums = {**sums, name: sums[name] + more}
    return sums, counts + more_counts

  def _clean_pass(self, progress, examples):
    def add(carry, inputs, labels):
      features, logits = self._forward(
        progress.trainable, progress.model_state, inputs
      )
      return self._add_to_sums(carry, features, logits, labels)

    return fold_over_examples(examples, add, self._no_sums())


def _check_head_epochs(model, config):
  if isinstance(model, pairs.ModelPair):
    raise errors.UserError(
      'A client that also trains a shared model has no epochs of its head '
      'alone. Leave out head_epochs, or take a method without a shared model.'
    )
  own = config.of_clients()
  if own.num_epochs is not None:
    raise errors.UserError(
      f'With head_epochs={config.head_epochs} all clients have the same '
      f'epochs, found client_epochs_per_round in {own.source}.'
    )


def _where(conditions, if_true, if_false):
  """Returns `if_true` where its condition holds; None for always."""
  if conditions is None:
    return if_true
  return list(map(tf.where, conditions, if_true, if_false))


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


def take(inputs: tf.Tensor, chosen: tf.Tensor) -> tf.Tensor:
  """Returns `tf.gather(inputs, chosen)`, also for uint8 on GPUs.

  TensorFlow has no GPU kernel for bytes. Without this function, each step would
  send all inputs of the client to the CPU.

  Args:
    inputs: Stacked inputs.
    chosen: int32[?], indices.
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


def fold_in(seed: tf.Tensor, data: Any) -> tf.Tensor:
  """Returns a seed that follows from a seed and a number, int32[2]."""
  return tf.random.experimental.stateless_fold_in(seed, data)
