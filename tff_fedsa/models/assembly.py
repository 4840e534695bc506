"""The last steps of every architecture: pooling to feature_dim, and a head."""

from typing import Optional

import tensorflow as tf

from tff_fedsa.models import functional
from tff_fedsa.models import initializers
from tff_fedsa.models import pooling


def client_model(
  images: tf.Tensor,
  hidden: tf.Tensor,
  num_classes: int,
  feature_dim: int,
  *,
  head: Optional[tf.keras.Model] = None,
) -> functional.KerasClientModel:
  """Returns the model with adaptively pooled `hidden` as features.

  Args:
    images: The Keras input.
    hidden: Output of the last layer.
    num_classes: C.
    feature_dim: D.
    head: Maps features to logits. Default: one dense layer.
  """
  features = pooling.adaptive_average_pooling(hidden, feature_dim)
  return functional.KerasClientModel(
    feature_extractor=tf.keras.Model(images, features, name='extractor'),
    head=head or initializers.linear_head(feature_dim, num_classes),
  )


def dense_client_model(
  inputs: tf.Tensor, hidden: tf.Tensor, num_classes: int, feature_dim: int
) -> functional.KerasClientModel:
  """Returns the model whose features are a dense layer on `hidden`.

  Args:
    inputs: The Keras input.
    hidden: Output of the last layer, float32[batch, width].
    num_classes: C.
    feature_dim: D.
  """
  features = initializers.dense(hidden, feature_dim)
  return functional.KerasClientModel(
    feature_extractor=tf.keras.Model(inputs, features, name='extractor'),
    head=initializers.linear_head(feature_dim, num_classes),
  )
