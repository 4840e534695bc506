"""ResNets of basic blocks, as torchvision defines them.

7x7/2 stem and 3x3/2 max pooling at any image size, BatchNorm momentum 0.9
(Keras's convention; torch calls it 0.1) and epsilon 1e-5, He normal kernels by
fan out, no biases. Outputs and running statistics equal torchvision's: for
images Keras's BatchNorm is the fused kind, which moves the running variance by
the unbiased variance of a batch, as torch does. (For inputs that are not
images, Keras takes the biased one.)

Source: `torchvision/models/resnet.py`, pytorch/vision.
"""

import tensorflow as tf

from tff_fedsa.models import architectures
from tff_fedsa.models import functional
from tff_fedsa.models import initializers
from tff_fedsa.models import pooling


def _conv(inputs, filters, kernel_size, stride=1):
  """Convolution with torch's symmetric zero padding ('same' pads unevenly)."""
  if kernel_size > 1:
    inputs = tf.keras.layers.ZeroPadding2D(kernel_size // 2)(inputs)
  return tf.keras.layers.Conv2D(
    filters,
    kernel_size,
    strides=stride,
    use_bias=False,
    kernel_initializer=tf.keras.initializers.VarianceScaling(
      2.0, 'fan_out', 'untruncated_normal'
    ),
  )(inputs)


def _batch_norm(inputs):
  return tf.keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(inputs)


def _basic_block(inputs, filters, stride):
  hidden = _conv(inputs, filters, 3, stride)
  hidden = tf.keras.layers.ReLU()(_batch_norm(hidden))
  hidden = _batch_norm(_conv(hidden, filters, 3))
  shortcut = inputs
  if stride != 1 or inputs.shape[-1] != filters:
    shortcut = _batch_norm(_conv(inputs, filters, 1, stride))
  return tf.keras.layers.ReLU()(tf.keras.layers.Add()([hidden, shortcut]))


def _register_resnet(name: str, blocks: tuple[int, ...]) -> None:
  @architectures.register_architecture(name)
  def resnet(input_shape, num_classes, feature_dim):
    images = tf.keras.Input(input_shape)
    hidden = _conv(images, 64, 7, 2)
    hidden = tf.keras.layers.ReLU()(_batch_norm(hidden))
    # Zeros do not disturb the maximum: the values are past a ReLU.
    hidden = tf.keras.layers.ZeroPadding2D(1)(hidden)
    hidden = tf.keras.layers.MaxPool2D(3, 2)(hidden)
    for stage, num_blocks in enumerate(blocks):
      for block in range(num_blocks):
        stride = 2 if stage > 0 and block == 0 else 1
        hidden = _basic_block(hidden, 64 * 2**stage, stride)
    hidden = tf.keras.layers.GlobalAveragePooling2D()(hidden)
    features = pooling.adaptive_average_pooling(hidden, feature_dim)
    return functional.KerasClientModel(
      feature_extractor=tf.keras.Model(images, features, name='extractor'),
      head=initializers.linear_head(feature_dim, num_classes),
    )


_register_resnet('resnet8', (1, 1, 1))
_register_resnet('resnet10', (1, 1, 1, 1))
