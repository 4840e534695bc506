"""Small architectures for series of sensors, of any length and channels."""

from __future__ import annotations

from etils import epy

from tff_fedsa.models import architectures

with epy.lazy_imports():
  import tensorflow as tf

  from tff_fedsa.models import assembly
  from tff_fedsa.models import functional
  from tff_fedsa.models import initializers


@architectures.register_architecture('sensor_cnn')
def sensor_cnn(
  input_shape: tuple[int, ...], num_classes: int, feature_dim: int
) -> functional.KerasClientModel:
  """Convolutions of 5 steps, 32 and 64 channels, each pooled; their mean."""
  series = _series(input_shape)
  hidden = series
  for filters in (32, 64):
    hidden = initializers.conv1d(hidden, filters, 5, activation='relu')
    hidden = tf.keras.layers.MaxPool1D(padding='same')(hidden)
  hidden = tf.keras.layers.GlobalAveragePooling1D()(hidden)
  return assembly.dense_client_model(series, hidden, num_classes, feature_dim)


@architectures.register_architecture('sensor_fcn')
def sensor_fcn(
  input_shape: tuple[int, ...], num_classes: int, feature_dim: int
) -> functional.KerasClientModel:
  """Convolutions of 8, 5 and 3 steps with BatchNorm and ReLU; their mean.

  Source: the FCN of "Time series classification from scratch with deep neural
  networks" (Wang et al., IJCNN 2017), a quarter as wide.
  """
  series = _series(input_shape)
  hidden = series
  for filters, kernel_size in ((32, 8), (64, 5), (32, 3)):
    hidden = initializers.conv1d(hidden, filters, kernel_size)
    hidden = tf.keras.layers.BatchNormalization(momentum=0.9)(hidden)
    hidden = tf.keras.layers.ReLU()(hidden)
  hidden = tf.keras.layers.GlobalAveragePooling1D()(hidden)
  return assembly.dense_client_model(series, hidden, num_classes, feature_dim)


@architectures.register_architecture('sensor_gru')
def sensor_gru(
  input_shape: tuple[int, ...], num_classes: int, feature_dim: int
) -> functional.KerasClientModel:
  """A convolution of 5 steps and 32 channels, pooled by 4; a GRU of 48 units.

  Source: as DeepConvLSTM (Ordonez and Roggen, Sensors 2016) joins both, but
  small.
  """
  series = _series(input_shape)
  hidden = initializers.conv1d(series, 32, 5, activation='relu')
  hidden = tf.keras.layers.MaxPool1D(4, padding='same')(hidden)
  hidden = tf.keras.layers.GRU(48)(hidden)
  return assembly.dense_client_model(series, hidden, num_classes, feature_dim)


def _series(input_shape):
  architectures.check_rank(input_shape, 2, 'series (steps, channels)')
  return tf.keras.Input(input_shape)
