"""Gradient matching against NumPy, TensorFlow's gradients and by hand."""

import numpy as np
import pytest
import tensorflow as tf

from tff_fedsa.maths import hyper_prototypes


def _random(*shape, seed=0):
  return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _unit(rows):
  return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def test_directions_equal_those_of_numpy():
  features, anchors = _random(3, 4, 9), _random(4, 9, seed=1)
  expected = []
  for label in range(4):
    gradients = []
    for feature in features[:, label].astype(np.float64):
      logits = -np.sum((feature - anchors) ** 2, axis=1) / (2 * np.sqrt(9))
      odds = np.exp(logits)
      errors = odds / odds.sum() - np.eye(4)[label]
      gradients.append(errors @ anchors / np.sqrt(9))
    expected.append(_unit(np.mean(gradients, axis=0)))
  found = hyper_prototypes.gradient_directions(
    tf.constant(features), tf.constant(anchors)
  )
  np.testing.assert_allclose(found, expected, atol=1e-5)


def test_they_are_gradients_of_the_cross_entropy():
  features, anchors = tf.constant(_random(5, 3, 4)), tf.constant(_random(3, 4))
  labels = tf.tile(tf.range(3), [5])
  with tf.GradientTape() as tape:
    tape.watch(features)
    flat = tf.reshape(features, [-1, 1, 4])
    logits = -tf.reduce_sum((flat - anchors) ** 2, axis=2) / (2 * np.sqrt(4))
    loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
  gradients = tape.gradient(loss, features).numpy().mean(axis=0)
  np.testing.assert_allclose(
    hyper_prototypes.gradient_directions(features, anchors),
    _unit(gradients),
    atol=1e-5,
  )


def test_two_classes_push_apart_by_hand():
  # Whatever the features, the gradient points to the other anchor.
  anchors = tf.constant([[0.0, 0.0], [3.0, 4.0]])
  found = hyper_prototypes.gradient_directions(tf.ones([1, 2, 2]), anchors)
  np.testing.assert_allclose(found, [[0.6, 0.8], [-0.6, -0.8]], atol=1e-6)


def test_the_loss_by_hand():
  anchors = tf.constant([[0.0, 0.0], [3.0, 4.0]])
  targets = tf.constant([[0.6, 0.8], [0.6, 0.8]])
  found = hyper_prototypes.matching_loss(anchors, targets, anchors)
  np.testing.assert_allclose(found, [0.0, 2.0], atol=1e-6)


def test_vectors_get_the_gradients_of_the_features():
  anchors = tf.constant(2 * _random(6, 8))
  features = anchors + _random(32, 6, 8, seed=1)
  targets = hyper_prototypes.gradient_directions(features, anchors)
  present = np.array([True, True, False, True, True, True])

  def after(num_steps, learning_rate=0.1):
    found = hyper_prototypes.matched(
      anchors,
      targets,
      anchors,
      tf.constant(present),
      num_steps=num_steps,
      learning_rate=learning_rate,
    )
    loss = hyper_prototypes.matching_loss(found, targets, anchors)
    return found.numpy(), loss.numpy()

  start, before = after(0)
  np.testing.assert_array_equal(start, anchors)
  one, _ = after(1)
  with tf.GradientTape() as tape:
    tape.watch(anchors)
    fixed = tf.identity(start)
    loss = hyper_prototypes.matching_loss(anchors, targets, fixed)
  expected = start - 0.1 * tape.gradient(loss, anchors).numpy()
  np.testing.assert_allclose(one[present], expected[present], atol=1e-6)
  moved, loss = after(200, 1.0)
  assert loss[present].mean() < 0.2 * before[present].mean()
  np.testing.assert_array_equal(moved[~present], start[~present])


@pytest.mark.parametrize('scale', [0.0, 1e-4, 1.0, 100.0])
def test_everything_is_finite(scale):
  anchors = tf.constant(scale * _random(4, 16))
  # Features at their anchors, and so confident that probabilities underflow.
  targets = hyper_prototypes.gradient_directions(anchors[tf.newaxis], anchors)
  norms = np.linalg.norm(targets, axis=1)
  np.testing.assert_allclose(norms, float(scale > 0), atol=1e-5)
  found = hyper_prototypes.matched(
    anchors + scale * _random(4, 16, seed=2),
    targets,
    anchors,
    tf.fill([4], True),
    num_steps=3,
    learning_rate=0.1,
  )
  assert np.isfinite(found).all()
