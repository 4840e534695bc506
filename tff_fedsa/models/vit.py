"""Vision transformers as torchvision defines them, for any image size.

Pre-norm blocks with LayerNorm epsilon 1e-6, exact GELU, a class token and
learned position embeddings. The head is the reference's: dense 768 - tanh -
dense num_classes.

Source: `torchvision/models/vision_transformer.py`, pytorch/vision; the head:
`BaseHeadSplit` in `flcore/trainmodel/models.py`, TsingZ0/HtFLlib.
"""

import math
from typing import Any

import tensorflow as tf

from tff_fedsa.models import architectures
from tff_fedsa.models import assembly
from tff_fedsa.models import heads
from tff_fedsa.models import initializers

_WIDTH = 768
_MLP_WIDTH = 3072
_NUM_BLOCKS = 12
_NUM_HEADS = 12


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

  Not Keras's, whose projections into queries, keys and values are three: torch
  draws them as one matrix, Glorot uniform, and the one out of it otherwise.
  """

  def __init__(self, num_heads: int, **kwargs: Any):
    super().__init__(**kwargs)
    self.num_heads = num_heads

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
    super().build(input_shape)

  def call(self, inputs: tf.Tensor) -> tf.Tensor:
    _, length, width = inputs.shape
    size = width // self.num_heads
    projected = tf.reshape(
      self.in_proj(inputs), [-1, length, 3, self.num_heads, size]
    )
    queries, keys, values = tf.unstack(tf.transpose(projected, [2, 0, 3, 1, 4]))
    scores = tf.matmul(queries / math.sqrt(size), keys, transpose_b=True)
    mixed = tf.matmul(tf.nn.softmax(scores), values)
    mixed = tf.transpose(mixed, [0, 2, 1, 3])
    return self.out_proj(tf.reshape(mixed, [-1, length, width]))

  def get_config(self) -> dict[str, Any]:
    return {**super().get_config(), 'num_heads': self.num_heads}


def _layer_norm(inputs, name):
  return tf.keras.layers.LayerNormalization(epsilon=1e-6, name=name)(inputs)


def _mlp_dense(inputs, units, name, activation=None):
  return tf.keras.layers.Dense(
    units,
    activation=activation,
    bias_initializer=tf.keras.initializers.RandomNormal(stddev=1e-6),
    name=name,
  )(inputs)


def _block(inputs, name):
  hidden = _layer_norm(inputs, f'{name}.ln_1')
  hidden = SelfAttention(_NUM_HEADS, name=f'{name}.self_attention')(hidden)
  inputs = tf.keras.layers.Add()([hidden, inputs])
  hidden = _layer_norm(inputs, f'{name}.ln_2')
  hidden = _mlp_dense(hidden, _MLP_WIDTH, f'{name}.mlp.0', 'gelu')
  hidden = _mlp_dense(hidden, _WIDTH, f'{name}.mlp.3')
  return tf.keras.layers.Add()([inputs, hidden])


def _register_vit(name: str, patch_size: int) -> None:
  @architectures.register_architecture(name)
  def vit(input_shape, num_classes, feature_dim):
    if any(n % patch_size for n in input_shape[:2]):
      raise ValueError(
        f'The architecture {name} needs images whose height and width are '
        f'multiples of {patch_size}, found {input_shape}. Resize in the input '
        'spec (--image_size=32).'
      )
    images = tf.keras.Input(input_shape)
    fan_in = patch_size**2 * input_shape[-1]
    hidden = tf.keras.layers.Conv2D(
      _WIDTH,
      patch_size,
      strides=patch_size,
      # Truncated by torchvision far outside.
      kernel_initializer=tf.keras.initializers.RandomNormal(
        stddev=1 / math.sqrt(fan_in)
      ),
      name='conv_proj',
    )(images)
    hidden = tf.keras.layers.Reshape([-1, _WIDTH])(hidden)
    hidden = ClassToken(name='class_token')(hidden)
    hidden = PositionEmbedding(name='encoder.pos_embedding')(hidden)
    for index in range(_NUM_BLOCKS):
      hidden = _block(hidden, f'encoder.layers.encoder_layer_{index}')
    hidden = _layer_norm(hidden, 'encoder.ln')
    return assembly.client_model(
      images,
      hidden[:, 0],
      num_classes,
      feature_dim,
      head=heads.build('tanh768', feature_dim, num_classes),
    )


_register_vit('vit_b_16', 16)
_register_vit('vit_b_32', 32)
