"""Feature extractors of keras.applications, with ImageNet weights.

They differ from torchvision's models of the same name. ResNets have biases and
stride on the first convolution of a bottleneck. MobileNetV2 pads one side.
BatchNorm moves its statistics by 0.01. So weights of one do not fit the other.
"""

from __future__ import annotations

from collections.abc import Callable

from etils import epy

from tff_fedsa.models import architectures
from tff_fedsa.runs import errors

with epy.lazy_imports():
  import tensorflow as tf

  from tff_fedsa.models import assembly

# The nested model is the application.
NAME = 'application'

_MIN_SIZE = 32
# Means of ImageNet's channels, blue first, from the training of the ResNets.
_BGR_MEANS = (103.939, 116.779, 123.68)


def _to_caffe(images: tf.Tensor) -> tf.Tensor:
  """Turns images in [-1, 1] into the ResNets' input: BGR, centered."""
  return tf.keras.layers.Rescaling(
    127.5, [127.5 - mean for mean in _BGR_MEANS]
  )(images[..., ::-1])


def _as_they_are(images: tf.Tensor) -> tf.Tensor:
  return images


def _register(
  name: str,
  application: str,
  preprocess_fn: Callable[[tf.Tensor], tf.Tensor] = _to_caffe,
) -> None:
  @architectures.register_architecture(name)
  def build_fn(input_shape, num_classes, feature_dim):
    if min(input_shape[:2]) < _MIN_SIZE or input_shape[2] != 3:
      raise errors.UserError(
        f'The architecture {name} needs images of at least {_MIN_SIZE}x'
        f'{_MIN_SIZE} and 3 channels, found {input_shape}. Resize in the input '
        'spec (--image_size=32).'
      )
    images = tf.keras.Input(input_shape)
    backbone = getattr(tf.keras.applications, application)(
      include_top=False, weights=None, input_shape=input_shape, pooling='avg'
    )
    # An application has the name of its function.
    backbone._name = NAME  # pylint: disable=protected-access
    hidden = backbone(preprocess_fn(images))
    return assembly.client_model(images, hidden, num_classes, feature_dim)


_register('keras_mobilenet_v2', 'MobileNetV2', _as_they_are)
_register('keras_resnet50', 'ResNet50')
_register('keras_resnet101', 'ResNet101')
_register('keras_resnet152', 'ResNet152')
