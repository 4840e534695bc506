"""Targets that the server learns by matching gradients.

The idea is that of the hyper-prototypes of FedHPro: Wang et al., "FedHPro:
Federated Hyper-Prototype Learning via Gradient Matching", ICML 2026
(arXiv:2605.13475), code mala-lab/FedHPro@83114b6, `obtain_hyper_prototypes`.
There the server has the head of all clients. A client sends, for each class,
the mean gradient of the cross-entropy with respect to the features of its
examples. The server trains vectors by SGD until their own gradients have the
same directions. We know the code and summaries of the paper, not its text.

Here clients of several architectures have heads of their own, so five points
differ:

- The common classifier is that of the anchors, with the logits
  `-|z - A_j|^2 / (2 sqrt(D))`. It is linear in z up to a term that all classes
  share.
- The server estimates the mean gradient of a class from the mean and the
  variance of the features of all clients (`virtual_features.draw`). So clients
  send no gradients.
- A class has one vector, not five, and the search begins at its anchor in every
  round, not at noise in the first.
- The clients' terms stay FedSA's, in place of FedHPro's contrast and penalty.
- Their code also trains a second set of vectors, which replaces the head of the
  averaged model. There is no such head here.
"""

import tensorflow as tf

from tff_fedsa.maths import distances
from tff_fedsa.maths import gradients as gradients_lib


def gradient_directions(features: tf.Tensor, anchors: tf.Tensor) -> tf.Tensor:
  """Returns the direction of the mean gradient of each class.

  The gradient of CE(z, c) with respect to z, with the logits above, is
  `sum over j of p_j(z) (A_j - A_c) / sqrt(D)`. Only directions are compared, so
  the mean probabilities of wrong classes are scaled to the sum 1. Confident
  features then have a direction, too.

  Args:
    features: float32[K, num_classes, feature_dim], K features of each class.
    anchors: float32[num_classes, feature_dim], num_classes >= 2.

  Returns:
    float32[num_classes, feature_dim] of norm 1, or 0 where the gradient is.
  """
  per_class, num_classes, feature_dim = features.shape
  squared = distances.squared_distances(
    tf.reshape(features, [-1, feature_dim]), anchors
  )
  log_probabilities = tf.nn.log_softmax(-squared / (2.0 * feature_dim**0.5))
  means = tf.reduce_logsumexp(
    tf.reshape(log_probabilities, [per_class, num_classes, num_classes]), axis=0
  )
  wrong = tf.linalg.set_diag(means, tf.fill([num_classes], means.dtype.min))
  return tf.math.l2_normalize(
    tf.matmul(tf.nn.softmax(wrong), anchors) - anchors, axis=1
  )


def matching_loss(
  vectors: tf.Tensor, targets: tf.Tensor, anchors: tf.Tensor
) -> tf.Tensor:
  """Returns how far the gradient of each vector is from its target.

    L_c = 1 - cos(gradient at s_c, target_c)

  Args:
    vectors: float32[num_classes, feature_dim], s.
    targets: float32[num_classes, feature_dim] of norm 1.
    anchors: float32[num_classes, feature_dim], the classifier.

  Returns:
    float32[num_classes] in [0, 2].
  """
  found = gradient_directions(vectors[tf.newaxis], anchors)
  return 1.0 - tf.reduce_sum(found * targets, axis=1)


def matched(
  vectors: tf.Tensor,
  targets: tf.Tensor,
  anchors: tf.Tensor,
  present: tf.Tensor,
  *,
  num_steps: int,
  learning_rate: float,
) -> tf.Tensor:
  """Returns vectors after SGD on the sum of `matching_loss` over classes.

  Args:
    vectors: See `matching_loss`; where the search begins.
    targets: See there.
    anchors: See there.
    present: bool[num_classes]. Vectors of other classes do not move.
    num_steps: Steps, >= 0.
    learning_rate: Learning rate, > 0.

  Returns:
    float32[num_classes, feature_dim].
  """
  # The classifier may be the tensor with which the search begins.
  anchors = tf.stop_gradient(anchors)

  def train_step(step, found):
    with tf.GradientTape() as tape:
      tape.watch(found)
      loss = tf.reduce_sum(matching_loss(found, targets, anchors))
    gradient = gradients_lib.gradients(tape, loss, found)
    moved = found - learning_rate * gradient
    return step + 1, tf.where(present[:, tf.newaxis], moved, found)

  _, found = tf.while_loop(
    lambda step, _: step < num_steps, train_step, (tf.constant(0), vectors)
  )
  return found
