"""Tables of vectors in few bytes, and back.

Sources:

- uniform steps with random rounding: Alistarh et al., "QSGD", NeurIPS 2017
  (arXiv:1610.02132);
- the largest coordinates: Aji and Heafield, "Sparse Communication for
  Distributed Gradient Descent", EMNLP 2017 (arXiv:1704.05021), here without
  memory of what was left out, because a class mean is sent anew in each round;
- the sketch: Vargaftik et al., "DRIVE: One-bit Distributed Mean Estimation",
  NeurIPS 2021 (arXiv:2105.08339).
"""

from __future__ import annotations

from collections.abc import Callable
import math
from typing import Any, NamedTuple

import tensorflow as tf

_BITS = {'uniform8': 8, 'uniform4': 4}
NAMES = (*_BITS, 'topk', 'sketch')


class Quantized(NamedTuple):
  """Vectors in few bits per coordinate.

  Attributes:
    codes: uint8[rows, ceil(dim * bits / 8)], steps above `least`. With 4 bits,
      the first half of the coordinates is in the high bits.
    least: float32[rows], the least coordinate.
    step: float32[rows], >= 0.
  """

  codes: Any
  least: Any
  step: Any


class Sparse(NamedTuple):
  """Some coordinates of vectors.

  Attributes:
    values: float32[rows, kept].
    places: uint16[rows, kept], which coordinates.
  """

  values: Any
  places: Any


class Sketch(NamedTuple):
  """Signs of rotated vectors.

  Attributes:
    signs: uint8[rows, width / 8], one bit per coordinate of the rotated vector,
      `width` being the next power of two from `dim` on, 8 at least.
    size: float32[rows], the absolute value of all coordinates.
    seed: int32[2], of the rotation.
  """

  signs: Any
  size: Any
  seed: Any


class Codec(NamedTuple):
  """A way to send tables of vectors.

  Attributes:
    encode: `fn(vectors, seed) -> message`, of float32[rows, dim] and int32[2].
    decode: `fn(message) -> vectors`.
  """

  encode: Callable[[tf.Tensor, tf.Tensor], Any]
  decode: Callable[[Any], tf.Tensor]


def build_codec(name: str, dim: int, fraction: float) -> Codec:
  """Returns the codec of this name.

  Args:
    name: One of `NAMES`.
    dim: Coordinates of a vector.
    fraction: Share of the coordinates that `topk` keeps, rounded up, in (0, 1].
  """
  if name == 'topk':
    kept = max(1, math.ceil(round(fraction * dim, 9)))
    return Codec(
      lambda vectors, seed: sparsify(vectors, kept),
      lambda message: densify(message, dim),
    )
  if name == 'sketch':
    return Codec(sketch, lambda message: unsketch(message, dim))
  bits = _BITS[name]
  return Codec(
    lambda vectors, seed: quantize(vectors, bits, seed),
    lambda message: dequantize(message, dim, bits),
  )


def quantize(vectors: tf.Tensor, bits: int, seed: tf.Tensor) -> Quantized:
  """Rounds vectors at random; the mean over seeds is exact.

  Args:
    vectors: float32[rows, dim].
    bits: 8 or 4.
    seed: int32[2].
  """
  least = tf.reduce_min(vectors, axis=1)
  step = (tf.reduce_max(vectors, axis=1) - least) / (2**bits - 1)
  steps = tf.math.divide_no_nan(
    vectors - least[:, tf.newaxis], step[:, tf.newaxis]
  )
  drawn = tf.random.stateless_uniform(tf.shape(vectors), seed)
  codes = tf.clip_by_value(tf.floor(steps + drawn), 0.0, 2**bits - 1.0)
  codes = tf.cast(codes, tf.uint8)
  if bits == 4:
    half = -(-vectors.shape[1] // 2)
    high, low = codes[:, :half], codes[:, half:]
    low = tf.pad(low, [[0, 0], [0, 2 * half - vectors.shape[1]]])
    codes = tf.bitwise.bitwise_or(tf.bitwise.left_shift(high, _four()), low)
  return Quantized(codes, least, step)


def dequantize(message: Quantized, dim: int, bits: int) -> tf.Tensor:
  """Returns the vectors of a message, float32[rows, dim]."""
  codes = message.codes
  if bits == 4:
    low = tf.bitwise.bitwise_and(codes, tf.constant(15, tf.uint8))
    codes = tf.concat([tf.bitwise.right_shift(codes, _four()), low], axis=1)
  steps = tf.cast(codes[:, :dim], tf.float32)
  return message.least[:, tf.newaxis] + steps * message.step[:, tf.newaxis]


def sparsify(vectors: tf.Tensor, kept: int) -> Sparse:
  """Keeps the largest coordinates of each vector.

  Args:
    vectors: float32[rows, dim].
    kept: Coordinates to keep, in [1, dim].
  """
  places = tf.math.top_k(tf.abs(vectors), kept).indices
  values = tf.gather(vectors, places, axis=1, batch_dims=1)
  return Sparse(values, tf.cast(places, tf.uint16))


def densify(message: Sparse, dim: int) -> tf.Tensor:
  """Returns the vectors of a message, with zeros where nothing was sent."""
  chosen = tf.one_hot(tf.cast(message.places, tf.int32), dim)
  return tf.einsum('ckd,ck->cd', chosen, message.values)


def sketch(vectors: tf.Tensor, seed: tf.Tensor) -> Sketch:
  """Rotates vectors at random, and keeps signs and one size for each.

  The coordinates of a rotated vector z have similar sizes. |z|^2 / sum |z_i|
  stands in place of each. With this size, the mean over uniformly random
  rotations is the vector (DRIVE), and nearly so over the structured rotations
  here: random signs, and then a Hadamard matrix.

  Args:
    vectors: float32[rows, dim].
    seed: int32[2].
  """
  width = max(8, 1 << (vectors.shape[1] - 1).bit_length())
  padded = tf.pad(vectors, [[0, 0], [0, width - vectors.shape[1]]])
  rotated = _hadamard(padded * _random_signs(width, seed))
  size = tf.math.divide_no_nan(
    tf.reduce_sum(tf.square(rotated), axis=1),
    tf.reduce_sum(tf.abs(rotated), axis=1),
  )
  bits = tf.reshape(tf.cast(rotated >= 0, tf.int32), [-1, width // 8, 8])
  signs = tf.reduce_sum(bits * _powers(), axis=2)
  return Sketch(tf.cast(signs, tf.uint8), size, seed)


def unsketch(message: Sketch, dim: int) -> tf.Tensor:
  """Returns vectors near those of a message, float32[rows, dim]."""
  packed = tf.cast(message.signs, tf.int32)[:, :, tf.newaxis]
  bits = tf.cast(tf.bitwise.bitwise_and(packed, _powers()) > 0, tf.float32)
  width = 8 * message.signs.shape[1]
  signs = tf.reshape(2.0 * bits - 1.0, [-1, width])
  rotated = message.size[:, tf.newaxis] * signs
  return (_hadamard(rotated) * _random_signs(width, message.seed))[:, :dim]


def _hadamard(vectors: tf.Tensor) -> tf.Tensor:
  """Multiplies rows by the orthonormal Hadamard matrix, its own inverse."""
  width = vectors.shape[1]
  half = 1
  while half < width:
    pairs = tf.reshape(vectors, [-1, width // (2 * half), 2, half])
    first, second = pairs[:, :, 0], pairs[:, :, 1]
    vectors = tf.stack([first + second, first - second], axis=2)
    half *= 2
  return tf.reshape(vectors, [-1, width]) / math.sqrt(width)


def _random_signs(width: int, seed: tf.Tensor) -> tf.Tensor:
  drawn = tf.random.stateless_uniform([width], seed)
  return tf.where(drawn < 0.5, -1.0, 1.0)


def _powers() -> tf.Tensor:
  return tf.constant([1 << place for place in range(8)], tf.int32)


def _four() -> tf.Tensor:
  return tf.constant(4, tf.uint8)
