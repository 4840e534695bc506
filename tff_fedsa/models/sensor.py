"""Small architectures for series of sensors, of any length and channels.

Of masked series (`InputSpec.masked`), they see the channels and not the mask,
and only steps of the series count: features do not depend on how many steps pad
an example. The weights are those of series without a mask.
"""

from __future__ import annotations

from typing import Optional

from etils import epy

from tff_fedsa.models import architectures

with epy.lazy_imports():
  import tensorflow as tf

  from tff_fedsa.models import assembly
  from tff_fedsa.models import functional
  from tff_fedsa.models import initializers


@architectures.register_architecture('sensor_cnn')
def sensor_cnn(
  input_shape: tuple[int, ...],
  num_classes: int,
  feature_dim: int,
  masked: bool = False,
) -> functional.KerasClientModel:
  """Convolutions of 5 steps, 32 and 64 channels, each pooled; their mean."""
  series, hidden, mask = _series(input_shape, masked)
  for filters in (32, 64):
    hidden = initializers.conv1d(hidden, filters, 5, activation='relu')
    hidden, mask = _pooled(hidden, mask, 2)
  hidden = _mean(hidden, mask)
  return assembly.dense_client_model(series, hidden, num_classes, feature_dim)


@architectures.register_architecture('sensor_fcn')
def sensor_fcn(
  input_shape: tuple[int, ...],
  num_classes: int,
  feature_dim: int,
  masked: bool = False,
) -> functional.KerasClientModel:
  """Convolutions of 8, 5 and 3 steps with BatchNorm and ReLU; their mean.

  Source: the FCN of "Time series classification from scratch with deep neural
  networks" (Wang et al., IJCNN 2017), a quarter as wide.
  """
  series, hidden, mask = _series(input_shape, masked)
  counted = {} if mask is None else {'mask': tf.squeeze(mask > 0.0, axis=-1)}
  for filters, kernel_size in ((32, 8), (64, 5), (32, 3)):
    hidden = initializers.conv1d(hidden, filters, kernel_size)
    normalization = tf.keras.layers.BatchNormalization(momentum=0.9)
    hidden = normalization(hidden, **counted)
    hidden = tf.keras.layers.ReLU()(hidden)
    if mask is not None:
      hidden = hidden * mask
  hidden = _mean(hidden, mask)
  return assembly.dense_client_model(series, hidden, num_classes, feature_dim)


@architectures.register_architecture('sensor_gru')
def sensor_gru(
  input_shape: tuple[int, ...],
  num_classes: int,
  feature_dim: int,
  masked: bool = False,
) -> functional.KerasClientModel:
  """A convolution of 5 steps and 32 channels, pooled by 4; a GRU of 48 units.

  Source: as DeepConvLSTM (Ordonez and Roggen, Sensors 2016) joins both, but
  small.
  """
  series, hidden, mask = _series(input_shape, masked)
  hidden = initializers.conv1d(hidden, 32, 5, activation='relu')
  hidden, mask = _pooled(hidden, mask, 4)
  hidden = tf.keras.layers.GRU(48, return_sequences=mask is not None)(hidden)
  if mask is not None:
    # The state after the last step of the series.
    steps_left = tf.cumsum(mask, axis=1, reverse=True)
    is_last = tf.cast(tf.equal(steps_left, 1.0), tf.float32)
    hidden = tf.reduce_sum(hidden * is_last, axis=1)
  return assembly.dense_client_model(series, hidden, num_classes, feature_dim)


def _series(
  input_shape: tuple[int, ...], masked: bool
) -> tuple[tf.Tensor, tf.Tensor, Optional[tf.Tensor]]:
  """Returns the Keras input, its channels, and float32[batch, steps, 1].

  The last one is the mask, None of series without one.
  """
  architectures.check_rank(input_shape, 2, 'series (steps, channels)')
  series = tf.keras.Input(input_shape)
  if not masked:
    return series, series, None
  # Keras saves no slices.
  values, mask = tf.split(series, [input_shape[1] - 1, 1], axis=-1)
  return series, values, mask


def _pooled(
  hidden: tf.Tensor, mask: Optional[tf.Tensor], size: int
) -> tuple[tf.Tensor, Optional[tf.Tensor]]:
  """Returns maxima of `size` steps after ReLU, and which of them are of steps.

  Without a mask, Keras pads both ends of a series. With one, windows begin at
  its first step whatever its length.
  """
  if mask is None:
    return tf.keras.layers.MaxPool1D(size, padding='same')(hidden), None
  found = []
  for steps in (hidden * mask, mask):
    steps = tf.keras.layers.ZeroPadding1D((0, -steps.shape[1] % size))(steps)
    found.append(tf.keras.layers.MaxPool1D(size)(steps))
  return found[0], found[1]


def _mean(hidden: tf.Tensor, mask: Optional[tf.Tensor]) -> tf.Tensor:
  """Returns the mean over steps, float32[batch, channels]."""
  if mask is None:
    return tf.keras.layers.GlobalAveragePooling1D()(hidden)
  count = tf.maximum(tf.reduce_sum(mask, axis=1), 1.0)
  return tf.reduce_sum(hidden * mask, axis=1) / count
