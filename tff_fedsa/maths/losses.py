"""Terms of client objectives, as pure functions.

The terms of FedSA are:

  L = L_ce + lambda_reg * L_reg + lambda_mcl * L_mcl + lambda_cc * L_cc

Source: Zhou et al., "FedSA: A Unified Representation Learning via Semantic
Anchors for Prototype-based Federated Learning", AAAI 2025 (arXiv:2501.05496);
reference code `clientSA.train`, lokinko/FedSA@75bf106. No gradient flows into
the anchors. The module also has the structural alignment, an option of FedSA,
the pull to global class means, which FedProto and similar methods add to the
cross-entropy, and the mutual distillation of two models.
"""

from collections.abc import Callable

import tensorflow as tf

from tff_fedsa.maths import distances

_TINY = 1e-20


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
  """Returns the mean softmax cross-entropy of a batch (L_ce).

  Args:
    logits: float[batch, num_classes].
    labels: int[batch], in `[0, num_classes)`.

  Returns:
    float scalar, nats per example, >= 0.
  """
  return tf.reduce_mean(
    tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
  )


def anchor_regularization(
  features: tf.Tensor, labels: tf.Tensor, anchors: tf.Tensor
) -> tf.Tensor:
  """Returns the pull of features to their class's anchor (L_reg).

    L_reg = mean over b and d of (z[b, d] - A[y_b, d])^2

  Args:
    features: float[batch, feature_dim].
    labels: int[batch], in `[0, num_classes)`.
    anchors: float[num_classes, feature_dim].

  Returns:
    float scalar >= 0, squared feature units.

  Raises:
    ValueError: If features and anchors differ in `feature_dim`.
  """
  features.shape.assert_has_rank(2)
  features.shape[1:].assert_is_compatible_with(anchors.shape[1:])
  targets = tf.gather(tf.stop_gradient(anchors), labels)
  return tf.reduce_mean(tf.math.squared_difference(features, targets))


def structural_alignment(
  features: tf.Tensor, labels: tf.Tensor, anchors: tf.Tensor
) -> tf.Tensor:
  """Returns how far features are from the anchors' structure (L_str).

    L_str = 1 - CKA(Z, A[y])

  CKA is the linear centered kernel alignment (Kornblith et al., ICML 2019) of a
  batch's features and the anchors of their labels. Rotations, shifts and
  positive factors of the features do not change it: distances between classes
  matter, not places. It is the idea of FedSAF (arXiv:2605.05959), whose exact
  losses we could not read.

  Args:
    features: float[batch, feature_dim].
    labels: int[batch], in `[0, num_classes)`.
    anchors: float[num_classes, any dimension].

  Returns:
    float scalar in [0, 1] up to rounding, 0 if all examples have one class.
  """
  features.shape.assert_has_rank(2)
  features -= tf.reduce_mean(features, axis=0)
  targets = tf.gather(tf.stop_gradient(anchors), labels)
  targets -= tf.reduce_mean(targets, axis=0)
  of_features = tf.matmul(features, features, transpose_b=True)
  of_targets = tf.matmul(targets, targets, transpose_b=True)

  def norm(kernel):
    # The gradient is finite if all features are equal.
    return tf.sqrt(tf.maximum(tf.reduce_sum(tf.square(kernel)), _TINY))

  alignment = tf.reduce_sum(of_features * of_targets) / (
    norm(of_features) * norm(of_targets)
  )
  several = tf.reduce_any(labels != labels[0])
  return tf.where(several, 1.0 - alignment, tf.zeros_like(alignment))


def margin_contrastive(
  features: tf.Tensor,
  labels: tf.Tensor,
  anchors: tf.Tensor,
  margin: tf.Tensor,
) -> tf.Tensor:
  """Returns the margin-enhanced contrastive term (L_mcl).

    d_bk  = ||z_b - A_k||_2
    L_mcl = CE(-(d + onehot(y) * margin), y)

  The term asks for features that are closer to their own anchor than to any
  other anchor, by the margin.

  The gradient is finite if a feature equals an anchor, unlike in the reference
  code (see `distances.distances`).

  Args:
    features: float[batch, feature_dim].
    labels: int[batch], in `[0, num_classes)`.
    anchors: float[num_classes, feature_dim].
    margin: float scalar >= 0, in units of feature distance.

  Returns:
    float scalar, nats per example, >= 0.

  Raises:
    ValueError: If features and anchors differ in `feature_dim`.
  """
  anchors = tf.stop_gradient(anchors)
  to_anchors = distances.distances(features, anchors)
  is_true_class = tf.one_hot(labels, tf.shape(anchors)[0], dtype=features.dtype)
  return cross_entropy(-(to_anchors + margin * is_true_class), labels)


def classifier_calibration(
  head_fn: Callable[[tf.Tensor], tf.Tensor], anchors: tf.Tensor
) -> tf.Tensor:
  """Returns the cross-entropy of the head on the anchors (L_cc).

    L_cc = CE(h(A), [0, 1, ..., C - 1])

  Args:
    head_fn: float[num_classes, feature_dim] -> float[num_classes,
      num_classes], the client's classifier head.
    anchors: float[num_classes, feature_dim].

  Returns:
    float scalar, nats per class, >= 0.
  """
  anchors = tf.stop_gradient(anchors)
  return cross_entropy(head_fn(anchors), tf.range(tf.shape(anchors)[0]))


def class_mean_regularization(
  vectors: tf.Tensor, labels: tf.Tensor, means: tf.Tensor, present: tf.Tensor
) -> tf.Tensor:
  """Returns the pull of features, or logits, to the mean of their class.

    L_reg = mean over b and d of present[y_b] * (v[b, d] - M[y_b, d])^2

  Examples of classes without a mean contribute 0 but stay in the average.

  Source: `clientProto.train`, lokinko/FedSA@75bf106. There, examples of classes
  without a mean are compared with themselves.

  Args:
    vectors: float[batch, dim].
    labels: int[batch], in `[0, num_classes)`.
    means: float[num_classes, dim]. No gradient flows into them.
    present: bool[num_classes], whether a class has a mean.

  Returns:
    float scalar >= 0, squared units of `vectors`.

  Raises:
    ValueError: If vectors and means differ in `dim`.
  """
  vectors.shape.assert_has_rank(2)
  vectors.shape[1:].assert_is_compatible_with(means.shape[1:])
  # Rows of absent classes may hold anything.
  means = tf.where(present[:, tf.newaxis], means, tf.zeros_like(means))
  squares = tf.math.squared_difference(
    vectors, tf.gather(tf.stop_gradient(means), labels)
  )
  counted = tf.gather(present, labels)[:, tf.newaxis]
  return tf.reduce_mean(tf.where(counted, squares, tf.zeros_like(squares)))


def distillation(logits: tf.Tensor, teacher_logits: tf.Tensor) -> tf.Tensor:
  """Returns the divergence of class probabilities from a teacher's.

    L = mean over b of sum over c of q[b, c] * (log q[b, c] - log p[b, c])

  with p = softmax(logits) and q = softmax(teacher_logits): KL(q || p).

  Args:
    logits: float[batch, num_classes].
    teacher_logits: float[batch, num_classes]. A gradient flows into them, too.

  Returns:
    float scalar, nats per example, >= 0.
  """
  log_p = tf.nn.log_softmax(logits)
  log_q = tf.nn.log_softmax(teacher_logits)
  return tf.reduce_mean(tf.reduce_sum(tf.exp(log_q) * (log_q - log_p), axis=1))


def mutual_distillation(
  logits: tf.Tensor, shared_logits: tf.Tensor, *, reference: bool = False
) -> tuple[tf.Tensor, tf.Tensor]:
  """Returns the `distillation` of two models that teach each other.

  Args:
    logits: float[batch, num_classes], of a client's model.
    shared_logits: float[batch, num_classes], of the shared model.
    reference: Whether terms are also averaged over classes, and each moves both
      models, teacher and pupil, as in TsingZ0/HtFLlib@e959261. Default: a
      teacher's logits are constants, as in the papers.

  Returns:
    Two float scalars, nats >= 0: for the client's model and for the shared
    model.
  """
  if reference:
    num_classes = tf.cast(tf.shape(logits)[1], logits.dtype)
    return (
      distillation(logits, shared_logits) / num_classes,
      distillation(shared_logits, logits) / num_classes,
    )
  return (
    distillation(logits, tf.stop_gradient(shared_logits)),
    distillation(shared_logits, tf.stop_gradient(logits)),
  )
