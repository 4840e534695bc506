"""Scales features to mean 0 and variance 1."""

from typing import Any

import tensorflow as tf

from tff_fedsa.models import functional

_EPSILON = 1e-5


@tf.keras.utils.register_keras_serializable(package='tff_fedsa')
class Standardization(tf.keras.layers.Layer):
  """Centers and scales each example's features `[batch, feature_dim]`.

  z <- (z - mean(z)) / sqrt(var(z) + 1e-5), over the features of an example:
  layer normalization without weights. All features have the norm
  sqrt(feature_dim), whatever the architecture.
  """

  def call(self, inputs: tf.Tensor) -> tf.Tensor:
    # Not LayerNormalization, whose fused kernel some runtimes can't share.
    centered = inputs - tf.reduce_mean(inputs, axis=-1, keepdims=True)
    variance = tf.reduce_mean(tf.square(centered), axis=-1, keepdims=True)
    return centered * tf.math.rsqrt(variance + _EPSILON)

  def compute_output_shape(self, input_shape: Any) -> Any:
    return input_shape


def standardize(
  keras_model: functional.KerasClientModel,
) -> functional.KerasClientModel:
  """Returns the model with standardized features, also for the head."""
  extractor = keras_model.feature_extractor
  return keras_model._replace(
    feature_extractor=tf.keras.Model(
      extractor.inputs, Standardization()(extractor.output), name=extractor.name
    )
  )
