"""Finds the layer of an operation in a traced graph."""

from collections.abc import Iterable
import re
from typing import Optional

import tensorflow as tf


def find(
  operation_name: str, keras_models: Iterable[tf.keras.Model]
) -> Optional[str]:
  """Returns the innermost layer in an operation's name, or None.

  Keras calls each layer in a name scope of its name.

  Args:
    operation_name: `model/layer/operation`. For operations in a loop or a
      condition, the name of the function is in front
      (`model_layer_while_body_12`).
    keras_models: Models with the layers.
  """
  known = {
    layer.name
    for model in keras_models
    for layer in model._flatten_layers()  # pylint: disable=protected-access
  }
  for scope in reversed(operation_name.split('/')[:-1]):
    # The name of a layer's second call has a number.
    for name in (scope, re.sub(r'_\d+$', '', scope)):
      if name in known:
        return name
    inside = [name for name in known if f'_{name}_' in f'_{scope}_']
    if inside:
      return max(inside, key=len)
  return None
