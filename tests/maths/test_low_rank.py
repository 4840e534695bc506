"""Truncated decompositions: ranks and sizes by hand, matrices by NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from tests import golden
from tff_fedsa.maths import low_rank


def _rotated(values, rows, columns, seed=0):
  """A matrix with these singular values."""
  rng = np.random.default_rng(seed)
  left, _ = np.linalg.qr(rng.standard_normal((rows, len(values))))
  right, _ = np.linalg.qr(rng.standard_normal((columns, len(values))))
  return (left * values @ right.T).astype(np.float32)


@pytest.mark.parametrize(
  'energy, rank',
  # Squares 9, 4, 1: 0.643, 0.929 and all of the sum.
  [(0.1, 1), (0.64, 1), (0.65, 2), (0.92, 2), (0.93, 3), (1.0, 3)],
)
def test_the_rank_holds_more_than_the_energy(energy, rank):
  values = np.array([3.0, 2.0, 1.0])
  matrix = _rotated(values, 6, 5)
  found, found_rank = low_rank.truncate(matrix[np.newaxis], energy)
  assert found_rank == rank or (energy == 1.0 and found_rank >= rank)
  expected = _rotated(values * (np.arange(3) < rank), 6, 5)
  np.testing.assert_allclose(found[0], expected, atol=1e-5)


def test_a_share_that_is_met_exactly_is_not_enough():
  _, rank = low_rank.truncate(np.eye(4, dtype=np.float32)[np.newaxis], 0.5)
  assert rank == 3


def test_zero_matrices_have_rank_zero():
  found, rank = low_rank.truncate(np.zeros([1, 3, 2], np.float32), 0.9)
  assert rank == 0
  np.testing.assert_array_equal(found, np.zeros([1, 3, 2]))


def test_sizes_by_hand():
  specs = [tf.TensorSpec([6, 5]), tf.TensorSpec([5]), tf.TensorSpec([5, 1])]
  compress = low_rank.build_compression(specs)
  rest = np.arange(10, dtype=np.float32)

  def size(values):
    vector = np.concatenate([_rotated(np.array(values), 6, 5).ravel(), rest])
    compressed = compress(tf.constant(vector), 0.9)
    np.testing.assert_array_equal(compressed.vector[30:], rest)
    return compressed.num_floats

  # A rank, a singular value, its two vectors; and what is no matrix.
  assert size([2.0]) == 1 + (1 + 6 + 5) + 10
  assert size([2.0, 2.0]) == 1 + 2 * (1 + 6 + 5) + 10
  # Factors of rank 3 would be 37 numbers: the matrix is 30.
  assert size([2.0, 2.0, 2.0]) == 30 + 10


def test_convolutions_are_matrices_of_inputs_and_outputs():
  rng = np.random.default_rng(1)
  kernel = rng.standard_normal((3, 3, 2, 5)).astype(np.float32)
  compress = low_rank.build_compression([tf.TensorSpec(kernel.shape)])
  left, values, right = np.linalg.svd(
    kernel.reshape(18, 5), full_matrices=False
  )
  shares = np.cumsum(values**2) / np.sum(values**2)
  rank = np.sum(shares <= 0.8) + 1
  assert 1 < rank < 5
  expected = (left[:, :rank] * values[:rank]) @ right[:rank]
  found = compress(tf.constant(kernel.ravel()), 0.8)
  golden.assert_close(found.vector, expected.ravel())
  assert found.num_floats == min(1 + rank * (1 + 18 + 5), 90)


def test_convolutions_kernel_by_kernel():
  rng = np.random.default_rng(2)
  kernel = rng.standard_normal((4, 3, 2, 5)).astype(np.float32)
  compress = low_rank.build_compression(
    [tf.TensorSpec(kernel.shape)], kernelwise=True
  )
  # PyTorch's layout, in which the reference decomposes: [out, in, h, w].
  left, values, right = np.linalg.svd(
    kernel.transpose(3, 2, 0, 1), full_matrices=False
  )
  squares = np.sum(values**2, axis=(0, 1))
  rank = np.sum(np.cumsum(squares) <= 0.5 * squares.sum()) + 1
  assert rank == 1
  expected = (left[..., :rank] * values[..., None, :rank]) @ right[
    ..., :rank, :
  ]
  found = compress(tf.constant(kernel.ravel()), 0.5)
  golden.assert_close(found.vector, expected.transpose(2, 3, 1, 0).ravel())
  assert found.num_floats == 1 + 10 * (1 + 4 + 3)


def test_what_is_not_finite_stays():
  compress = low_rank.build_compression([tf.TensorSpec([2, 2])])
  vector = tf.constant([1.0, np.nan, np.inf, 2.0])
  np.testing.assert_array_equal(compress(vector, 0.9).vector, vector)
