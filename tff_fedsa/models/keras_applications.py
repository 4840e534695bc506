"""Feature extractors of keras.applications, for their ImageNet weights.

They are not torchvision's models of the same name: ResNets stride on the first
convolution of a bottleneck and have biases, MobileNetV2 pads one side, and
statistics of BatchNorm move by 0.01. Weights of one do not fit the other.
"""

from __future__ import annotations

from collections.abc import Callable

from etils import epy

from tff_fedsa.models import architectures
from tff_fedsa.runs import errors

with epy.lazy_imports():
  import tensorflow as tf

  from tff_fedsa.models import assembly

# The nested model, which is the application.
NAME = 'application'

_MIN_SIZE = 32
# Means of ImageNet's channels, blue first, as the ResNets were trained with.
_BGR_MEANS = (103.939, 116.779, 123.68)


def _to_caffe(images: tf.Tensor) -> tf.Tensor:
  """Images in [-1, 1] as the ResNets take them: BGR, centered, not scaled."""
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
    # Applications have names of their own, that of the function.
    backbone._name = NAME  # pylint: disable=protected-access
    hidden = backbone(preprocess_fn(images))
    return assembly.client_model(images, hidden, num_classes, feature_dim)


_register('keras_mobilenet_v2', 'MobileNetV2', _as_they_are)
_register('keras_resnet50', 'ResNet50')
_register('keras_resnet101', 'ResNet101')
_register('keras_resnet152', 'ResNet152')
