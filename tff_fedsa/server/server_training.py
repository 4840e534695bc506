"""Training at the server, on the prototypes of clients."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from typing import Any

from etils import epy

from tff_fedsa.runs import errors

with epy.lazy_imports():
  import tensorflow as tf

  from tff_fedsa.maths import gradients as gradients_lib
  from tff_fedsa.maths import prototypes

# Measurements of a finalizer that trains: name -> meaning and unit.
COLUMNS = {
  'server_loss': "loss of the server's training, mean of its last epoch, nats",
}


@dataclasses.dataclass(frozen=True)
class ServerTrainingConfig:
  """Training of the server in a round.

  Attributes:
    num_epochs: Passes over the prototypes, each in a new order, >= 1.
    batch_size: Prototypes per step, >= 1. The last batch may be short.
    learning_rate: Learning rate of plain SGD, >= 0.
  """

  num_epochs: int
  batch_size: int
  learning_rate: float

  def __post_init__(self):
    for name in ('num_epochs', 'batch_size'):
      if getattr(self, name) < 1:
        raise errors.UserError(
          f'Expected server {name} >= 1, found {getattr(self, name)}.'
        )
    if not 0.0 <= self.learning_rate < float('inf'):
      raise errors.UserError(
        f'Expected a server learning_rate >= 0, found {self.learning_rate}.'
      )


def train(
  weights: Any,
  loss_fn: Callable[[Any, tf.Tensor, tf.Tensor], tf.Tensor],
  collected: prototypes.ClassPrototypes,
  config: ServerTrainingConfig,
  seed: tf.Tensor,
) -> tuple[Any, tf.Tensor]:
  """Trains weights on all prototypes of all clients.

  Call this while tracing.

  Args:
    weights: Structure of float32 tensors.
    loss_fn: `fn(weights, vectors, labels)` returns the mean loss of a batch:
      prototypes float32[batch, feature_dim] and their classes int32[batch].
    collected: `vectors` float32[num_clients, num_classes, feature_dim] and
      `weights` float32[num_clients, num_classes], 0 for classes that a client
      lacks.
    config: Epochs, batch size and learning rate.
    seed: int32[2], seed of the orders.

  Returns:
    The trained weights, and the mean loss of the last epoch, measured before
    each step's update (0 if there is no prototype).
  """
  held = collected.weights > 0
  vectors = tf.boolean_mask(collected.vectors, held)
  labels = tf.cast(tf.where(held)[:, 1], tf.int32)
  num_available = tf.size(labels)

  def train_epoch(epoch, weights, unused_loss):
    order = tf.random.experimental.stateless_shuffle(
      tf.range(num_available),
      seed=tf.random.experimental.stateless_fold_in(seed, epoch),
    )

    def train_step(start, weights, total_loss):
      chosen = order[start : start + config.batch_size]
      with tf.GradientTape() as tape:
        tape.watch(weights)
        loss = loss_fn(
          weights, tf.gather(vectors, chosen), tf.gather(labels, chosen)
        )
      weights = tf.nest.map_structure(
        lambda weight, gradient: weight - config.learning_rate * gradient,
        weights,
        gradients_lib.gradients(tape, loss, weights),
      )
      num_examples = tf.cast(tf.size(chosen), tf.float32)
      return (
        start + config.batch_size,
        weights,
        total_loss + num_examples * loss,
      )

    _, weights, loss = tf.while_loop(
      lambda start, *_: start < num_available,
      train_step,
      (tf.constant(0), weights, tf.constant(0.0)),
    )
    return epoch + 1, weights, loss

  _, weights, loss = tf.while_loop(
    lambda epoch, *_: epoch < config.num_epochs,
    train_epoch,
    (tf.constant(0), weights, tf.constant(0.0)),
  )
  return weights, tf.math.divide_no_nan(
    loss, tf.cast(num_available, tf.float32)
  )
