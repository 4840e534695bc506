"""Local training of several clients of one architecture at the same time.

The weights of K clients are stacked, and each step is one of all of them
(`models.stacking`). Small models keep a GPU busy in this way. Each client has
its own examples, order, seeds and numbers of steps, so its numbers are those of
`local_training` up to rounding. A client whose steps are done stays as it is
while the others go on. Batches with fewer examples than the batch size are
computed one client after the other, because their sizes differ.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tff_fedsa.client import client_settings as client_settings_lib
from tff_fedsa.client import local_optimizer
from tff_fedsa.client import local_steps
from tff_fedsa.client import local_training
from tff_fedsa.client import objective as objective_lib
from tff_fedsa.data import input_spec as input_spec_lib
from tff_fedsa.execution import training_steps
from tff_fedsa.models import functional
from tff_fedsa.models import pairs
from tff_fedsa.models import stacking
from tff_fedsa.runs import errors


def build_joint_training(
  model: functional.FunctionalModel | pairs.ModelPair,
  objective: objective_lib.ClientObjective,
  optimizer: local_optimizer.LocalOptimizer
  | local_optimizer.ChosenOptimizer
  | local_optimizer.GroupedOptimizer,
  input_spec: input_spec_lib.InputSpec,
  config: local_training.LocalTrainingConfig,
) -> Callable[..., local_steps.LocalResult]:
  """Returns local training of `config.batch_clients` clients.

  Args:
    model: The model of the clients.
    objective: Objective of a step.
    optimizer: Updates the trainable weights.
    input_spec: Specification of the examples' inputs.
    config: Batches, epochs and kind of prototypes.

  Returns:
    A function like that of `local_training.build_local_training`, of stacked
    arguments, and with a last argument more: the `examples` of all clients lie
    one after the other, and `num_examples` int32[K] says how many each has. Its
    result is stacked.

  Raises:
    UserError: If a layer has no form for several clients, clients have batch
      sizes of their own, or heads are to be trained alone.
  """
  own = config.of_clients()
  if own.batch_size is not None:
    raise errors.UserError(
      'Clients that are trained together (batch_clients) have one batch size, '
      f'found client_batch_size in {own.source}.'
    )
  if config.head_epochs:
    raise errors.UserError(
      'Clients that are trained together (batch_clients) have no epochs of '
      f'their heads alone, found head_epochs={config.head_epochs}.'
    )
  count, batch_size = config.batch_clients, config.batch_size
  assert count is not None
  parts = model, objective, optimizer, input_spec, config
  steps = local_steps.LocalSteps(*parts, batch_size=batch_size)
  steps.check_stackable()
  if config.remainder == 'short':
    short_steps = local_steps.LocalSteps(*parts, batch_size=None)

  @tf.function(autograph=False, experimental_attributes={'_noinline': True})
  def step(index, *stacked):
    def of_client(
      progress, initial, inputs, labels, visits, context, epoch_seed
    ):
      return steps.train(
        progress,
        initial,
        inputs,
        labels,
        visits[0] if visits else None,
        context,
        local_steps.fold_in(epoch_seed, index + 1),
      )

    return stacking.vectorize(
      of_client, stacked, name=model.name, halves=model.halves
    )

  def train(
    weights,
    optimizer_vectors,
    examples,
    context,
    seeds,
    round_nums,
    num_examples,
  ):
    inputs, labels = examples['x'], examples['y']
    total = tf.shape(labels)[0]
    starts = tf.cumsum(num_examples, exclusive=True)
    epochs = tf.fill([count], config.num_epochs)
    if own.num_epochs is not None:
      epochs = client_settings_lib.of_client(own.num_epochs, seeds[:, 1])
    learning_rates = None
    if own.learning_rate is not None:
      learning_rates = client_settings_lib.of_client(
        own.learning_rate, seeds[:, 1]
      )
    full = num_examples // batch_size
    if config.remainder == 'wrap':
      full = (num_examples + batch_size - 1) // batch_size
    left = num_examples - full * batch_size

    def begin(client):
      rate = None if learning_rates is None else learning_rates[client]
      of_client = labels[starts[client] :][: num_examples[client]]
      return (
        steps.begin(
          weights[client],
          optimizer_vectors[client],
          round_nums[client],
          seeds[client, 1],
          rate,
        ),
        steps.context(at(context, client), of_client, seeds[client, 1]),
        local_steps.fold_in(seeds[client], round_nums[client]),
      )

    before, context, round_seeds = each(count, begin)

    def train_epoch(epoch, progress):
      epoch_seeds = each(
        count, lambda client: local_steps.fold_in(round_seeds[client], epoch)
      )
      longest = tf.reduce_max(num_examples)

      def ordered(one):
        size, seed = one
        order = steps.order(size, seed)
        return tf.pad(order, [[0, longest - size]])

      orders = tf.map_fn(
        ordered, (num_examples, epoch_seeds), fn_output_signature=tf.int32
      )
      steps_left = tf.where(epoch < epochs, full, 0)

      def train_step(index, progress):
        positions = tf.tile(
          (index * batch_size + tf.range(batch_size))[tf.newaxis], [count, 1]
        )
        visits = ()
        if config.remainder == 'wrap':
          sizes = num_examples[:, tf.newaxis]
          visits = (tf.cast(positions < sizes, tf.float32),)
          positions %= tf.maximum(sizes, 1)
        # Those of clients that are done do not matter, if they exist.
        positions = tf.minimum(positions, longest - 1)
        chosen = tf.gather(orders, positions, axis=1, batch_dims=1)
        chosen = tf.minimum(chosen + starts[:, tf.newaxis], total - 1)
        flat = tf.reshape(chosen, [count * batch_size])
        after = step(
          index,
          progress,
          before.trainable,
          tf.reshape(
            local_steps.take(inputs, flat),
            [count, batch_size, *inputs.shape[1:]],
          ),
          tf.gather(labels, chosen),
          visits,
          context,
          epoch_seeds,
        )
        training_steps.mark(after)
        return index + 1, where(index < steps_left, after, progress)

      _, progress = tf.while_loop(
        lambda index, _: index < tf.reduce_max(steps_left),
        train_step,
        (tf.constant(0), progress),
      )
      if config.remainder != 'short':
        return epoch + 1, progress
      is_left = (left > 0) & (epoch < epochs)

      def train_last(client):
        one = at(progress, client)

        def last():
          first = full[client] * batch_size
          chosen = orders[client, first : first + left[client]]
          chosen += starts[client]
          return short_steps.train(
            one,
            at(before.trainable, client),
            local_steps.take(inputs, chosen),
            tf.gather(labels, chosen),
            None,
            at(context, client),
            local_steps.fold_in(epoch_seeds[client], full[client] + 1),
          )

        return tf.cond(is_left[client], last, lambda: one)

      progress = tf.cond(
        tf.reduce_any(is_left),
        lambda: map_clients(count, train_last, progress),
        lambda: progress,
      )
      return epoch + 1, progress

    _, progress = tf.while_loop(
      lambda epoch, _: epoch < tf.reduce_max(epochs),
      train_epoch,
      (tf.constant(0), before),
    )

    def finish(client):
      of_client = {
        name: rows[starts[client] :][: num_examples[client]]
        for name, rows in examples.items()
      }
      visited = num_examples[client]
      if config.remainder == 'drop':
        visited = full[client] * batch_size
      return steps.finish(
        at(before, client),
        at(progress, client),
        of_client,
        visited,
        epochs[client],
      )

    return each(count, finish)

  return train


def at(stacked: Any, client: Any) -> Any:
  """Returns a client's part of a structure of stacked tensors."""
  return tf.nest.map_structure(lambda tensor: tensor[client], stacked)


def each(count: int, fn: Callable[[int], Any]) -> Any:
  """Returns `fn(client)` of each client, stacked."""
  results = [fn(client) for client in range(count)]
  return tf.nest.map_structure(lambda *parts: tf.stack(parts), *results)


def map_clients(count: int, fn: Callable[[tf.Tensor], Any], like: Any) -> Any:
  """Returns `fn(client)` of each client, stacked, traced once.

  Args:
    count: Number of clients.
    fn: Function of an int32 scalar.
    like: A result.
  """
  return tf.map_fn(
    fn,
    tf.range(count),
    fn_output_signature=tf.nest.map_structure(
      lambda tensor: tf.TensorSpec(tensor.shape[1:], tensor.dtype), like
    ),
  )


def where(condition: tf.Tensor, yes: Any, no: Any) -> Any:
  """Returns the parts of `yes` of some clients, those of `no` of the others.

  Args:
    condition: bool[K].
    yes: Structure of stacked tensors.
    no: A like structure.
  """

  def choose(one, other):
    shape = [-1, *[1] * (one.shape.rank - 1)]
    return tf.where(tf.reshape(condition, shape), one, other)

  return tf.nest.map_structure(choose, yes, no)
