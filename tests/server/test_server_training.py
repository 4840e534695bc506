"""Training on prototypes at the server, by hand."""

import numpy as np
import pytest
import tensorflow as tf

from tff_fedsa.maths import losses
from tff_fedsa.maths import prototypes
from tff_fedsa.server import server_training


def _train(weights, loss_fn, collected, config, seed=0):
  """In a function, as processes do."""
  return tf.function(server_training.train, autograph=False)(
    weights, loss_fn, collected, config, tf.constant([seed, 0])
  )


def test_steps_by_hand():
  # One weight pulled to the mean of what is sent: w <- w - rate * 2 (w - v).
  collected = prototypes.ClassPrototypes(
    tf.constant([[[4.0], [np.nan]], [[np.nan], [4.0]]]),
    tf.constant([[1.0, 0.0], [0.0, 1.0]]),
  )

  def train(num_epochs, batch_size):
    weights, loss = _train(
      {'w': tf.constant(0.0)},
      lambda weights, vectors, labels: tf.reduce_mean(
        tf.square(weights['w'] - vectors[:, 0])
      ),
      collected,
      server_training.ServerTrainingConfig(num_epochs, batch_size, 0.25),
    )
    return float(weights['w']), float(loss)

  assert train(1, 2) == (2.0, 16.0)  # 0 - 0.25·2·(0 - 4)
  assert train(1, 1) == (3.0, 10.0)  # 0 -> 2 -> 3; (16 + 4) / 2
  assert train(2, 5) == (3.0, 4.0)


def test_a_short_batch_counts_by_its_size():
  # No step moves anything: the loss is the mean of 1, 2, ..., 5 in any order.
  vectors = tf.reshape(tf.range(1.0, 6.0), [1, 5, 1])
  _, loss = _train(
    tf.constant(0.0),
    lambda weight, vectors, labels: tf.reduce_mean(vectors) + 0.0 * weight,
    prototypes.ClassPrototypes(vectors, tf.ones([1, 5])),
    server_training.ServerTrainingConfig(3, 2, 0.0),
  )
  assert float(loss) == pytest.approx(3.0)


def test_every_prototype_is_met_once_an_epoch_with_its_class():
  # Class c of client k is the vector 10 k + c.
  vectors = np.array([[[0.0], [1.0], [2.0]], [[10.0], [11.0], [12.0]]], 'f')
  weights = np.array([[1.0, 0.0, 5.0], [0.0, 2.0, 1.0]], 'f')

  def count(seen, vectors, labels):
    # The gradient of a visited place is 1 for each visit.
    places = tf.stack([tf.cast(vectors[:, 0], tf.int32), labels], axis=1)
    return tf.reduce_sum(tf.gather_nd(seen, places))

  seen, _ = _train(
    tf.zeros([13, 3]),
    count,
    prototypes.ClassPrototypes(tf.constant(vectors), tf.constant(weights)),
    server_training.ServerTrainingConfig(3, 2, 1.0),
  )
  expected = np.zeros([13, 3])
  for vector, label in ((0, 0), (2, 2), (11, 1), (12, 2)):
    expected[vector, label] = -3.0
  np.testing.assert_array_equal(seen, expected)


def _noisy_classes():
  rng = np.random.default_rng(0)
  centers = 3.0 * np.eye(4, 6)
  vectors = centers + 0.1 * rng.standard_normal([8, 4, 6])
  return prototypes.ClassPrototypes(
    tf.constant(vectors, tf.float32), tf.ones([8, 4])
  )


def _head_loss(weights, vectors, labels):
  kernel, bias = weights
  return losses.cross_entropy(vectors @ kernel + bias, labels)


def test_a_head_learns_its_classes():
  initial = (tf.zeros([6, 4]), tf.zeros([4]))
  train = lambda num_epochs, seed=0: _train(
    initial,
    _head_loss,
    _noisy_classes(),
    server_training.ServerTrainingConfig(num_epochs, 5, 0.1),
    seed,
  )
  _, first = train(1)
  (kernel, bias), last = train(20)
  assert float(last) < 0.3 * float(first) < np.log(4.0)
  assert kernel.shape == (6, 4) and bias.shape == (4,)
  predicted = tf.argmax(_noisy_classes().vectors @ kernel + bias, axis=2)
  np.testing.assert_array_equal(predicted, [[0, 1, 2, 3]] * 8)
  # The order follows from the seed.
  (again, _), _ = train(20)
  np.testing.assert_array_equal(kernel, again)
  (other, _), _ = train(20, seed=1)
  assert np.any(kernel != other)


def test_without_prototypes_nothing_moves():
  initial = (tf.ones([6, 4]), tf.ones([4]))
  nothing = prototypes.ClassPrototypes(
    tf.fill([2, 4, 6], np.float32(np.nan)), tf.zeros([2, 4])
  )
  trained, loss = _train(
    initial,
    _head_loss,
    nothing,
    server_training.ServerTrainingConfig(2, 5, 0.1),
  )
  assert float(loss) == 0.0
  for after, before in zip(trained, initial, strict=True):
    np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize(
  'values, message',
  [
    ((0, 10, 0.01), 'server num_epochs >= 1, found 0'),
    ((1, 0, 0.01), 'server batch_size >= 1, found 0'),
    ((1, 10, -1.0), 'server learning_rate >= 0, found -1.0'),
    ((1, 10, np.inf), 'server learning_rate >= 0, found inf'),
    ((1, 10, np.nan), 'server learning_rate >= 0, found nan'),
  ],
)
def test_bad_values_are_named(values, message):
  with pytest.raises(ValueError, match=message):
    server_training.ServerTrainingConfig(*values)
