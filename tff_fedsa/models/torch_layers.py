"""Layers that pad, normalize and count like PyTorch's.

Each layer takes its name in torchvision, so `torch_weights` finds it in a
`state_dict`.
"""

import math
from typing import Optional

import tensorflow as tf

_GROUPS = 2


def conv(
  inputs: tf.Tensor,
  filters: int,
  kernel_size: int,
  stride: int = 1,
  *,
  name: str,
  kernel_initializer: Optional[tf.keras.initializers.Initializer] = None,
) -> tf.Tensor:
  """Applies a convolution without bias, padded by kernel_size // 2.

  Args:
    inputs: float32[batch, height, width, channels].
    filters: Output channels.
    kernel_size: Height and width of the kernel.
    stride: Stride in both directions.
    name: Name of the layer.
    kernel_initializer: By default N(0, sqrt(2 / fan_out)), He normal.
  """
  inputs, padding = _padded(inputs, kernel_size, stride)
  return tf.keras.layers.Conv2D(
    filters,
    kernel_size,
    strides=stride,
    padding=padding,
    use_bias=False,
    kernel_initializer=kernel_initializer
    or tf.keras.initializers.VarianceScaling(
      2.0, 'fan_out', 'untruncated_normal'
    ),
    name=name,
  )(inputs)


def depthwise_conv(
  inputs: tf.Tensor, kernel_size: int, stride: int = 1, *, name: str
) -> tf.Tensor:
  """Applies a filter to each channel, He normal by torch's fan out.

  Torch's fan out counts the filters of all channels, Keras's those of one
  channel. Torch's number equals Keras's fan in.
  """
  inputs, padding = _padded(inputs, kernel_size, stride)
  return tf.keras.layers.DepthwiseConv2D(
    kernel_size,
    strides=stride,
    padding=padding,
    use_bias=False,
    depthwise_initializer=tf.keras.initializers.VarianceScaling(
      2.0, 'fan_in', 'untruncated_normal'
    ),
    name=name,
  )(inputs)


def _padded(
  inputs: tf.Tensor, kernel_size: int, stride: int
) -> tuple[tf.Tensor, str]:
  """Pads evenly: with a stride, 'same' may pad one side only."""
  if stride == 1:
    return inputs, 'same'
  if kernel_size > 1:
    inputs = tf.keras.layers.ZeroPadding2D(kernel_size // 2)(inputs)
  return inputs, 'valid'


def batch_norm(
  inputs: tf.Tensor, *, name: str, epsilon: float = 1e-5
) -> tf.Tensor:
  """Applies BatchNorm with momentum 0.9, which torch calls 0.1.

  For images, Keras uses the fused BatchNorm. It moves the running variance by
  the unbiased variance of a batch, as torch does. (For other inputs, Keras uses
  the biased variance.)
  """
  return tf.keras.layers.BatchNormalization(
    momentum=0.9, epsilon=epsilon, name=name
  )(inputs)


def group_norm(inputs: tf.Tensor, *, name: str) -> tf.Tensor:
  """Applies GroupNorm of two groups, which keeps no statistics.

  Two is the number of Hsieh et al., "The Non-IID Data Quagmire of Decentralized
  Machine Learning", ICML 2020, and of Reddi et al., "Adaptive Federated
  Optimization", ICLR 2021.
  """
  return tf.keras.layers.GroupNormalization(
    groups=_GROUPS, epsilon=1e-5, name=name
  )(inputs)


def relu_max_pool(
  inputs: tf.Tensor,
  size: int,
  stride: int,
  *,
  padding: int = 0,
  ceil_mode: bool = False,
) -> tf.Tensor:
  """Applies max pooling to values that are not negative.

  The inputs come from a ReLU. So padding with zeros does not change the
  maximum, like torch's padding with minus infinity.

  Args:
    inputs: float32[batch, height, width, channels], >= 0.
    size: Size of the window.
    stride: Stride of the window.
    padding: Padding on each side.
    ceil_mode: Whether the last window may exceed the input, as in torch.
  """
  pads = tuple(
    (padding, padding + _overhang(n + 2 * padding, size, stride, ceil_mode))
    for n in inputs.shape[1:3]
  )
  if pads != ((0, 0), (0, 0)):
    inputs = tf.keras.layers.ZeroPadding2D(pads)(inputs)
  return tf.keras.layers.MaxPool2D(size, stride)(inputs)


def _overhang(n: int, size: int, stride: int, ceil_mode: bool) -> int:
  """Returns by how much the last window exceeds the input."""
  if not ceil_mode:
    return 0
  last_start = math.ceil((n - size) / stride) * stride
  return max(last_start + size - n, 0)


def dropout(inputs: tf.Tensor, rate: float = 0.2) -> tf.Tensor:
  """Applies dropout."""
  return tf.keras.layers.Dropout(rate)(inputs)


def linear_head(
  feature_dim: int,
  num_classes: int,
  *,
  kernel_stddev: float,
  bias_initializer: Optional[tf.keras.initializers.Initializer] = None,
) -> tf.keras.Model:
  """Returns a head whose kernel is drawn from N(0, kernel_stddev).

  Args:
    feature_dim: D.
    num_classes: C.
    kernel_stddev: Standard deviation of the kernel's initial values.
    bias_initializer: By default zeros.
  """
  features = tf.keras.Input([feature_dim])
  logits = tf.keras.layers.Dense(
    num_classes,
    kernel_initializer=tf.keras.initializers.RandomNormal(stddev=kernel_stddev),
    bias_initializer=bias_initializer or 'zeros',
  )(features)
  return tf.keras.Model(features, logits, name='head')
