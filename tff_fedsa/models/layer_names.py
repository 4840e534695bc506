"""Which layer an operation of a traced graph belongs to."""

from collections.abc import Iterable
import re
from typing import Optional

import tensorflow as tf


def find(
  operation_name: str, keras_models: Iterable[tf.keras.Model]
) -> Optional[str]:
  """Returns the innermost layer in an operation's name, None if there is none.

  Keras calls each layer in a name scope of its name.

  Args:
    operation_name: `model/layer/operation`; of operations in a loop or a
      condition, the function's name (`model_layer_while_body_12`) in front.
    keras_models: Have the layers.
  """
  known = {
    layer.name
    for model in keras_models
    for layer in model._flatten_layers()  # pylint: disable=protected-access
  }
  for scope in reversed(operation_name.split('/')[:-1]):
    # A layer's second call has a number.
    for name in (scope, re.sub(r'_\d+$', '', scope)):
      if name in known:
        return name
    inside = [name for name in known if f'_{name}_' in f'_{scope}_']
    if inside:
      return max(inside, key=len)
  return None
