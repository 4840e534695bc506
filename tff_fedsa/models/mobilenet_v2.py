"""MobileNetV2 as torchvision defines it.

The inverted residuals have ImageNet's widths at any image size. Kernels are He
normal by fan out (of all channels in depthwise convolutions). BatchNorm has
momentum 0.9 and epsilon 1e-5. Dropout 0.2 is in front of the head. The kernel
of the head is drawn from N(0, 0.01).

Source: `torchvision/models/mobilenetv2.py`, pytorch/vision.
"""

from __future__ import annotations

from etils import epy

from tff_fedsa.models import architectures

with epy.lazy_imports():
  import tensorflow as tf

  from tff_fedsa.models import assembly
  from tff_fedsa.models import functional
  from tff_fedsa.models import torch_layers

# Expansion, filters, blocks, stride of the first block.
_STAGES = (
  (1, 16, 1, 1),
  (6, 24, 2, 2),
  (6, 32, 3, 2),
  (6, 64, 4, 2),
  (6, 96, 3, 1),
  (6, 160, 3, 2),
  (6, 320, 1, 1),
)


def _norm_relu6(inputs, name):
  hidden = torch_layers.batch_norm(inputs, name=name)
  return tf.keras.layers.ReLU(6.0)(hidden)


def _conv_norm_relu6(inputs, filters, kernel_size, stride=1, *, name):
  hidden = torch_layers.conv(
    inputs, filters, kernel_size, stride, name=f'{name}.0'
  )
  return _norm_relu6(hidden, f'{name}.1')


def _inverted_residual(inputs, expansion, filters, stride, name):
  hidden, part = inputs, 0
  if expansion != 1:
    width = expansion * inputs.shape[-1]
    hidden = _conv_norm_relu6(hidden, width, 1, name=f'{name}.{part}')
    part += 1
  hidden = torch_layers.depthwise_conv(
    hidden, 3, stride, name=f'{name}.{part}.0'
  )
  hidden = _norm_relu6(hidden, f'{name}.{part}.1')
  hidden = torch_layers.conv(hidden, filters, 1, name=f'{name}.{part + 1}')
  hidden = torch_layers.batch_norm(hidden, name=f'{name}.{part + 2}')
  if stride == 1 and inputs.shape[-1] == filters:
    hidden = tf.keras.layers.Add()([inputs, hidden])
  return hidden


@architectures.register_architecture('mobilenet_v2')
def mobilenet_v2(
  input_shape: tuple[int, int, int], num_classes: int, feature_dim: int
) -> functional.KerasClientModel:
  """Stem, 17 inverted residuals, 1x1 to 1280, mean over the image, dropout."""
  images = tf.keras.Input(input_shape)
  hidden = _conv_norm_relu6(images, 32, 3, 2, name='features.0')
  position = 1
  for expansion, filters, count, first_stride in _STAGES:
    for index in range(count):
      hidden = _inverted_residual(
        hidden,
        expansion,
        filters,
        first_stride if index == 0 else 1,
        f'features.{position}.conv',
      )
      position += 1
  hidden = _conv_norm_relu6(hidden, 1280, 1, name=f'features.{position}')
  hidden = tf.keras.layers.GlobalAveragePooling2D()(hidden)
  hidden = torch_layers.dropout(hidden)
  head = torch_layers.linear_head(feature_dim, num_classes, kernel_stddev=0.01)
  return assembly.client_model(
    images, hidden, num_classes, feature_dim, head=head
  )
