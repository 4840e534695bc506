"""Distances and their gradients, by hand."""

import numpy as np
import pytest
import tensorflow as tf

from tff_fedsa.maths import distances

_VECTORS = [[0.0, 0.0], [3.0, 4.0]]
_CENTERS = [[0.0, 0.0], [3.0, 0.0], [-5.0, 12.0]]


def test_distances_by_hand():
  vectors, centers = tf.constant(_VECTORS), tf.constant(_CENTERS)
  np.testing.assert_array_equal(
    distances.squared_distances(vectors, centers),
    [[0.0, 9.0, 169.0], [25.0, 16.0, 128.0]],
  )
  np.testing.assert_allclose(
    distances.distances(vectors, centers),
    [[1e-6, 3.0, 13.0], [5.0, 4.0, 128.0**0.5]],
    rtol=1e-6,
  )


def test_random_vectors_against_numpy():
  rng = np.random.default_rng(0)
  vectors, centers = rng.standard_normal([7, 33]), rng.standard_normal([5, 33])
  expected = np.linalg.norm(vectors[:, None] - centers, axis=2)
  np.testing.assert_allclose(
    distances.distances(tf.constant(vectors), tf.constant(centers)),
    expected,
    rtol=1e-12,
  )


def test_the_gradient_is_a_unit_vector_and_zero_on_a_center():
  vectors = tf.constant([[0.0, 0.0], [3.0, 4.0], [1.0, 1.0]])
  centers = tf.constant([[1.0, 1.0], [0.0, 0.0]])
  with tf.GradientTape() as tape:
    tape.watch([vectors, centers])
    found = distances.distances(vectors, centers)
    # The distance of each vector to one center: two of them lie on theirs.
    total = found[0, 1] + found[1, 1] + found[2, 0]
  gradients = tape.gradient(total, [vectors, centers])
  np.testing.assert_allclose(
    gradients[0], [[0.0, 0.0], [0.6, 0.8], [0.0, 0.0]], atol=1e-6
  )
  np.testing.assert_allclose(
    gradients[1], [[0.0, 0.0], [-0.6, -0.8]], atol=1e-6
  )


def test_rounding_never_makes_a_distance_imaginary():
  # The expanded square of a large vector to itself may be below zero.
  vectors = tf.constant(
    np.random.default_rng(1).normal(1e3, 1.0, [50, 64]), tf.float32
  )
  squared = distances.squared_distances(vectors, vectors).numpy()
  assert np.diag(squared).min() < 0.0
  found = distances.distances(vectors, vectors).numpy()
  assert np.isfinite(found).all() and found.min() >= 1e-6 * (1 - 1e-6)


def test_vectors_of_other_sizes_are_refused():
  for vectors, centers in (([2, 3], [4, 5]), ([3], [4, 3]), ([2, 3], [3])):
    with pytest.raises(ValueError, match='rank 2|are incompatible'):
      distances.squared_distances(tf.zeros(vectors), tf.zeros(centers))
