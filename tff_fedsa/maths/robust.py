"""Robust means: values by class that hold although some clients made theirs up.

All functions take the values of a round, `vectors` float32[num_clients,
num_classes, dim], and `held` bool[num_clients, num_classes], which of them
there are. A client that has a class counts 1. Where nobody has a class, the
result is zeros.

With one or two contributors nothing tells a liar from an honest client: every
function then returns their mean.
"""

import tensorflow as tf

from tff_fedsa.maths import distances
from tff_fedsa.maths import margins

# Weiszfeld's steps end here, or when no class moves by more than this part of
# the distance of its values.
_MAX_STEPS = 100
_SMALLEST_MOVE = 1e-6
# RFA's nu: a distance below it counts as this much.
_SMALLEST_DISTANCE = 1e-6


def mean(vectors: tf.Tensor, held: tf.Tensor) -> tf.Tensor:
  """Returns the mean, float32[num_classes, dim]."""
  shares = _shares(tf.cast(held, vectors.dtype))
  return tf.einsum('mc,mcd->cd', shares, _masked(vectors, held))


def median(vectors: tf.Tensor, held: tf.Tensor) -> tf.Tensor:
  """Returns the median of each coordinate, float32[num_classes, dim].

  Of an even number of values it is the mean of the middle two. Source: Yin et
  al., "Byzantine-Robust Distributed Learning: Towards Optimal Statistical
  Rates", ICML 2018 (arXiv:1803.01498), Algorithm 1, option I.
  """
  return _middle_mean(vectors, held, _count(held))


def trimmed_mean(
  vectors: tf.Tensor, held: tf.Tensor, fraction: float
) -> tf.Tensor:
  """Returns the mean of each coordinate without its extremes.

  Of n values it leaves out ceil(fraction * n) on each side, but never so many
  that nothing is left. Source: Yin et al. 2018, Algorithm 1, option II.

  Args:
    vectors: See above.
    held: See above.
    fraction: beta, in [0, 0.5).
  """
  count = _count(held)
  return _middle_mean(vectors, held, _suspects(count, fraction))


def geometric_median(vectors: tf.Tensor, held: tf.Tensor) -> tf.Tensor:
  """Returns the point of the smallest sum of distances to the values.

  By Weiszfeld's algorithm, from the mean. Source: Pillutla et al., "Robust
  Aggregation for Federated Learning" (RFA), IEEE TSP 2022 (arXiv:1912.13445),
  Algorithm 2 with equal weights and nu = 1e-6.
  """
  # The point is a mean of the values, so their inner products are enough for
  # all steps.
  inner = _inner_products(vectors, held)
  squares = tf.linalg.diag_part(inner)
  counted = tf.cast(tf.transpose(held), inner.dtype)

  def step(index, shares, unused_moving):
    products = tf.linalg.matvec(inner, shares)
    own = tf.reduce_sum(shares * products, axis=1, keepdims=True)
    apart = tf.sqrt(tf.maximum(squares - 2.0 * products + own, 0.0))
    new = _shares(counted / tf.maximum(apart, _SMALLEST_DISTANCE), axis=1)
    change = new - shares
    moved = tf.reduce_sum(change * tf.linalg.matvec(inner, change), axis=1)
    spread = tf.reduce_sum(counted * apart, axis=1)
    moving = tf.sqrt(tf.maximum(moved, 0.0)) > _SMALLEST_MOVE * spread
    return index + 1, new, tf.reduce_any(moving)

  _, shares, _ = tf.while_loop(
    lambda index, _, moving: (index < _MAX_STEPS) & moving,
    step,
    (tf.constant(0), _shares(counted, axis=1), tf.constant(True)),
  )
  return tf.einsum(
    'cm,mcd->cd', tf.cast(shares, vectors.dtype), _masked(vectors, held)
  )


def krum(vectors: tf.Tensor, held: tf.Tensor, fraction: float) -> tf.Tensor:
  """Returns the value that lies nearest to its n - f - 2 nearest others.

  Of n values, f = ceil(fraction * n) are suspected. Fewer than 2f + 3 values
  give no such guarantee: then it is the `median`. Source: Blanchard et al.,
  "Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent",
  NeurIPS 2017 (arXiv:1703.02757).

  Args:
    vectors: See above.
    held: See above.
    fraction: In [0, 0.5).
  """
  return _krum(vectors, held, fraction, lambda count, suspects: 0 * count + 1)


def multi_krum(
  vectors: tf.Tensor, held: tf.Tensor, fraction: float
) -> tf.Tensor:
  """Returns the mean of the n - f values of the best scores of `krum`.

  Args:
    vectors: See above.
    held: See above.
    fraction: In [0, 0.5).
  """
  return _krum(
    vectors, held, fraction, lambda count, suspects: count - suspects
  )


def near_own_anchor(
  vectors: tf.Tensor, anchors: tf.Tensor, radius: float
) -> tf.Tensor:
  """Returns which prototypes lie where their class is, bool[num_classes].

  That is, no nearer to another class's anchor than to their own, and no farther
  from their own than `radius` times `margins.class_gap` of the anchors.

  Args:
    vectors: float32[num_classes, dim], a client's prototypes.
    anchors: float32[num_classes, dim].
    radius: > 0.
  """
  apart = distances.distances(vectors, anchors)
  own = tf.linalg.diag_part(apart)
  return (own <= tf.reduce_min(apart, axis=1)) & (
    own <= radius * margins.class_gap(anchors)
  )


def _krum(vectors, held, fraction, num_chosen_fn):
  count = _count(held)
  suspects = _suspects(count, fraction)
  inner = _inner_products(vectors, held)
  squares = tf.linalg.diag_part(inner)
  apart = squares[:, :, tf.newaxis] - 2.0 * inner + squares[:, tf.newaxis, :]
  there = tf.transpose(held)
  pairs = there[:, :, tf.newaxis] & there[:, tf.newaxis, :]
  pairs = tf.linalg.set_diag(pairs, tf.zeros(tf.shape(there), tf.bool))
  never = tf.constant(float('inf'), tf.float64)
  ordered = tf.sort(tf.where(pairs, tf.maximum(apart, 0.0), never), axis=2)
  num_near = tf.maximum(count - suspects - 2, 1)
  is_near = (
    tf.range(tf.shape(held)[0])[tf.newaxis, tf.newaxis]
    < num_near[:, tf.newaxis, tf.newaxis]
  )
  scores = tf.reduce_sum(
    tf.where(is_near, ordered, tf.zeros_like(ordered)), axis=2
  )
  scores = tf.where(there, scores, never)
  # Places of the clients in the order of their scores.
  places = tf.argsort(tf.argsort(scores, axis=1, stable=True), axis=1)
  chosen = places < num_chosen_fn(count, suspects)[:, tf.newaxis]
  best = mean(vectors, tf.transpose(chosen) & held)
  few = count < 2 * suspects + 3
  instead = tf.cond(
    tf.reduce_any(few & (count > 0)),
    lambda: median(vectors, held),
    lambda: tf.zeros_like(best),
  )
  return tf.where(few[:, tf.newaxis], instead, best)


def _middle_mean(vectors, held, cut):
  """Returns the mean of each coordinate without `cut` values on each side.

  One or two values stay if there are fewer.
  """
  count = _count(held)
  cut = tf.minimum(cut, tf.maximum(count - 1, 0) // 2)
  absent = tf.constant(float('inf'), vectors.dtype)
  values = tf.where(held[:, :, tf.newaxis], vectors, absent)
  # Clients last, as this is how TensorFlow sorts; absent ones come last.
  ordered = tf.sort(tf.transpose(values, [1, 2, 0]), axis=2)
  place = tf.range(tf.shape(held)[0])[tf.newaxis]
  kept = (place >= cut[:, tf.newaxis]) & (place < (count - cut)[:, tf.newaxis])
  ordered = tf.where(kept[:, tf.newaxis], ordered, tf.zeros_like(ordered))
  num_kept = tf.cast(count - 2 * cut, vectors.dtype)
  return tf.math.divide_no_nan(
    tf.reduce_sum(ordered, axis=2), num_kept[:, tf.newaxis]
  )


def _masked(vectors, held):
  return tf.where(held[:, :, tf.newaxis], vectors, tf.zeros_like(vectors))


def _inner_products(vectors, held):
  """Returns inner products by class, float64[num_classes, clients, clients]."""
  # Attackers send values of any size: float64 keeps the digits of the others.
  values = tf.transpose(_masked(vectors, held), [1, 0, 2])
  values = tf.cast(values, tf.float64)
  return tf.matmul(values, values, transpose_b=True)


def _count(held):
  return tf.reduce_sum(tf.cast(held, tf.int32), axis=0)


def _suspects(count, fraction):
  # 0.2 * 10 is 2, and a little more in float32.
  exact = fraction * tf.cast(count, tf.float32)
  return tf.cast(tf.math.ceil(exact - 1e-4), tf.int32)


def _shares(weights, axis=0):
  total = tf.reduce_sum(weights, axis=axis, keepdims=True)
  return tf.math.divide_no_nan(weights, total)
