"""Classifier heads by name, for architectures with other heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Optional

from etils import epy

from tff_fedsa.runs import errors

with epy.lazy_imports():
  import tensorflow as tf

  from tff_fedsa.models import initializers


class _Layout(NamedTuple):
  """Layers of a head.

  Attributes:
    widths: Widths of hidden dense layers.
    activation: Activation after each hidden layer.
    logits_activation: Activation after the last layer.
  """

  widths: Sequence[int] = ()
  activation: str = 'relu'
  logits_activation: Optional[str] = None


# The four heads of HtC4, and the same with the reference's mistake: a final
# ReLU, so no logit is negative.
_LAYOUTS = {
  'linear': _Layout(),
  'mlp512': _Layout([512]),
  'mlp256': _Layout([256]),
  'mlp128': _Layout([128]),
  'linear_relu': _Layout(logits_activation='relu'),
  'mlp512_relu': _Layout([512], logits_activation='relu'),
  'mlp256_relu': _Layout([256], logits_activation='relu'),
  'mlp128_relu': _Layout([128], logits_activation='relu'),
  'tanh768': _Layout([768], 'tanh'),
}


def names() -> list[str]:
  """Returns the names of all heads."""
  return list(_LAYOUTS)


def build(name: str, feature_dim: int, num_classes: int) -> tf.keras.Model:
  """Returns a head of dense layers with PyTorch's default initialization.

  Args:
    name: One of `names()`.
    feature_dim: D.
    num_classes: C.

  Raises:
    ValueError: If the name is unknown.
  """
  if name not in _LAYOUTS:
    raise errors.UserError(
      f'Unknown head {name!r}; known: {", ".join(names())}.'
    )
  layout = _LAYOUTS[name]
  features = tf.keras.Input([feature_dim])
  hidden = features
  for width in layout.widths:
    hidden = initializers.dense(hidden, width, activation=layout.activation)
  logits = initializers.dense(
    hidden, num_classes, activation=layout.logits_activation
  )
  return tf.keras.Model(features, logits, name='head')
