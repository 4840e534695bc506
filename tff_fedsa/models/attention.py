"""A small block of attention, of layers of Keras."""

from typing import Optional

import tensorflow as tf

from tff_fedsa.models import initializers


def block(
  hidden: tf.Tensor, *, num_heads: int, mask: Optional[tf.Tensor] = None
) -> tf.Tensor:
  """Applies attention and a dense part, each normalized first and added.

  Args:
    hidden: float32[batch, length, width].
    num_heads: Heads of attention; they divide the width.
    mask: bool[batch, length or 1, length], whether a place sees another one;
      all by default.

  Returns:
    float32[batch, length, width].
  """
  layers = tf.keras.layers
  width = hidden.shape[-1]
  normalized = layers.LayerNormalization()(hidden)
  attended = layers.MultiHeadAttention(num_heads, width // num_heads)(
    normalized, normalized, attention_mask=mask
  )
  hidden = layers.Add()([hidden, attended])
  normalized = layers.LayerNormalization()(hidden)
  inner = initializers.dense(normalized, 2 * width, activation='relu')
  return layers.Add()([hidden, initializers.dense(inner, width)])
