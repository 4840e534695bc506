"""Numbers of parameters of our architectures and of torchvision's."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Optional

import numpy as np

from tff_fedsa.models import architectures
from tff_fedsa.models import families  # Registers the architectures.

del families

# Trainable parameters of torchvision 0.29.1 with a head for 10 classes, and
# the features in front of that head; GoogLeNet without auxiliary heads, ViTs
# for 32x32 images. ResNet-10 is its class `ResNet` with four basic blocks.
TORCHVISION = {
  'resnet10': (4_910_922, 512),
  'resnet18': (11_181_642, 512),
  'resnet34': (21_289_802, 512),
  'resnet50': (23_528_522, 2048),
  'resnet101': (42_520_650, 2048),
  'resnet152': (58_164_298, 2048),
  'googlenet': (5_610_154, 1024),
  'mobilenet_v2': (2_236_682, 1280),
  'vit_b_16': (85_658_890, 768),
  'vit_b_32': (87_426_058, 768),
}


class Sizes(NamedTuple):
  """Numbers of an architecture's weights.

  Attributes:
    extractor: Trainable ones of the feature extractor.
    head: Trainable ones of the head.
    state: That move otherwise, or not at all.
  """

  extractor: int
  head: int
  state: int


def torchvision_extractor(name: str) -> Optional[int]:
  """Returns torchvision's trainable parameters without its head, or None."""
  if name not in TORCHVISION:
    return None
  total, num_features = TORCHVISION[name]
  return total - (num_features * 10 + 10)


def sizes(
  name: str,
  input_shape: tuple[int, ...],
  num_classes: int,
  feature_dim: int,
  vocabulary_size: Optional[int] = None,
) -> Sizes:
  """Builds an architecture, and counts its weights."""
  extractor, head = architectures.build_keras(
    name, input_shape, num_classes, feature_dim, vocabulary_size
  )
  return Sizes(
    _count(extractor.trainable_weights),
    _count(head.trainable_weights),
    _count(extractor.non_trainable_weights + head.non_trainable_weights),
  )


def _count(variables: Sequence[Any]) -> int:
  return sum(int(np.prod(variable.shape)) for variable in variables)
