"""Compression of weights by singular value decomposition.

Source: Wu et al., "Communication-efficient federated learning via knowledge
distillation", Nature Communications 2022 (arXiv:2108.13323); reference code
`decomposition` in `system/flcore/clients/clientkd.py`, TsingZ0/HtFLlib@e959261.
"""

from collections.abc import Callable, Sequence
import math
from typing import Any, NamedTuple

import tensorflow as tf

from tff_fedsa.maths import finite as finite_lib


class Compressed(NamedTuple):
  """Compressed form of a flat vector.

  Attributes:
    vector: float32[?] of the same length, with matrices of lower rank.
    num_floats: float32 scalar, how many numbers a message needs.
  """

  vector: Any
  num_floats: Any


def truncate(
  matrices: tf.Tensor, energy: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
  """Returns the nearest matrices of lower rank, and the rank.

  All matrices get the same rank. It is the smallest rank at which the largest
  singular values hold more than `energy` of the sum of squares. It is at least
  1, unless the matrices are zero.

  If all singular values are needed, the reference code finds rank 0 and drops
  the matrix. Here it stays whole.

  Args:
    matrices: float32[batch, rows, columns], finite.
    energy: float32 scalar in (0, 1].

  Returns:
    float32[batch, rows, columns] and an int32 scalar in
    [0, min(rows, columns)].
  """
  values, left, right = tf.linalg.svd(matrices)
  held = tf.cumsum(tf.reduce_sum(tf.square(values), axis=0))
  too_few = tf.math.count_nonzero(held <= energy * held[-1], dtype=tf.int32)
  rank = tf.minimum(too_few + 1, tf.size(held))
  rank = tf.where(held[-1] > 0, rank, 0)
  kept = tf.cast(tf.range(tf.size(held)) < rank, values.dtype)
  left *= (kept * values)[:, tf.newaxis]
  return tf.matmul(left, right, transpose_b=True), rank


def build_compression(
  specs: Sequence[tf.TensorSpec], *, kernelwise: bool = False
) -> Callable[[tf.Tensor, tf.Tensor], Compressed]:
  """Returns `fn(vector, energy) -> Compressed` for weights with a layout.

  Kernels become matrices [inputs, outputs], kernels of convolutions [height *
  width * inputs, outputs], and are truncated. A message holds the rank r of a
  matrix and r singular values, each with two singular vectors, or the whole
  matrix if that takes fewer numbers. Biases and BatchNorm are not compressed. A
  vector that is not finite is returned unchanged.

  Args:
    specs: Specifications of the tensors in the flat vector.
    kernelwise: Treat a convolution as a batch of matrices [height, width], one
      per input and output, as in the reference code. They are small and save
      little.
  """
  sizes = [spec.shape.num_elements() for spec in specs]

  def compress_tensor(part, shape, energy):
    size = math.prod(shape)
    if len(shape) < 2:
      return part, float(size)
    if kernelwise and len(shape) == 4:
      # [height, width, inputs, outputs] <-> [inputs * outputs, height, width].
      matrices = tf.reshape(
        tf.transpose(tf.reshape(part, [math.prod(shape[:2]), -1])),
        [-1, *shape[:2]],
      )
    else:
      matrices = tf.reshape(part, [1, -1, shape[-1]])
    batch, rows, columns = matrices.shape
    if min(rows, columns) < 2:
      return part, float(size)
    truncated, rank = truncate(matrices, energy)
    if batch > 1:
      truncated = tf.transpose(tf.reshape(truncated, [batch, rows * columns]))
    factors = tf.cast(rank, tf.float32) * (batch * (rows + columns + 1)) + 1
    return tf.reshape(truncated, [-1]), tf.minimum(factors, float(size))

  def compress(vector, energy):
    vector = tf.ensure_shape(vector, [sum(sizes)])
    finite = finite_lib.all_finite(vector)
    # Decompositions of values that are not finite may fail.
    safe = tf.where(finite, vector, tf.zeros_like(vector))
    parts, counts = zip(
      *(
        compress_tensor(part, tuple(spec.shape), energy)
        for part, spec in zip(tf.split(safe, sizes), specs)
      )
    )
    return Compressed(
      tf.where(finite, tf.concat(parts, axis=0), vector),
      tf.add_n([tf.convert_to_tensor(count) for count in counts]),
    )

  return compress
