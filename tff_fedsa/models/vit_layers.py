"""Layers of vision transformers that Keras lacks."""

import math
from typing import Any, Optional

import tensorflow as tf

from tff_fedsa.models import initializers


@tf.keras.utils.register_keras_serializable(package='tff_fedsa')
class ClassToken(tf.keras.layers.Layer):
  """Puts a learned token, zeros at first, in front of `[batch, n, width]`."""

  def build(self, input_shape: Any) -> None:
    self.token = self.add_weight(
      'token', [1, 1, input_shape[-1]], initializer='zeros'
    )
    super().build(input_shape)

  def call(self, inputs: tf.Tensor) -> tf.Tensor:
    tokens = tf.repeat(self.token, tf.shape(inputs)[0], axis=0)
    return tf.concat([tokens, inputs], axis=1)


@tf.keras.utils.register_keras_serializable(package='tff_fedsa')
class PositionEmbedding(tf.keras.layers.Layer):
  """Adds a learned vector, N(0, 0.02) at first, to each position."""

  def build(self, input_shape: Any) -> None:
    self.embedding = self.add_weight(
      'embedding',
      [1, *input_shape[1:]],
      initializer=tf.keras.initializers.RandomNormal(stddev=0.02),
    )
    super().build(input_shape)

  def call(self, inputs: tf.Tensor) -> tf.Tensor:
    return inputs + self.embedding


@tf.keras.utils.register_keras_serializable(package='tff_fedsa')
class SelfAttention(tf.keras.layers.Layer):
  """`torch.nn.MultiheadAttention` of a sequence with itself.

  Keras's layer has three projections for queries, keys and values. Torch draws
  them as one matrix, Glorot uniform, and the output projection from another
  distribution.
  """

  def __init__(self, num_heads: int, dropout: float = 0.0, **kwargs: Any):
    """Initializes `SelfAttention`.

    Args:
      num_heads: Heads; they divide the width.
      dropout: Share of attention weights that a training step drops, in [0, 1).
      **kwargs: Arguments of every Keras layer.
    """
    super().__init__(**kwargs)
    self.num_heads = num_heads
    self.dropout = dropout

  def build(self, input_shape: Any) -> None:
    width = input_shape[-1]
    self.in_proj = tf.keras.layers.Dense(3 * width, name='in_proj')
    self.out_proj = tf.keras.layers.Dense(
      width,
      kernel_initializer=initializers.kernel_initializer(),
      name='out_proj',
    )
    for layer in (self.in_proj, self.out_proj):
      layer.build(input_shape)
    if self.dropout:
      self.attention_dropout = tf.keras.layers.Dropout(self.dropout)
    super().build(input_shape)

  def call(
    self, inputs: tf.Tensor, training: Optional[bool] = None
  ) -> tf.Tensor:
    _, length, width = inputs.shape
    size = width // self.num_heads
    projected = tf.reshape(
      self.in_proj(inputs), [-1, length, 3, self.num_heads, size]
    )
    queries, keys, values = tf.unstack(tf.transpose(projected, [2, 0, 3, 1, 4]))
    scores = tf.matmul(queries / math.sqrt(size), keys, transpose_b=True)
    attention = tf.nn.softmax(scores)
    if self.dropout:
      attention = self.attention_dropout(attention, training=training)
    mixed = tf.matmul(attention, values)
    mixed = tf.transpose(mixed, [0, 2, 1, 3])
    return self.out_proj(tf.reshape(mixed, [-1, length, width]))

  def get_config(self) -> dict[str, Any]:
    return {
      **super().get_config(),
      'num_heads': self.num_heads,
      'dropout': self.dropout,
    }
