"""ResNets as torchvision defines them, and smaller ResNets.

7x7/2 stem and 3x3/2 max pooling at any image size, BatchNorm momentum 0.9
(Keras's convention; torch calls it 0.1) and epsilon 1e-5, the stride of a
bottleneck on its 3x3 convolution, He normal kernels by fan out, no biases.
Outputs and running statistics equal torchvision's.

Names that end in `_gn` have GroupNorm instead of BatchNorm. `resnet10_3x3` is
for the `global` protocol. It has a 3x3 stem without pooling and half the width.

Source: `torchvision/models/resnet.py`, pytorch/vision; ResNet-4, 6, 8 and 10:
`resnet4`, ... of `flcore/trainmodel/resnet.py`, TsingZ0/HtFLlib.
"""

from __future__ import annotations

from collections.abc import Callable

from etils import epy

from tff_fedsa.models import architectures

with epy.lazy_imports():
  import tensorflow as tf

  from tff_fedsa.models import assembly
  from tff_fedsa.models import torch_layers

_WIDTHS = (64, 128, 256, 512)


def _relu(inputs):
  return tf.keras.layers.ReLU()(inputs)


def _basic_block(inputs, width, stride, norm, name):
  hidden = torch_layers.conv(inputs, width, 3, stride, name=f'{name}.conv1')
  hidden = _relu(norm(hidden, name=f'{name}.bn1'))
  hidden = torch_layers.conv(hidden, width, 3, name=f'{name}.conv2')
  hidden = norm(hidden, name=f'{name}.bn2')
  return _add_shortcut(inputs, hidden, stride, norm, name)


def _bottleneck(inputs, width, stride, norm, name):
  hidden = torch_layers.conv(inputs, width, 1, name=f'{name}.conv1')
  hidden = _relu(norm(hidden, name=f'{name}.bn1'))
  hidden = torch_layers.conv(hidden, width, 3, stride, name=f'{name}.conv2')
  hidden = _relu(norm(hidden, name=f'{name}.bn2'))
  hidden = torch_layers.conv(hidden, 4 * width, 1, name=f'{name}.conv3')
  hidden = norm(hidden, name=f'{name}.bn3')
  return _add_shortcut(inputs, hidden, stride, norm, name)


def _add_shortcut(inputs, hidden, stride, norm, name):
  shortcut = inputs
  if stride != 1 or inputs.shape[-1] != hidden.shape[-1]:
    shortcut = torch_layers.conv(
      inputs, hidden.shape[-1], 1, stride, name=f'{name}.downsample.0'
    )
    shortcut = norm(shortcut, name=f'{name}.downsample.1')
  return _relu(tf.keras.layers.Add()([hidden, shortcut]))


def _stem(images, norm):
  hidden = torch_layers.conv(images, _WIDTHS[0], 7, 2, name='conv1')
  hidden = _relu(norm(hidden, name='bn1'))
  return torch_layers.relu_max_pool(hidden, 3, 2, padding=1)


def _small_stem(images, norm):
  hidden = torch_layers.conv(images, _WIDTHS[0] // 2, 3, name='conv1')
  return _relu(norm(hidden, name='bn1'))


def _register_resnet(
  name: str,
  counts: tuple[int, ...],
  block: Callable[..., tf.Tensor] = _basic_block,
  *,
  stem: Callable[..., tf.Tensor] = _stem,
  widths: tuple[int, ...] = _WIDTHS,
) -> None:
  """Registers a ResNet and its twin with GroupNorm.

  Args:
    name: Name of the variant with BatchNorm.
    counts: Blocks of each stage.
    block: Returns a block.
    stem: Returns the layers in front of the blocks.
    widths: Widths of the blocks of each stage.
  """

  def register(name, norm_name):
    @architectures.register_architecture(name)
    def resnet(input_shape, num_classes, feature_dim):
      norm = getattr(torch_layers, norm_name)
      images = tf.keras.Input(input_shape)
      hidden = stem(images, norm)
      for stage, (count, width) in enumerate(zip(counts, widths)):
        for index in range(count):
          stride = 2 if stage > 0 and index == 0 else 1
          block_name = f'layer{stage + 1}.{index}'
          hidden = block(hidden, width, stride, norm, block_name)
      hidden = tf.keras.layers.GlobalAveragePooling2D()(hidden)
      return assembly.client_model(images, hidden, num_classes, feature_dim)

  register(name, 'batch_norm')
  register(f'{name}_gn', 'group_norm')


_register_resnet('resnet4', (1,))
_register_resnet('resnet6', (1, 1))
_register_resnet('resnet8', (1, 1, 1))
_register_resnet('resnet10', (1, 1, 1, 1))
_register_resnet('resnet18', (2, 2, 2, 2))
_register_resnet('resnet34', (3, 4, 6, 3))
_register_resnet('resnet50', (3, 4, 6, 3), _bottleneck)
_register_resnet('resnet101', (3, 4, 23, 3), _bottleneck)
_register_resnet('resnet152', (3, 8, 36, 3), _bottleneck)
_register_resnet(
  'resnet10_3x3', (1, 1, 1, 1), stem=_small_stem, widths=(32, 64, 128, 256)
)
