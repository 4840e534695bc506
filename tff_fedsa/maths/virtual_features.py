"""Virtual features: draws from what the server knows of each class's features.

The server knows the mean and the mean square of each feature, by class, over
all clients. A client draws features of the classes that are rare with it, and
its head learns them beside the real ones.

Source: CCVR, Luo et al., "No Fear of Heterogeneity: Classifier Calibration for
Federated Learning with Non-IID Data", NeurIPS 2021 (arXiv:2106.05001). CCVR
differs in four points:

- It calibrates once, after training. Here the virtual features are a term of
  the loss in every step, so that heads follow features that still change.
- It has one model, whose head the server calibrates. Here each client
  calibrates its own, and architectures differ.
- It sends full covariances, D (D + 1) / 2 numbers per class. Here clients send
  D squares per class, so features of a class are drawn independently.
- It draws all classes. Here only rare ones count, because the cross-entropy of
  real features teaches the others.
"""

from collections.abc import Callable

import tensorflow as tf


def class_variances(means: tf.Tensor, squares: tf.Tensor) -> tf.Tensor:
  """Returns the variance of each feature, by class.

    var[c, d] = max(0, squares[c, d] - means[c, d]^2)

  Rounding, noise or forged squares may make the difference negative.

  Args:
    means: float[num_classes, feature_dim], mean features.
    squares: float[num_classes, feature_dim], mean squares of features.

  Returns:
    float[num_classes, feature_dim] >= 0.
  """
  return tf.maximum(squares - tf.square(means), 0.0)


def rarity(counts: tf.Tensor, present: tf.Tensor) -> tf.Tensor:
  """Returns how rare each class is with a client.

    w[c] = max(0, 1 - C n[c] / n)

  The weight is 1 for a class that the client lacks, and 0 for one with a fair
  share of its n examples, n / C, or more. Added to the share of the class in
  the cross-entropy, n[c] / n, the weight w[c] / C lifts rare classes to 1 / C.

  Args:
    counts: float[num_classes], the client's examples by class. If all are 0,
      nobody knows what is rare, and all classes count.
    present: bool[num_classes], classes of which the server knows features.

  Returns:
    float[num_classes] in [0, 1], 0 where `present` is False.
  """
  num_classes = tf.cast(tf.size(counts), counts.dtype)
  shares = tf.math.divide_no_nan(counts, tf.reduce_sum(counts))
  weights = tf.maximum(1.0 - num_classes * shares, 0.0)
  return tf.where(present, weights, tf.zeros_like(weights))


def draw(
  means: tf.Tensor, variances: tf.Tensor, per_class: int, seed: tf.Tensor
) -> tf.Tensor:
  """Returns features drawn from N(means[c], diag(variances[c])).

  Args:
    means: float32[num_classes, feature_dim].
    variances: float32[num_classes, feature_dim], >= 0.
    per_class: K, draws of each class, >= 1.
    seed: int32[2]; the same seed draws the same features.

  Returns:
    float32[K, num_classes, feature_dim].
  """
  noise = tf.random.stateless_normal([per_class, *means.shape], seed)
  return means + tf.sqrt(variances) * noise


def cross_entropy(
  head_fn: Callable[[tf.Tensor], tf.Tensor],
  features: tf.Tensor,
  weights: tf.Tensor,
) -> tf.Tensor:
  """Returns the weighted cross-entropy of a head on virtual features.

    L_virtual = 1/C sum over c of w[c] * mean over k of CE(h(z[k, c]), c)

  Args:
    head_fn: float[batch, feature_dim] -> float[batch, num_classes], the
      client's classifier head.
    features: float[K, num_classes, feature_dim]. No gradient flows into them.
    weights: float[num_classes], see `rarity`.

  Returns:
    float scalar, nats, >= 0.
  """
  per_class, num_classes, feature_dim = features.shape
  flat = tf.reshape(tf.stop_gradient(features), [-1, feature_dim])
  terms = tf.nn.sparse_softmax_cross_entropy_with_logits(
    tf.tile(tf.range(num_classes), [per_class]), head_fn(flat)
  )
  by_class = tf.reduce_mean(tf.reshape(terms, [per_class, num_classes]), axis=0)
  return tf.reduce_mean(weights * by_class)
