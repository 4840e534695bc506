"""The eight CNNs of HCNNs8, for small images of one channel.

Each has one or two blocks (5x5 convolution with 32, then 64 filters - ReLU -
pooling), dense layers with ReLU, and a last dense layer of 512 with ReLU.

Source: `CNN` in `flcore/trainmodel/models.py`, TsingZ0/HtFLlib.
"""

from __future__ import annotations

from etils import epy

from tff_fedsa.models import architectures
from tff_fedsa.runs import errors

with epy.lazy_imports():
  import tensorflow as tf

  from tff_fedsa.models import assembly
  from tff_fedsa.models import initializers

_MIN_SIZE = 16


def _register_hcnn(num_blocks: int, widths: tuple[int, ...]) -> None:
  name = '_'.join([f'hcnn{num_blocks}', *map(str, widths)])

  @architectures.register_architecture(name)
  def hcnn(input_shape, num_classes, feature_dim):
    if min(input_shape[:2]) < _MIN_SIZE:
      raise errors.UserError(
        f'The architecture {name} needs images of at least {_MIN_SIZE}x'
        f'{_MIN_SIZE}, found {input_shape}. Resize in the input spec '
        '(--image_size=28).'
      )
    images = tf.keras.Input(input_shape)
    hidden = images
    for filters in (32, 64)[:num_blocks]:
      hidden = initializers.conv(hidden, filters, 5, activation='relu')
      hidden = tf.keras.layers.MaxPool2D()(hidden)
    hidden = tf.keras.layers.Flatten()(hidden)
    for width in (*widths, 512):
      hidden = initializers.dense(hidden, width, activation='relu')
    return assembly.client_model(images, hidden, num_classes, feature_dim)


for _widths in ((), (512,), (1024,), (1024, 512)):
  for _num_blocks in (1, 2):
    _register_hcnn(_num_blocks, _widths)
