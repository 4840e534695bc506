"""The HARCNNs of HtFE-sen: convolutions over the steps of sensors.

Each has one to three blocks (convolution without padding, ReLU, pooling of 2).
HtFLlib's clients keep these blocks only: their dense layers are `fc`, which
average pooling to feature_dim replaces. They see padding and the mask of
masked series as they see other steps and channels: where a step lies decides
which feature it is part of. The family `sensor` does not.

Source: `HARCNN`, `HARCNN1` and `HARCNN3` in `flcore/trainmodel/models.py`,
TsingZ0/HtFLlib.
"""

from __future__ import annotations

from etils import epy

from tff_fedsa.models import architectures
from tff_fedsa.runs import errors

with epy.lazy_imports():
  import tensorflow as tf

  from tff_fedsa.models import assembly
  from tff_fedsa.models import initializers

# Blocks -> steps of a kernel.
_KERNEL_SIZES = {1: 9, 2: 9, 3: 5}
_FILTERS = (32, 64, 128)


def _num_steps(steps: int, num_blocks: int, stride: int) -> int:
  """Returns the steps that are left after all blocks; < 1 if too few."""
  for _ in range(num_blocks):
    steps = (steps - _KERNEL_SIZES[num_blocks]) // stride + 1
    steps //= 2
  return steps


def _register(num_blocks: int, stride: int) -> None:
  name = f'harcnn{num_blocks}' + (f'_stride{stride}' if stride > 1 else '')

  @architectures.register_architecture(name)
  def harcnn(input_shape, num_classes, feature_dim):
    architectures.check_rank(input_shape, 2, 'series (steps, channels)')
    steps = input_shape[0]
    if _num_steps(steps, num_blocks, stride) < 1:
      least = next(
        n for n in range(steps, 1000) if _num_steps(n, num_blocks, stride) > 0
      )
      raise errors.UserError(
        f'The architecture {name} needs series of at least {least} steps, '
        f'found {steps}. --family=sensor takes any.'
      )
    series = tf.keras.Input(input_shape)
    hidden = series
    for filters in _FILTERS[:num_blocks]:
      hidden = initializers.conv1d(
        hidden,
        filters,
        _KERNEL_SIZES[num_blocks],
        activation='relu',
        strides=stride,
        padding='valid',
      )
      hidden = tf.keras.layers.MaxPool1D()(hidden)
    # PyTorch's order: the steps of a channel are neighbours.
    hidden = tf.keras.layers.Permute((2, 1))(hidden)
    return assembly.client_model(series, hidden, num_classes, feature_dim)


for _num_blocks, _strides in ((1, (1, 2, 3)), (2, (1, 2, 3)), (3, (1, 2))):
  for _stride in _strides:
    _register(_num_blocks, _stride)
