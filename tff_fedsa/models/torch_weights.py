"""Assigns torchvision's weights to the same architectures."""

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from tff_fedsa.models import vit_layers
from tff_fedsa.runs import errors


def _conv(weight: np.ndarray) -> np.ndarray:
  return weight.transpose(2, 3, 1, 0)


def _depthwise(weight: np.ndarray) -> np.ndarray:
  return weight.transpose(2, 3, 0, 1)


def _parts(layer: tf.keras.layers.Layer) -> list[str]:
  """Returns torch's names of a layer's weights, in Keras's order."""
  if isinstance(layer, tf.keras.layers.BatchNormalization):
    return ['.weight', '.bias', '.running_mean', '.running_var']
  if isinstance(layer, vit_layers.SelfAttention):
    return [
      '.in_proj_weight',
      '.in_proj_bias',
      '.out_proj.weight',
      '.out_proj.bias',
    ]
  if isinstance(layer, vit_layers.ClassToken | vit_layers.PositionEmbedding):
    return ['']
  return ['.weight', '.bias'][: len(layer.weights)]


def _to_keras(layer: tf.keras.layers.Layer, weight: np.ndarray) -> np.ndarray:
  """Returns an array in Keras's layout."""
  if weight.ndim == 2:
    return weight.T
  if weight.ndim == 4:
    depthwise = isinstance(layer, tf.keras.layers.DepthwiseConv2D)
    return (_depthwise if depthwise else _conv)(weight)
  return weight


def assign(
  extractor: tf.keras.Model, state_dict: Mapping[str, np.ndarray]
) -> None:
  """Assigns a torchvision `state_dict` to a feature extractor, by name.

  Entries of torchvision's classifier and `num_batches_tracked` are ignored.

  Args:
    extractor: Extractor of an architecture with torchvision's layer names:
      ResNets, GoogLeNet, MobileNetV2, ViTs.
    state_dict: Arrays by name, in torch's layout.

  Raises:
    ValueError: If weights are missing or of other shapes; all are named.
  """
  new_weights: list[tuple[tf.keras.layers.Layer, list[np.ndarray]]] = []
  problems = []
  for layer in extractor.layers:
    if not layer.weights:
      continue
    new_weights.append((layer, []))
    for part, variable in zip(_parts(layer), layer.weights):
      name = f'{layer.name}{part}'
      if name not in state_dict:
        problems.append(f'{name} is missing')
        continue
      array = _to_keras(layer, np.asarray(state_dict[name]))
      if array.shape != tuple(variable.shape):
        problems.append(
          f'{name}: expected {tuple(variable.shape)} in the layout of Keras, '
          f'found {array.shape}'
        )
      new_weights[-1][1].append(array)
  if problems:
    raise errors.UserError(
      'Not the weights of this architecture as torchvision names them: '
      f'{"; ".join(problems[:5])}; {len(problems)} in all.'
    )
  for layer, arrays in new_weights:
    layer.set_weights(arrays)
