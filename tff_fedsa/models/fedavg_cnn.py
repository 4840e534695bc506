"""FedAvgCNN, the small convolutional network of the FedAvg paper."""

from __future__ import annotations

from etils import epy

from tff_fedsa.models import architectures
from tff_fedsa.runs import errors

with epy.lazy_imports():
  import tensorflow as tf

  from tff_fedsa.models import assembly
  from tff_fedsa.models import functional
  from tff_fedsa.models import initializers


@architectures.register_architecture('fedavg_cnn')
def fedavg_cnn(
  input_shape: tuple[int, int, int], num_classes: int, feature_dim: int
) -> functional.KerasClientModel:
  """Conv 5x5x32, pool, conv 5x5x64, pool, dense 512, each with ReLU.

  Source: `FedAvgCNN` in `flcore/trainmodel/models.py`, lokinko/FedSA@75bf106.
  """
  if min(input_shape[:2]) < 16:
    raise errors.UserError(
      'The architecture fedavg_cnn needs images of at least 16x16, found '
      f'{input_shape}. Resize in the input spec (--image_size=32).'
    )
  images = tf.keras.Input(input_shape)
  hidden = images
  for filters in (32, 64):
    hidden = initializers.conv(hidden, filters, 5, activation='relu')
    hidden = tf.keras.layers.MaxPool2D()(hidden)
  hidden = tf.keras.layers.Flatten()(hidden)
  hidden = initializers.dense(hidden, 512, activation='relu')
  return assembly.client_model(images, hidden, num_classes, feature_dim)
