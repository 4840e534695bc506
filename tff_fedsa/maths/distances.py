"""Euclidean distances between two sets of vectors, safe to differentiate."""

import tensorflow as tf

# Squared distances below this count as this much: the gradient of the square
# root is infinite at zero, and the expanded square can even be negative.
_SMALLEST_SQUARE = 1e-12


def squared_distances(vectors: tf.Tensor, centers: tf.Tensor) -> tf.Tensor:
  """Returns all squared Euclidean distances `||v_b - c_k||^2`.

  Expanded as `|v|^2 - 2 v.c + |c|^2`, one matrix product instead of a
  `[batch, num_centers, feature_dim]` intermediate.

  Args:
    vectors: float[batch, feature_dim].
    centers: float[num_centers, feature_dim], of the dtype of `vectors`.

  Returns:
    float[batch, num_centers], >= 0 up to rounding (it may be slightly
    negative where a vector coincides with a center).

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

  Differs from the reference code (`torch.sqrt` of the expanded square in
  `clientSA.cal_mcl_loss`, lokinko/FedSA@75bf106), whose gradient is NaN where
  a vector lies on a center: here it is finite everywhere, because squares are
  floored at 1e-12 before the square root.

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
