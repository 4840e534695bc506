"""Keras client models with all kinds of layers, for tests of `functional`."""

import collections

import tensorflow as tf

from tff_fedsa.models import functional

IMAGE = (8, 8, 3)
FEATURE_DIM = 6
NUM_CLASSES = 4

L = tf.keras.layers


def client_model(layer_fn, head_layers=()):
  """A build function: `layer_fn(images)`, flattened, dense; a dense head."""

  def build_fn():
    images = tf.keras.Input(IMAGE)
    hidden = L.Flatten()(layer_fn(images))
    features = L.Dense(FEATURE_DIM, name='features')(hidden)
    return functional.KerasClientModel(
      tf.keras.Model(images, features),
      tf.keras.Sequential(
        [tf.keras.Input([FEATURE_DIM]), *head_layers, L.Dense(NUM_CLASSES)]
      ),
    )

  return build_fn


def _rows(images):
  """Images as sequences of 8 rows of 24 numbers."""
  return L.Reshape([8, 24])(images)


def _frozen_batch_norm(x):
  frozen = L.BatchNormalization()
  frozen.trainable = False
  return frozen(L.Conv2D(4, 3)(x))


def _frozen_conv(x):
  frozen = L.Conv2D(4, 3)
  frozen.trainable = False
  return L.Conv2D(2, 3)(frozen(x))


def _tied(x):
  conv = L.Conv2D(3, 3, padding='same', activation='tanh')
  norm = L.BatchNormalization()
  return norm(conv(norm(conv(x))))


def _nested(x):
  inputs = tf.keras.Input(x.shape[1:])
  inner = tf.keras.Sequential([L.Conv2D(4, 3), L.BatchNormalization()])
  return tf.keras.Model(inputs, inner(inputs))(x)


def _attention(x):
  rows = _rows(x)
  return L.MultiHeadAttention(2, 5)(rows, rows)


def _regularized(x):
  l1 = tf.keras.regularizers.L1(0.3)
  x = L.Conv2D(4, 3, kernel_regularizer='l2', bias_regularizer=l1)(x)
  x = L.BatchNormalization(gamma_regularizer='l2')(x)
  return L.Dense(5, activity_regularizer='l2')(x)


def _normalization(x):
  layer = L.Normalization(axis=(1, 2, 3))
  layer.adapt(tf.random.stateless_normal([20, *IMAGE], [1, 2], 3.0, 2.0))
  return L.Conv2D(4, 3)(layer(x))


def _dense_on_one_channel(x):
  """Weights of one row, on rank 4, one of them in two calls."""
  shared = L.Dense(1, activation='tanh')
  x = L.Dense(4, activation='tanh')(x[..., :1])
  return shared(shared(L.Dense(1)(x)))


def _operators(x):
  """Operands that Keras turns into tensors, small, large and shared."""
  x = 1.0 - (x + 3.0) / tf.constant([1.0, 2.0, 4.0])
  x = tf.nn.relu6(x + 3.0) * (1.0 / 6.0)
  return L.Conv2D(4, 3)(x - tf.reshape(tf.range(192.0), IMAGE) * 0.01)


def _tied_by_operator(x):
  dense = L.Dense(5)
  return tf.matmul(dense(_rows(x)), dense.kernel, transpose_b=True)


class PatchEncoder(L.Layer):
  """As in Keras's example of a vision transformer."""

  def __init__(self, **kwargs):
    super().__init__(**kwargs)
    self.projection = L.Dense(6)
    self.position_embedding = L.Embedding(8, 6)

  def call(self, patches):
    return self.projection(patches) + self.position_embedding(tf.range(8))


Pair = collections.namedtuple('Pair', ['kernel', 'scale'])


class Linear(tf.Module):
  """A module that is not a layer."""

  def __init__(self):
    super().__init__()
    self.kernel = tf.Variable(tf.eye(24) * 0.3, name='module_kernel')

  def __call__(self, x):
    return x @ self.kernel


class Containers(L.Layer):
  """Weights in every kind of attribute, and a large constant."""

  def build(self, input_shape):
    def weight(name):
      return self.add_weight(name, [24], initializer='random_normal')

    self.in_list = [weight('a'), [weight('b')]]
    self.in_dict = {'x': weight('c'), 'y': (weight('d'),)}
    self.in_named_tuple = Pair(weight('e'), weight('f'))
    self.in_module = Linear()
    self.table = tf.reshape(tf.range(8 * 24, dtype=tf.float32), [8, 24]) * 0.01
    self.average = self.add_weight('average', [24], trainable=False)

  def call(self, x, training=False):
    for weight in (self.in_list[0], self.in_list[1][0], self.in_dict['x']):
      x = tf.tanh(x * (1.0 + weight))
    x += self.in_dict['y'][0] + self.in_named_tuple.scale + self.table
    if training:
      mean = tf.reduce_mean(x, axis=[0, 1])
      self.average.assign_add(0.1 * (mean - self.average))
    if tf.reduce_sum(x) > 0:
      x = x * 2.0
    return self.in_module(x * self.in_named_tuple.kernel) - self.average


class Compiled(L.Layer):
  """A layer whose call is a tf.function."""

  def build(self, input_shape):
    self.kernel = self.add_weight('kernel', [input_shape[-1], 5])

  @tf.function
  def call(self, x):
    return tf.matmul(x, self.kernel)


LAYERS = {
  'dense': lambda x: L.Dense(5, activation='relu')(L.Flatten()(x)),
  'batch_norm_dense': lambda x: L.BatchNormalization()(
    L.Dense(5)(L.Flatten()(x))
  ),
  'batch_norm_fused': lambda x: L.ReLU()(
    L.BatchNormalization(momentum=0.9)(L.Conv2D(4, 3)(x))
  ),
  'batch_norm_not_fused': lambda x: L.BatchNormalization(fused=False)(
    L.Conv2D(4, 3)(x)
  ),
  'batch_norm_renorm': lambda x: L.BatchNormalization(renorm=True)(
    L.Conv2D(4, 3)(x)
  ),
  'frozen_batch_norm': _frozen_batch_norm,
  'frozen_conv': _frozen_conv,
  'layer_norm': lambda x: L.LayerNormalization()(L.Conv2D(4, 3)(x)),
  'group_norm': lambda x: L.GroupNormalization(2)(L.Conv2D(4, 3)(x)),
  'prelu': lambda x: L.PReLU()(L.Conv2D(4, 3)(x)),
  'separable': lambda x: L.SeparableConv2D(4, 3)(x),
  'depthwise_and_transpose': lambda x: L.Conv2DTranspose(2, 3)(
    L.DepthwiseConv2D(3, strides=2)(x)
  ),
  'attention': _attention,
  'patch_encoder': lambda x: PatchEncoder()(_rows(x)),
  'gru': lambda x: L.GRU(5)(_rows(x)),
  'lstm_sequence': lambda x: L.LSTM(5, return_sequences=True)(_rows(x)),
  'bidirectional': lambda x: L.Bidirectional(L.GRU(3))(_rows(x)),
  'rnn_cells': lambda x: L.RNN([L.LSTMCell(4), L.GRUCell(3)])(_rows(x)),
  'time_distributed': lambda x: L.TimeDistributed(L.Conv1D(3, 2))(x),
  'dense_on_one_channel': _dense_on_one_channel,
  'operators': _operators,
  'tied_by_operator': _tied_by_operator,
  'tied': _tied,
  'nested': _nested,
  'regularized': _regularized,
  'normalization': _normalization,
  'containers': lambda x: Containers()(_rows(x)),
  'compiled': lambda x: Compiled()(_rows(x)),
}


class Extractor(tf.keras.Model):
  """A subclassed feature extractor, built by its first call."""

  def __init__(self):
    super().__init__()
    self.blocks = [
      (L.Conv2D(4, 3), L.BatchNormalization()),
      (L.Conv2D(4, 3), L.BatchNormalization()),
    ]
    self.out = L.Dense(FEATURE_DIM)

  def call(self, images, training=False):
    x = images
    for conv, norm in self.blocks:
      x = tf.nn.relu(norm(conv(x), training=training))
    return self.out(tf.reduce_mean(x, axis=[1, 2]))


class Head(tf.keras.Model):
  def __init__(self):
    super().__init__()
    self.out = L.Dense(NUM_CLASSES)

  def call(self, features):
    return self.out(features)


def subclassed():
  return functional.KerasClientModel(Extractor(), Head())
