"""Gaps between classes, and the margin of FedSA's contrastive term.

Source: Zhou et al., "FedSA", AAAI 2025 (arXiv:2501.05496), margin-enhanced
contrastive learning; reference code `clientSA.cal_local_gap`,
`clientSA.cal_global_gap` and `clientSA.cal_mcl_loss`, lokinko/FedSA@75bf106.
"""

from typing import Optional

import numpy as np
import tensorflow as tf

from tff_fedsa.maths import distances


def nearest_class_distances(
  centers: tf.Tensor, present: Optional[tf.Tensor] = None
) -> tf.Tensor:
  """Returns the distance from each class to its nearest other class.

  Args:
    centers: float[num_classes, feature_dim], one vector per class.
    present: bool[num_classes]. Absent classes are ignored. Default: all classes
      are present.

  Returns:
    float[num_classes] >= 0, or +inf for a class that is absent or alone.
  """
  # Distances do not change if all rows are shifted. Rows near their mean lose
  # fewer digits in the expanded square.
  num_classes = centers.shape[0]
  pairs = tf.constant(~np.eye(num_classes, dtype=bool))
  num_present = tf.constant(num_classes, centers.dtype)
  if present is not None:
    rows = present[:, tf.newaxis]
    centers = tf.where(rows, centers, tf.zeros_like(centers))
    num_present = tf.reduce_sum(tf.cast(present, centers.dtype))
    pairs &= rows & present
  centers -= tf.math.divide_no_nan(
    tf.reduce_sum(centers, axis=0, keepdims=True), num_present
  )
  infinity = tf.constant(float('inf'), centers.dtype)
  return tf.reduce_min(
    tf.where(pairs, distances.distances(centers, centers), infinity), axis=1
  )


def class_gap(
  centers: tf.Tensor, present: Optional[tf.Tensor] = None
) -> tf.Tensor:
  """Returns the mean distance of a class to its nearest other class.

    gap(Q) = mean over the rows c of Q of  min_{c' != c} ||Q_c - Q_c'||_2

  >>> centers = tf.constant([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]])
  >>> round(float(class_gap(centers)), 3)  # (1 + 4.243 + 1) / 3
  2.081
  >>> float(class_gap(centers, tf.constant([True, True, False])))
  5.0

  Args:
    centers: float[num_classes, feature_dim].
    present: bool[num_classes], the rows of Q. Default: all.

  Returns:
    float scalar >= 0 in units of feature distance, or -inf if fewer than two
    classes are present.
  """
  nearest = nearest_class_distances(centers, present)
  counted = tf.math.is_finite(nearest)
  num_counted = tf.reduce_sum(tf.cast(counted, nearest.dtype))
  total = tf.reduce_sum(tf.where(counted, nearest, tf.zeros_like(nearest)))
  return tf.where(
    num_counted > 0,
    tf.math.divide_no_nan(total, num_counted),
    tf.constant(-float('inf'), nearest.dtype),
  )


def local_gap(prototypes: tf.Tensor, counts: tf.Tensor) -> tf.Tensor:
  """Returns the gap of a client's own prototypes of the previous round.

  Args:
    prototypes: float[num_classes, feature_dim], from the client state.
    counts: float[num_classes], zero where the client has no prototype.

  Returns:
    float scalar: 0 if the client has no prototypes (its first round), -inf if
    it has one, else their `class_gap`.
  """
  present = counts > 0
  return tf.where(
    tf.reduce_any(present),
    class_gap(prototypes, present),
    tf.zeros([], prototypes.dtype),
  )


def margin(
  anchors: tf.Tensor, prototypes: tf.Tensor, counts: tf.Tensor
) -> tf.Tensor:
  """Returns a client's margin for one round, `max(local gap, global gap)`.

  Args:
    anchors: float[num_classes, feature_dim], as broadcast by the server.
    prototypes: float[num_classes, feature_dim], the client's own.
    counts: float[num_classes], zero where the client has no prototype.

  Returns:
    float scalar >= 0 in units of feature distance; no gradient flows.
  """
  return tf.stop_gradient(
    tf.maximum(local_gap(prototypes, counts), class_gap(anchors))
  )
