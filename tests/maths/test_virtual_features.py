"""Virtual features by hand, against NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from tff_fedsa.maths import virtual_features


def test_variances_of_means_and_mean_squares():
  rng = np.random.default_rng(0)
  features = rng.normal(2.0, 3.0, [50, 1, 4]).astype(np.float32)
  found = virtual_features.class_variances(
    tf.constant(features.mean(0)), tf.constant((features**2).mean(0))
  )
  np.testing.assert_allclose(found, features.var(0), rtol=1e-4)
  # A mean square that no features have.
  np.testing.assert_array_equal(
    virtual_features.class_variances(tf.constant([[3.0]]), tf.ones([1, 1])),
    [[0.0]],
  )


@pytest.mark.parametrize(
  'counts, present, expected',
  [
    # Fair shares are 1/4: a fifth of it is missing, and all of it.
    ([12, 4, 4, 0], [1, 1, 1, 1], [0.0, 0.2, 0.2, 1.0]),
    ([5, 5, 5, 5], [1, 1, 1, 1], [0.0, 0.0, 0.0, 0.0]),
    # The server knows nothing of the last one.
    ([12, 4, 4, 0], [1, 1, 1, 0], [0.0, 0.2, 0.2, 0.0]),
    # A client without a round before.
    ([0, 0, 0, 0], [1, 0, 1, 1], [1.0, 0.0, 1.0, 1.0]),
  ],
)
def test_rarity_by_hand(counts, present, expected):
  found = virtual_features.rarity(
    tf.constant(counts, tf.float32), tf.constant(np.array(present, bool))
  )
  np.testing.assert_allclose(found, expected, atol=1e-6)


def test_rare_classes_are_lifted_to_their_fair_share():
  counts = np.array([7, 2, 1, 0], np.float32)
  weights = virtual_features.rarity(tf.constant(counts), tf.ones(4, tf.bool))
  np.testing.assert_allclose(
    counts / 10 + weights / 4, [0.7, 0.25, 0.25, 0.25], rtol=1e-6
  )


def test_draws_have_the_mean_and_the_variance_and_repeat():
  means = tf.constant([[0.0, 5.0], [-3.0, 1.0]])
  variances = tf.constant([[1.0, 4.0], [0.0, 0.25]])
  draw = virtual_features.draw
  found = draw(means, variances, 20000, tf.constant([1, 2])).numpy()
  assert found.shape == (20000, 2, 2)
  np.testing.assert_allclose(found.mean(0), means, atol=0.05)
  np.testing.assert_allclose(found.var(0), variances, rtol=0.05)
  # Features are drawn independently.
  assert abs(np.corrcoef(found[:, 0].T)[0, 1]) < 0.03
  seeds = ([1, 2], [1, 2], [1, 3])
  one, same, other = (draw(means, variances, 3, seed) for seed in seeds)
  np.testing.assert_array_equal(one, same)
  assert (one != other).numpy()[:, 0].all()


def test_cross_entropy_and_its_gradient_by_hand():
  rng = np.random.default_rng(0)
  features = rng.normal(size=[5, 3, 4])
  kernel = rng.normal(size=[4, 3])
  weights = np.array([0.0, 1.0, 0.25])
  variable = tf.Variable(kernel)
  drawn = tf.constant(features)
  with tf.GradientTape() as tape:
    tape.watch(drawn)
    loss = virtual_features.cross_entropy(
      lambda x: x @ variable, drawn, tf.constant(weights)
    )
  gradient, of_features = tape.gradient(loss, [variable, drawn])
  logits = features @ kernel
  odds = np.exp(logits - logits.max(-1, keepdims=True))
  probabilities = odds / odds.sum(-1, keepdims=True)
  terms = -np.log(np.einsum('kcc->kc', probabilities))
  np.testing.assert_allclose(loss, (weights * terms.mean(0)).sum() / 3)
  errors = (probabilities - np.eye(3)) * weights[:, np.newaxis] / 15
  np.testing.assert_allclose(
    gradient, np.einsum('kcd,kcj->dj', features, errors)
  )
  assert of_features is None


def test_without_rare_classes_there_is_no_gradient():
  variable = tf.Variable(tf.ones([4, 3]))
  with tf.GradientTape() as tape:
    loss = virtual_features.cross_entropy(
      lambda x: x @ variable, tf.zeros([2, 3, 4]), tf.zeros([3])
    )
  assert loss.numpy() == 0.0
  np.testing.assert_array_equal(tape.gradient(loss, variable), np.zeros([4, 3]))
