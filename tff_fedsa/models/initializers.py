"""PyTorch's default initialization, for parity with the reference.

`torch.nn.Linear` and `torch.nn.Conv2d` draw kernels and biases from
U(-1/sqrt(fan_in), 1/sqrt(fan_in)).
"""

import math

import tensorflow as tf


def kernel_initializer() -> tf.keras.initializers.Initializer:
  """Returns U(-1/sqrt(fan_in), 1/sqrt(fan_in)) for kernels."""
  # VarianceScaling's uniform limit is sqrt(3 * scale / fan_in).
  return tf.keras.initializers.VarianceScaling(
    scale=1.0 / 3.0, mode='fan_in', distribution='uniform'
  )


def bias_initializer(fan_in: int) -> tf.keras.initializers.Initializer:
  """Returns U(-1/sqrt(fan_in), 1/sqrt(fan_in)) for biases.

  Args:
    fan_in: Inputs of one output unit: features, or kernel height x width x
      input channels.
  """
  limit = 1.0 / math.sqrt(fan_in)
  return tf.keras.initializers.RandomUniform(-limit, limit)


def dense(
  inputs: tf.Tensor, units: int, activation: str | None = None
) -> tf.Tensor:
  """Applies a dense layer with PyTorch's default initialization."""
  return tf.keras.layers.Dense(
    units,
    activation=activation,
    kernel_initializer=kernel_initializer(),
    bias_initializer=bias_initializer(inputs.shape[-1]),
  )(inputs)


def conv(
  inputs: tf.Tensor,
  filters: int,
  kernel_size: int,
  *,
  padding: str = 'valid',
  activation: str | None = None,
) -> tf.Tensor:
  """Applies a convolution with PyTorch's default initialization."""
  return tf.keras.layers.Conv2D(
    filters,
    kernel_size,
    padding=padding,
    activation=activation,
    kernel_initializer=kernel_initializer(),
    bias_initializer=bias_initializer(kernel_size**2 * inputs.shape[-1]),
  )(inputs)


def conv1d(
  inputs: tf.Tensor,
  filters: int,
  kernel_size: int,
  activation: str | None = None,
  *,
  strides: int = 1,
  padding: str = 'same',
) -> tf.Tensor:
  """Applies a convolution over steps with PyTorch's default initialization.

  Args:
    inputs: float32[batch, steps, channels].
    filters: Channels of the result.
    kernel_size: Steps of the kernel.
    activation: Name of an activation of Keras.
    strides: Steps from one kernel to the next.
    padding: `same` keeps the number of steps, `valid` pads nothing.
  """
  return tf.keras.layers.Conv1D(
    filters,
    kernel_size,
    strides=strides,
    padding=padding,
    activation=activation,
    kernel_initializer=kernel_initializer(),
    bias_initializer=bias_initializer(kernel_size * inputs.shape[-1]),
  )(inputs)


def linear_head(feature_dim: int, num_classes: int) -> tf.keras.Model:
  """Returns the classifier head of all families: one dense layer."""
  features = tf.keras.Input([feature_dim])
  return tf.keras.Model(features, dense(features, num_classes), name='head')
