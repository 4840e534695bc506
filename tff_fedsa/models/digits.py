"""Small architectures for 8x8 digits, and the reference run's two MLPs."""

from __future__ import annotations

from etils import epy

from tff_fedsa.models import architectures

with epy.lazy_imports():
  import tensorflow as tf

  from tff_fedsa.models import functional
  from tff_fedsa.models import initializers
  from tff_fedsa.models import pooling


def _client_model(images, features, num_classes):
  return functional.KerasClientModel(
    feature_extractor=tf.keras.Model(images, features, name='extractor'),
    head=initializers.linear_head(features.shape[-1], num_classes),
  )


@architectures.register_architecture('digits_mlp')
def digits_mlp(
  input_shape: tuple[int, int, int], num_classes: int, feature_dim: int
) -> functional.KerasClientModel:
  """Dense 64 - ReLU - dense feature_dim."""
  images = tf.keras.Input(input_shape)
  hidden = tf.keras.layers.Flatten()(images)
  hidden = initializers.dense(hidden, 64, activation='relu')
  features = initializers.dense(hidden, feature_dim)
  return _client_model(images, features, num_classes)


@architectures.register_architecture('digits_cnn')
def digits_cnn(
  input_shape: tuple[int, int, int], num_classes: int, feature_dim: int
) -> functional.KerasClientModel:
  """Two 3x3 convolutions of 8 and 16 channels, each pooled; dense."""
  images = tf.keras.Input(input_shape)
  hidden = images
  for filters in (8, 16):
    hidden = initializers.conv(
      hidden, filters, 3, padding='same', activation='relu'
    )
    hidden = tf.keras.layers.MaxPool2D()(hidden)
  hidden = tf.keras.layers.Flatten()(hidden)
  features = initializers.dense(hidden, feature_dim)
  return _client_model(images, features, num_classes)


@architectures.register_architecture('digits_cnn_bn')
def digits_cnn_bn(
  input_shape: tuple[int, int, int], num_classes: int, feature_dim: int
) -> functional.KerasClientModel:
  """As `digits_cnn`, twice as wide, with BatchNorm before each ReLU."""
  images = tf.keras.Input(input_shape)
  hidden = images
  for filters in (16, 32):
    hidden = initializers.conv(hidden, filters, 3, padding='same')
    hidden = tf.keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(
      hidden
    )
    hidden = tf.keras.layers.ReLU()(hidden)
    hidden = tf.keras.layers.MaxPool2D()(hidden)
  hidden = tf.keras.layers.Flatten()(hidden)
  features = initializers.dense(hidden, feature_dim)
  return _client_model(images, features, num_classes)


def _register_mlp(*widths: int) -> None:
  """Registers an MLP; the first width is that of its input, 8x8 pixels."""

  @architectures.register_architecture('mlp_' + '_'.join(map(str, widths)))
  def mlp(input_shape, num_classes, feature_dim):
    images = tf.keras.Input(input_shape)
    hidden = tf.keras.layers.Flatten()(images)
    for width in widths[1:]:
      hidden = initializers.dense(hidden, width, activation='relu')
    features = pooling.adaptive_average_pooling(hidden, feature_dim)
    return _client_model(images, features, num_classes)


# The reference's runs on raw digits (D8): ReLU after both layers, the last one
# adaptively pooled to feature_dim.
_register_mlp(64, 64, 128)
_register_mlp(64, 128, 64)
