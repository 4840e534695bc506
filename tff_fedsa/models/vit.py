"""Vision transformers as torchvision defines them, for any image size.

Pre-norm blocks with LayerNorm epsilon 1e-6, exact GELU, a class token and
learned position embeddings. The head is the reference's: dense 768 - tanh -
dense num_classes.

Source: `torchvision/models/vision_transformer.py`, pytorch/vision; the head:
`BaseHeadSplit` in `flcore/trainmodel/models.py`, TsingZ0/HtFLlib.
"""

from __future__ import annotations

import math

from etils import epy

from tff_fedsa.models import architectures
from tff_fedsa.runs import errors

with epy.lazy_imports():
  import tensorflow as tf

  from tff_fedsa.models import assembly
  from tff_fedsa.models import heads
  from tff_fedsa.models import vit_layers

_WIDTH = 768
_MLP_WIDTH = 3072
_NUM_BLOCKS = 12
_NUM_HEADS = 12


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
  hidden = vit_layers.SelfAttention(_NUM_HEADS, name=f'{name}.self_attention')(
    hidden
  )
  inputs = tf.keras.layers.Add()([hidden, inputs])
  hidden = _layer_norm(inputs, f'{name}.ln_2')
  hidden = _mlp_dense(hidden, _MLP_WIDTH, f'{name}.mlp.0', 'gelu')
  hidden = _mlp_dense(hidden, _WIDTH, f'{name}.mlp.3')
  return tf.keras.layers.Add()([inputs, hidden])


def _register_vit(name: str, patch_size: int) -> None:
  @architectures.register_architecture(name)
  def vit(input_shape, num_classes, feature_dim):
    if any(n % patch_size for n in input_shape[:2]):
      raise errors.UserError(
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
    hidden = vit_layers.ClassToken(name='class_token')(hidden)
    hidden = vit_layers.PositionEmbedding(name='encoder.pos_embedding')(hidden)
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
