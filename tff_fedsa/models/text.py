"""Small architectures for tokens, of any length and vocabulary (0: padding)."""

from __future__ import annotations

import math

from etils import epy

from tff_fedsa.models import architectures

with epy.lazy_imports():
  import tensorflow as tf

  from tff_fedsa.models import assembly
  from tff_fedsa.models import attention
  from tff_fedsa.models import functional
  from tff_fedsa.models import initializers

_WIDTH = 32


@architectures.register_architecture('text_mean')
def text_mean(
  input_shape: tuple[int, ...],
  num_classes: int,
  feature_dim: int,
  vocabulary_size: int,
  embedding_width: int = _WIDTH,
) -> functional.KerasClientModel:
  """Mean of the embeddings of a text's tokens, as fastText's; dense.

  Source: "Bag of Tricks for Efficient Text Classification" (Joulin et al.,
  EACL 2017), without n-grams.
  """
  tokens = tokens_input(input_shape)
  hidden = _mean(
    _embedded(tokens, vocabulary_size, embedding_width), presence(tokens)
  )
  return assembly.dense_client_model(tokens, hidden, num_classes, feature_dim)


@architectures.register_architecture('text_cnn')
def text_cnn(
  input_shape: tuple[int, ...],
  num_classes: int,
  feature_dim: int,
  vocabulary_size: int,
  embedding_width: int = _WIDTH,
) -> functional.KerasClientModel:
  """Convolutions of 3, 4 and 5 tokens, 32 filters each; their maxima.

  Source: "Convolutional Neural Networks for Sentence Classification" (Kim,
  EMNLP 2014), smaller and without dropout.
  """
  tokens = tokens_input(input_shape)
  present = presence(tokens)
  embedded = tf.keras.layers.Multiply()(
    [_embedded(tokens, vocabulary_size, embedding_width), present]
  )
  maxima = [
    tf.keras.layers.GlobalMaxPooling1D()(
      initializers.conv1d(embedded, _WIDTH, kernel_size, activation='relu')
    )
    for kernel_size in (3, 4, 5)
  ]
  hidden = tf.keras.layers.Concatenate()(maxima)
  return assembly.dense_client_model(tokens, hidden, num_classes, feature_dim)


@architectures.register_architecture('text_transformer')
def text_transformer(
  input_shape: tuple[int, ...],
  num_classes: int,
  feature_dim: int,
  vocabulary_size: int,
  embedding_width: int = _WIDTH,
) -> functional.KerasClientModel:
  """Embeddings with learned places, one block of attention; their mean.

  Source: the encoder of "Attention Is All You Need" (Vaswani et al., NeurIPS
  2017), with the normalization first; padding is neither seen nor counted.
  """
  tokens = tokens_input(input_shape)
  present = presence(tokens)
  embedded = _embedded(tokens, vocabulary_size, embedding_width)
  # A dense layer whose bias is of the place.
  hidden = tf.keras.layers.EinsumDense(
    'btd,de->bte', (input_shape[0], _WIDTH), bias_axes='te'
  )(embedded)
  # Every place sees those of tokens.
  mask = tf.transpose(present, [0, 2, 1]) > 0.0
  hidden = attention.block(hidden, num_heads=2, mask=mask)
  hidden = tf.keras.layers.LayerNormalization()(hidden)
  hidden = _mean(hidden, present)
  return assembly.dense_client_model(tokens, hidden, num_classes, feature_dim)


def tokens_input(input_shape: tuple[int, ...]) -> tf.Tensor:
  """Returns the Keras input of tokens, int32[batch, length]."""
  architectures.check_rank(input_shape, 1, 'tokens (length,)')
  return tf.keras.Input(input_shape, dtype=tf.int32)


def presence(tokens: tf.Tensor) -> tf.Tensor:
  """Returns float32[batch, length, 1]: 1 for tokens, 0 for padding."""
  return tf.expand_dims(tf.cast(tf.not_equal(tokens, 0), tf.float32), -1)


def _embedded(tokens, vocabulary_size, width):
  return tf.keras.layers.Embedding(
    vocabulary_size,
    width,
    embeddings_initializer=tf.keras.initializers.RandomNormal(
      stddev=1.0 / math.sqrt(width)
    ),
  )(tokens)


def _mean(hidden, present):
  """Mean over tokens, 0 for a text of padding only."""
  count = tf.maximum(tf.reduce_sum(present, axis=1), 1.0)
  return tf.reduce_sum(hidden * present, axis=1) / count
