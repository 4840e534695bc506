"""Euclidean distances between two sets of vectors, safe to differentiate."""

import tensorflow as tf

# Smallest squared distance. The gradient of the square root is infinite at
# zero, and the expanded square can be negative.
_SMALLEST_SQUARE = 1e-12


def squared_distances(vectors: tf.Tensor, centers: tf.Tensor) -> tf.Tensor:
  """Returns all squared Euclidean distances `||v_b - c_k||^2`.

  The square is expanded to `|v|^2 - 2 v.c + |c|^2`. This takes one matrix
  product and no array `[batch, num_centers, feature_dim]`.

  Args:
    vectors: float[batch, feature_dim].
    centers: float[num_centers, feature_dim], with the dtype of `vectors`.

  Returns:
    float[batch, num_centers], >= 0 up to rounding. It may be slightly negative
    if a vector equals a center.

  Raises:
    ValueError: If `feature_dim` differs between the two.
  """
  vectors.shape.assert_has_rank(2)
  centers.shape.assert_has_rank(2)
  vectors.shape[1:].assert_is_compatible_with(centers.shape[1:])
  return (
    tf.reduce_sum(tf.square(vectors), axis=1, keepdims=True)
    - 2.0 * tf.matmul(vectors, centers, transpose_b=True)
    + tf.reduce_sum(tf.square(centers), axis=1)
  )


def distances(vectors: tf.Tensor, centers: tf.Tensor) -> tf.Tensor:
  """Returns all Euclidean distances `||v_b - c_k||_2`.

  The gradient is finite everywhere, because squares below 1e-12 are raised to
  1e-12. The reference code differs (`torch.sqrt` of the expanded square in
  `clientSA.cal_mcl_loss`, lokinko/FedSA@75bf106): its gradient is NaN if a
  vector equals a center.

  Args:
    vectors: float[batch, feature_dim].
    centers: float[num_centers, feature_dim].

  Returns:
    float[batch, num_centers], at least 1e-6.

  Raises:
    ValueError: If `feature_dim` differs between the two.
  """
  squared = squared_distances(vectors, centers)
  return tf.sqrt(tf.maximum(squared, _SMALLEST_SQUARE))
