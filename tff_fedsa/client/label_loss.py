"""The cross-entropy of logits and labels: smoothing, weights, adjustment.

The objectives of all methods use `cross_entropy`. What it does beyond
`losses.cross_entropy` follows from `LocalTrainingConfig` and from the client's
own labels, which travel to the steps in the objective's context.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import tensorflow as tf

from tff_fedsa.maths import losses

if TYPE_CHECKING:
  from tff_fedsa.client import local_training

# Keys of the context.
_SMOOTHING = 'label_smoothing'
_WEIGHTS = 'class_weights'
_ADJUSTMENT = 'logit_adjustment'

# Share of the examples that an absent class counts as in the adjustment.
_ABSENT = 1e-6


def context_specs(
  config: local_training.LocalTrainingConfig, num_classes: int
) -> dict[str, tf.TensorSpec]:
  """Returns the specs of `context`: empty for the plain cross-entropy."""
  specs = {}
  if config.label_smoothing:
    specs[_SMOOTHING] = tf.TensorSpec([], tf.float32)
  if config.class_weights == 'balanced':
    specs[_WEIGHTS] = tf.TensorSpec([num_classes], tf.float32)
  if config.logit_adjustment:
    specs[_ADJUSTMENT] = tf.TensorSpec([num_classes], tf.float32)
  return specs


def context(
  config: local_training.LocalTrainingConfig,
  labels: tf.Tensor,
  num_classes: int,
) -> dict[str, tf.Tensor]:
  """Returns what `cross_entropy` needs from a client, fixed for a round.

  Args:
    config: Has `label_smoothing`, `class_weights` and `logit_adjustment`.
    labels: int32[?], the labels of the client's training examples.
    num_classes: C.
  """
  found = {}
  if config.label_smoothing:
    found[_SMOOTHING] = tf.constant(config.label_smoothing)
  if config.class_weights == 'none' and not config.logit_adjustment:
    return found
  counts = tf.math.bincount(
    labels, minlength=num_classes, maxlength=num_classes, dtype=tf.float32
  )
  num_examples = tf.reduce_sum(counts)
  if config.class_weights == 'balanced':
    num_present = tf.reduce_sum(tf.cast(counts > 0, tf.float32))
    found[_WEIGHTS] = tf.math.divide_no_nan(num_examples, num_present * counts)
  if config.logit_adjustment:
    shares = tf.math.divide_no_nan(counts, num_examples)
    found[_ADJUSTMENT] = config.logit_adjustment * tf.math.log(
      tf.maximum(shares, _ABSENT)
    )
  return found


def cross_entropy(
  logits: tf.Tensor, labels: tf.Tensor, context: Mapping[str, tf.Tensor]
) -> tf.Tensor:
  """Returns the mean cross-entropy of a batch, as the settings want it.

    CE = mean over b of w[y_b] * (-sum over k of t[b, k] log p[b, k])
    t  = (1 - s) * onehot(y_b) + s / C     label smoothing s
    p  = softmax(logits[b] + a)            logit adjustment a = tau * log(share)
    w  = n / (K * n_c)                     class weights, balanced

  n is the number of the client's examples, n_c that of class c, and K the
  number of classes that the client has. Weights are those of scikit-learn's
  `compute_class_weight`. Sources: Szegedy et al. 2016 (smoothing); Menon et
  al., "Long-tail learning via logit adjustment", ICLR 2021, equation 10.

  Args:
    logits: float[batch, num_classes].
    labels: int[batch], in `[0, num_classes)`.
    context: The context of a `ClientObjective`'s `loss_fn`.

  Returns:
    float scalar, nats per example, >= 0.
  """
  if _ADJUSTMENT in context:
    logits += context[_ADJUSTMENT]
  if _SMOOTHING not in context and _WEIGHTS not in context:
    return losses.cross_entropy(logits, labels)
  smoothing = context.get(_SMOOTHING, 0.0)
  num_classes = logits.shape[1]
  targets = (1.0 - smoothing) * tf.one_hot(labels, num_classes)
  terms = tf.nn.softmax_cross_entropy_with_logits(
    targets + smoothing / num_classes, logits
  )
  if _WEIGHTS in context:
    terms *= tf.gather(context[_WEIGHTS], labels)
  return tf.reduce_mean(terms)
