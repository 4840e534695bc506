"""GoogLeNet as torchvision defines it, without auxiliary heads.

It has some peculiarities. The 5x5 branch is 3x3. Pooling rounds sizes up.
BatchNorm's epsilon is 0.001. Dropout 0.2 is in front of the head. Kernels are
drawn from N(0, 0.01). (Torchvision truncates at +-2, which is 200 standard
deviations.)

Source: `torchvision/models/googlenet.py`, pytorch/vision.
"""

from __future__ import annotations

from etils import epy

from tff_fedsa.models import architectures
from tff_fedsa.runs import errors

with epy.lazy_imports():
  import tensorflow as tf

  from tff_fedsa.models import assembly
  from tff_fedsa.models import functional
  from tff_fedsa.models import initializers
  from tff_fedsa.models import torch_layers

_STDDEV = 0.01
_MIN_SIZE = 15

# Filters of each branch: 1x1; reduction and 3x3; reduction and "5x5"; pool.
_INCEPTIONS = {
  '3a': (64, 96, 128, 16, 32, 32),
  '3b': (128, 128, 192, 32, 96, 64),
  '4a': (192, 96, 208, 16, 48, 64),
  '4b': (160, 112, 224, 24, 64, 64),
  '4c': (128, 128, 256, 24, 64, 64),
  '4d': (112, 144, 288, 32, 64, 64),
  '4e': (256, 160, 320, 32, 128, 128),
  '5a': (256, 160, 320, 32, 128, 128),
  '5b': (384, 192, 384, 48, 128, 128),
}


def _conv(inputs, filters, kernel_size, stride=1, *, name):
  hidden = torch_layers.conv(
    inputs,
    filters,
    kernel_size,
    stride,
    name=f'{name}.conv',
    kernel_initializer=tf.keras.initializers.RandomNormal(stddev=_STDDEV),
  )
  hidden = torch_layers.batch_norm(hidden, name=f'{name}.bn', epsilon=1e-3)
  return tf.keras.layers.ReLU()(hidden)


def _inception(inputs, filters, name):
  one, reduce3, three, reduce5, five, pool = filters
  branch1 = _conv(inputs, one, 1, name=f'{name}.branch1')
  branch2 = _conv(inputs, reduce3, 1, name=f'{name}.branch2.0')
  branch2 = _conv(branch2, three, 3, name=f'{name}.branch2.1')
  branch3 = _conv(inputs, reduce5, 1, name=f'{name}.branch3.0')
  branch3 = _conv(branch3, five, 3, name=f'{name}.branch3.1')
  branch4 = tf.keras.layers.MaxPool2D(3, 1, padding='same')(inputs)
  branch4 = _conv(branch4, pool, 1, name=f'{name}.branch4.1')
  return tf.keras.layers.Concatenate()([branch1, branch2, branch3, branch4])


def _halve(inputs, size):
  return torch_layers.relu_max_pool(inputs, size, 2, ceil_mode=True)


@architectures.register_architecture('googlenet')
def googlenet(
  input_shape: tuple[int, int, int], num_classes: int, feature_dim: int
) -> functional.KerasClientModel:
  """Stem, nine inception blocks, mean over the image, dropout."""
  if min(input_shape[:2]) < _MIN_SIZE:
    raise errors.UserError(
      f'The architecture googlenet needs images of at least {_MIN_SIZE}x'
      f'{_MIN_SIZE}, found {input_shape}. Resize in the input spec '
      '(--image_size=32).'
    )
  images = tf.keras.Input(input_shape)
  hidden = _halve(_conv(images, 64, 7, 2, name='conv1'), 3)
  hidden = _conv(hidden, 64, 1, name='conv2')
  hidden = _halve(_conv(hidden, 192, 3, name='conv3'), 3)
  for block, filters in _INCEPTIONS.items():
    hidden = _inception(hidden, filters, f'inception{block}')
    if block == '3b':
      hidden = _halve(hidden, 3)
    elif block == '4e':
      hidden = _halve(hidden, 2)
  hidden = tf.keras.layers.GlobalAveragePooling2D()(hidden)
  hidden = torch_layers.dropout(hidden)
  head = torch_layers.linear_head(
    feature_dim,
    num_classes,
    kernel_stddev=_STDDEV,
    bias_initializer=initializers.bias_initializer(feature_dim),
  )
  return assembly.client_model(
    images, hidden, num_classes, feature_dim, head=head
  )
