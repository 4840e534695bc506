"""Small architectures for the rows of a table, of any number of columns."""

from __future__ import annotations

from etils import epy

from tff_fedsa.models import architectures

with epy.lazy_imports():
  import tensorflow as tf

  from tff_fedsa.models import assembly
  from tff_fedsa.models import attention
  from tff_fedsa.models import functional
  from tff_fedsa.models import initializers

_WIDTH = 64
_TOKEN_WIDTH = 16
_NUM_BLOCKS = 2


@architectures.register_architecture('table_mlp')
def table_mlp(
  input_shape: tuple[int, ...], num_classes: int, feature_dim: int
) -> functional.KerasClientModel:
  """Two dense layers of 64 with ReLU, and one of feature_dim."""
  rows = _rows(input_shape)
  hidden = rows
  for _ in range(2):
    hidden = initializers.dense(hidden, _WIDTH, activation='relu')
  return assembly.dense_client_model(rows, hidden, num_classes, feature_dim)


@architectures.register_architecture('table_resnet')
def table_resnet(
  input_shape: tuple[int, ...], num_classes: int, feature_dim: int
) -> functional.KerasClientModel:
  """Dense 64, and two blocks x + dense(ReLU(dense(BatchNorm(x)))).

  Source: the ResNet of "Revisiting Deep Learning Models for Tabular Data"
  (Gorishniy et al., NeurIPS 2021), without dropout.
  """
  rows = _rows(input_shape)
  hidden = initializers.dense(rows, _WIDTH)
  for _ in range(_NUM_BLOCKS):
    normalized = tf.keras.layers.BatchNormalization(momentum=0.9)(hidden)
    inner = initializers.dense(normalized, 2 * _WIDTH, activation='relu')
    hidden = tf.keras.layers.Add()([hidden, initializers.dense(inner, _WIDTH)])
  hidden = tf.keras.layers.BatchNormalization(momentum=0.9)(hidden)
  hidden = tf.keras.layers.ReLU()(hidden)
  return assembly.dense_client_model(rows, hidden, num_classes, feature_dim)


@architectures.register_architecture('table_transformer')
def table_transformer(
  input_shape: tuple[int, ...], num_classes: int, feature_dim: int
) -> functional.KerasClientModel:
  """Each column a token of 16 numbers; two blocks of attention; their mean.

  Source: the FT-Transformer of "Revisiting Deep Learning Models for Tabular
  Data" (Gorishniy et al., NeurIPS 2021); smaller, without dropout, and with
  the mean of the tokens in place of a class token.
  """
  rows = _rows(input_shape)
  # Column j becomes x_j w_j + b_j.
  hidden = tf.keras.layers.EinsumDense(
    'bc,cd->bcd',
    (input_shape[0], _TOKEN_WIDTH),
    bias_axes='cd',
    # The fan of Glorot's would count the columns.
    kernel_initializer=tf.keras.initializers.RandomNormal(stddev=0.5),
    bias_initializer=tf.keras.initializers.RandomNormal(stddev=0.5),
  )(rows)
  for _ in range(_NUM_BLOCKS):
    hidden = attention.block(hidden, num_heads=2)
  hidden = tf.keras.layers.LayerNormalization()(hidden)
  hidden = tf.keras.layers.GlobalAveragePooling1D()(hidden)
  return assembly.dense_client_model(rows, hidden, num_classes, feature_dim)


def _rows(input_shape):
  architectures.check_rank(input_shape, 1, 'rows of a table (columns,)')
  return tf.keras.Input(input_shape)
