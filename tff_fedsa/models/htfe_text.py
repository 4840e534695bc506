"""The text models of HtFE-txt. Their width is feature_dim.

In three things they differ from HtFLlib's. Features are those of the last
layer before the classifier; HtFLlib's clients also apply the log-softmax that
belonged to the classifier. A recurrent network ends with the last token of a
text; HtFLlib's LSTM returns zeros for texts that are shorter than the longest
of their batch. An LSTM has one bias for each gate; PyTorch adds two.

Source: `flcore/trainmodel/models.py`, `bilstm.py` and `transformer.py`,
TsingZ0/HtFLlib.
"""

from __future__ import annotations

import math

from etils import epy
import numpy as np

from tff_fedsa.models import architectures
from tff_fedsa.runs import errors

with epy.lazy_imports():
  import tensorflow as tf

  from tff_fedsa.models import assembly
  from tff_fedsa.models import functional
  from tff_fedsa.models import initializers
  from tff_fedsa.models import text
  from tff_fedsa.models import vit_layers

_RECURRENT_DROPOUT = 0.2
_TRANSFORMER_DROPOUT = 0.5
_NUM_FILTERS = 100
_CNN_DROPOUT = 0.8


@architectures.register_architecture('txt_fasttext')
def txt_fasttext(
  input_shape: tuple[int, ...],
  num_classes: int,
  feature_dim: int,
  vocabulary_size: int,
) -> functional.KerasClientModel:
  """Mean of embeddings over all places, padding being 0; a dense layer."""
  tokens = text.tokens_input(input_shape)
  embedded = _embedded(tokens, vocabulary_size, feature_dim)
  hidden = tf.keras.layers.GlobalAveragePooling1D()(embedded)
  features = initializers.dense(hidden, feature_dim)
  return assembly.client_model(tokens, features, num_classes, feature_dim)


@architectures.register_architecture('txt_logistic')
def txt_logistic(
  input_shape: tuple[int, ...],
  num_classes: int,
  feature_dim: int,
  vocabulary_size: int,
) -> functional.KerasClientModel:
  """Mean of embeddings over all places, that of padding among them."""
  tokens = text.tokens_input(input_shape)
  embedded = _embedded(tokens, vocabulary_size, feature_dim, hide_padding=False)
  features = tf.keras.layers.GlobalAveragePooling1D()(embedded)
  return assembly.client_model(tokens, features, num_classes, feature_dim)


def _register_recurrent(name: str, layer_name: str) -> None:
  @architectures.register_architecture(name)
  def recurrent(input_shape, num_classes, feature_dim, vocabulary_size):
    tokens = text.tokens_input(input_shape)
    is_token = tf.not_equal(tokens, 0)
    hidden = _embedded(tokens, vocabulary_size, feature_dim)
    for is_last in (False, True):
      hidden = _recurrent(
        layer_name, feature_dim, return_sequences=not is_last
      )(hidden, mask=is_token)
      if is_last and layer_name == 'LSTM':
        hidden = tf.keras.layers.ReLU()(hidden)
      hidden = tf.keras.layers.Dropout(_RECURRENT_DROPOUT)(hidden)
    return assembly.client_model(tokens, hidden, num_classes, feature_dim)


# Two layers each.
_register_recurrent('txt_lstm', 'LSTM')
_register_recurrent('txt_gru', 'GRU')


@architectures.register_architecture('txt_bilstm')
def txt_bilstm(
  input_shape: tuple[int, ...],
  num_classes: int,
  feature_dim: int,
  vocabulary_size: int,
) -> functional.KerasClientModel:
  """The last states of an LSTM in both directions; a dense layer."""
  tokens = text.tokens_input(input_shape)
  embedded = _embedded(tokens, vocabulary_size, feature_dim, hide_padding=False)
  hidden = tf.keras.layers.Bidirectional(
    _recurrent('LSTM', feature_dim),
    backward_layer=_recurrent('LSTM', feature_dim, go_backwards=True),
  )(embedded, mask=tf.not_equal(tokens, 0))
  features = initializers.dense(hidden, feature_dim)
  return assembly.client_model(tokens, features, num_classes, feature_dim)


@architectures.register_architecture('txt_cnn')
def txt_cnn(
  input_shape: tuple[int, ...],
  num_classes: int,
  feature_dim: int,
  vocabulary_size: int,
) -> functional.KerasClientModel:
  """Maxima of 100 filters of 3, 4 and 5 tokens; dropout 0.8; dense."""
  if input_shape[0] < 5:
    raise errors.UserError(
      'The architecture txt_cnn needs texts of at least 5 tokens, found '
      f'{input_shape[0]}. Pad them with 0, or use text_cnn.'
    )
  tokens = text.tokens_input(input_shape)
  embedded = _embedded(tokens, vocabulary_size, feature_dim)
  maxima = [
    tf.keras.layers.GlobalMaxPooling1D()(
      initializers.conv1d(
        embedded, _NUM_FILTERS, size, activation='relu', padding='valid'
      )
    )
    for size in (3, 4, 5)
  ]
  hidden = tf.keras.layers.Concatenate()(maxima)
  hidden = tf.keras.layers.Dropout(_CNN_DROPOUT)(hidden)
  features = initializers.dense(hidden, feature_dim)
  return assembly.client_model(tokens, features, num_classes, feature_dim)


def transformer_name(num_heads: int, num_layers: int) -> str:
  """Returns the name of the transformer of so many heads and layers."""
  return f'txt_transformer_h{num_heads}_l{num_layers}'


def _register_transformer(num_heads: int, num_layers: int) -> None:
  name = transformer_name(num_heads, num_layers)

  @architectures.register_architecture(name)
  def transformer(input_shape, num_classes, feature_dim, vocabulary_size):
    if feature_dim % 2 or feature_dim % num_heads:
      raise errors.UserError(
        f'The architecture {name} needs a feature_dim that is even and a '
        f'multiple of its {num_heads} heads, found {feature_dim}.'
      )
    tokens = text.tokens_input(input_shape)
    hidden = tf.keras.layers.Embedding(
      vocabulary_size,
      feature_dim,
      embeddings_initializer=tf.keras.initializers.RandomUniform(-0.1, 0.1),
    )(tokens)
    hidden = hidden + _places(input_shape[0], feature_dim)
    hidden = tf.keras.layers.Dropout(_TRANSFORMER_DROPOUT)(hidden)
    hidden = vit_layers.ClassToken()(hidden)
    for _ in range(num_layers):
      hidden = _encoder_layer(hidden, num_heads)
    return assembly.client_model(tokens, hidden[:, 0], num_classes, feature_dim)


# Those of HtFE-txt-5-1, 5-2, 5-3 and 6.
for _num_heads, _num_layers in sorted(
  {(8, n) for n in (1, 2, 4, 8, 16)}
  | {(n, 4) for n in (1, 2, 4, 8, 16)}
  | {(n, n) for n in (1, 2, 4, 8, 16)}
):
  _register_transformer(_num_heads, _num_layers)


def _embedded(tokens, vocabulary_size, width, *, hide_padding=True):
  """Embeddings, N(0, 1) as PyTorch draws them; that of padding is 0."""
  embedded = tf.keras.layers.Embedding(
    vocabulary_size,
    width,
    embeddings_initializer=tf.keras.initializers.RandomNormal(stddev=1.0),
  )(tokens)
  if not hide_padding:
    return embedded
  return tf.keras.layers.Multiply()([embedded, text.presence(tokens)])


def _recurrent(layer_name, width, **options):
  """A layer with PyTorch's default initialization, U(±1 / sqrt(width))."""

  def uniform():
    limit = 1.0 / math.sqrt(width)
    return tf.keras.initializers.RandomUniform(-limit, limit)

  if layer_name == 'LSTM':
    options['unit_forget_bias'] = False
  return getattr(tf.keras.layers, layer_name)(
    width,
    kernel_initializer=uniform(),
    recurrent_initializer=uniform(),
    bias_initializer=uniform(),
    **options,
  )


def _places(length: int, width: int) -> np.ndarray:
  """Sines and cosines of places, float32[length, width]."""
  rates = np.exp(np.arange(0, width, 2) * (-math.log(10000.0) / width))
  angles = np.arange(length)[:, None] * rates
  return (
    np.stack([np.sin(angles), np.cos(angles)], axis=-1)
    .reshape(length, width)
    .astype(np.float32)
  )


def _encoder_layer(hidden, num_heads):
  """`torch.nn.TransformerEncoderLayer`: the normalization comes last."""
  layers = tf.keras.layers
  width = hidden.shape[-1]
  attended = vit_layers.SelfAttention(num_heads, _TRANSFORMER_DROPOUT)(hidden)
  attended = layers.Dropout(_TRANSFORMER_DROPOUT)(attended)
  hidden = layers.LayerNormalization(epsilon=1e-5)(hidden + attended)
  inner = initializers.dense(hidden, width, activation='relu')
  inner = layers.Dropout(_TRANSFORMER_DROPOUT)(inner)
  inner = layers.Dropout(_TRANSFORMER_DROPOUT)(initializers.dense(inner, width))
  return layers.LayerNormalization(epsilon=1e-5)(hidden + inner)
