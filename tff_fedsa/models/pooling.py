"""Adaptive average pooling from any number of features to feature_dim."""

import math
from typing import Any

import numpy as np
import tensorflow as tf

from tff_fedsa.runs import errors


def _bin_weights(num_inputs: int, num_outputs: int) -> np.ndarray:
  """Returns float32[num_inputs, num_outputs]. A column averages one bin."""
  weights = np.zeros([num_inputs, num_outputs], np.float32)
  for index in range(num_outputs):
    start = index * num_inputs // num_outputs
    end = -(-(index + 1) * num_inputs // num_outputs)  # Rounded up.
    weights[start:end, index] = 1.0 / (end - start)
  return weights


@tf.keras.utils.register_keras_serializable(package='tff_fedsa')
class AdaptiveAveragePooling(tf.keras.layers.Layer):
  """Averages features `[batch, n]` over `feature_dim` bins.

  Bin `i` is `[floor(i * n / d), ceil((i + 1) * n / d))`, as in
  `torch.nn.AdaptiveAvgPool1d`: 2048 -> 512 are means of 4, 1280 -> 512 are
  overlapping windows, 64 -> 512 repeats each feature 8 times. No weights.
  """

  def __init__(self, feature_dim: int, **kwargs: Any):
    super().__init__(**kwargs)
    if feature_dim < 1:
      raise errors.UserError(f'Expected feature_dim >= 1, found {feature_dim}.')
    self.feature_dim = feature_dim

  def call(self, inputs: tf.Tensor) -> tf.Tensor:
    # The pattern of bins repeats gcd(n, d) times: for 1280 -> 512 a matrix of
    # 5 x 2, applied to 256 groups, instead of one of 1280 x 512.
    num_inputs = inputs.shape[-1]
    num_groups = math.gcd(num_inputs, self.feature_dim)
    weights = _bin_weights(
      num_inputs // num_groups, self.feature_dim // num_groups
    )
    groups = tf.reshape(inputs, [-1, weights.shape[0]])
    return tf.reshape(
      tf.matmul(groups, tf.constant(weights)), [-1, self.feature_dim]
    )

  def compute_output_shape(self, input_shape: Any) -> Any:
    return (*input_shape[:-1], self.feature_dim)

  def get_config(self) -> dict[str, Any]:
    return {**super().get_config(), 'feature_dim': self.feature_dim}


def adaptive_average_pooling(inputs: tf.Tensor, feature_dim: int) -> tf.Tensor:
  """Flattens `inputs` and pools them to `[batch, feature_dim]`.

  >>> inputs = tf.constant([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]])
  >>> adaptive_average_pooling(inputs, 3).numpy().tolist()
  [[1.5, 3.5, 5.5]]
  """
  flat = tf.keras.layers.Flatten()(inputs)
  if flat.shape[-1] == feature_dim:
    return flat
  return AdaptiveAveragePooling(feature_dim)(flat)
