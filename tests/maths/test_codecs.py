"""Codecs: exact sizes, errors within a step, and means without bias."""

import numpy as np
import pytest
import tensorflow as tf

from tff_fedsa.maths import codecs

_RNG = np.random.default_rng(0)
# An odd number of coordinates does not fill the last byte of 4-bit codes.
_VECTORS = tf.constant(_RNG.standard_normal([4, 7]), tf.float32)


def _through(bits, seed=(0, 0), vectors=_VECTORS):
  message = codecs.quantize(vectors, bits, tf.convert_to_tensor(seed))
  return message, codecs.dequantize(message, vectors.shape[1], bits)


@pytest.mark.parametrize('bits, size', [(8, 7), (4, 4)])
def test_an_error_is_less_than_a_step(bits, size):
  message, found = _through(bits)
  assert message.codes.shape == (4, size) and message.codes.dtype == tf.uint8
  step = np.asarray(message.step)[:, np.newaxis]
  expected = np.ptp(_VECTORS, axis=1, keepdims=True) / (2**bits - 1)
  np.testing.assert_allclose(step, expected, rtol=1e-6)
  assert (np.abs(found - _VECTORS) <= step * (1 + 1e-4)).all()
  assert np.abs(found - _VECTORS).max() > 0


def test_rounding_is_unbiased_and_repeats():
  through = tf.function(lambda seed: _through(4, seed)[1])
  found = np.stack([through(tf.constant([0, seed])) for seed in range(400)])
  step = np.asarray(_through(4)[0].step)[:, np.newaxis]
  # The standard deviation of a rounded value is half a step at most.
  assert (np.abs(found.mean(0) - _VECTORS) <= 5 * step / 2 / 20).all()
  np.testing.assert_array_equal(found[3], through(tf.constant([0, 3])))


def test_equal_coordinates_are_exact():
  vectors = tf.constant([[2.5] * 4, [0.0] * 4, [-1.0] * 4, [7.0] * 4])
  np.testing.assert_array_equal(_through(4, vectors=vectors)[1], vectors)


def test_the_largest_coordinates_are_kept():
  vectors = tf.constant([[0.1, -3.0, 2.0], [0.0, 0.0, 1.0]])
  message = codecs.sparsify(vectors, 2)
  assert message.places.dtype == tf.uint16
  np.testing.assert_array_equal(
    codecs.densify(message, 3), [[0, -3, 2], [0, 0, 1]]
  )


@pytest.mark.parametrize('dim, num_bytes', [(7, 1), (8, 1), (9, 2), (33, 8)])
def test_a_sketch_has_one_bit_per_coordinate(dim, num_bytes):
  vectors = _RNG.standard_normal([3, dim]).astype(np.float32)
  message = codecs.sketch(tf.constant(vectors), tf.constant([1, 2]))
  assert message.signs.shape == (3, num_bytes)
  assert message.signs.dtype == tf.uint8
  found = codecs.unsketch(message, dim).numpy()
  # The size that makes sketches right on average gives this product with the
  # original. So no coordinate is cut off by the padding.
  norms = np.square(vectors).sum(axis=1)
  np.testing.assert_allclose((found * vectors).sum(axis=1), norms, rtol=1e-5)


def test_a_sketch_by_hand():
  # One coordinate, rotated, has the same size everywhere, so nothing is lost.
  vectors = tf.constant(np.diag([3.0, -2.0, 0.5, 0.0] * 2), tf.float32)
  message = codecs.sketch(vectors, tf.constant([3, 4]))
  np.testing.assert_allclose(
    message.size, np.abs(np.diag(vectors)) / np.sqrt(8), rtol=1e-6
  )
  np.testing.assert_allclose(codecs.unsketch(message, 8), vectors, atol=1e-6)


def test_the_mean_of_sketches_is_the_vector():
  vectors = _RNG.standard_normal([2, 64]).astype(np.float32)

  @tf.function
  def through(seed):
    return codecs.unsketch(codecs.sketch(tf.constant(vectors), seed), 64)

  found = np.stack([through(tf.constant([0, i])) for i in range(600)])
  norm = np.linalg.norm(vectors, axis=1)
  errors = np.linalg.norm(found - vectors, axis=2) / norm
  # The variance is (pi / 2 - 1) |x|^2 for large dimensions (DRIVE).
  np.testing.assert_allclose(
    np.square(errors).mean(axis=0), np.pi / 2 - 1, rtol=0.15
  )
  error_of_mean = np.linalg.norm(found.mean(axis=0) - vectors, axis=1) / norm
  assert (error_of_mean < 3 * np.sqrt(0.57 / 600)).all()
