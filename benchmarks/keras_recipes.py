"""Recipes that try each class of keras.layers and keras.applications.

A layer's recipe is a function of images [batch, 8, 8, 4]; what it returns is
flattened and goes into a dense layer. In front of it is a convolution, which
learns only if gradients pass the layer.
"""

from collections.abc import Callable, Mapping
import inspect
from typing import Any, NamedTuple

import tensorflow as tf

L = tf.keras.layers

IMAGE = (8, 8, 4)
FEATURE_DIM = 6
NUM_CLASSES = 4

LayerFn = Callable[[tf.Tensor], tf.Tensor]


class Refusal(NamedTuple):
  """A layer that no client can train.

  Attributes:
    layer_fn: Builds a model with it.
    match: Regular expression that the error matches.
    reason: In a sentence, for people.
  """

  layer_fn: LayerFn
  match: str
  reason: str


def _rows(x):
  return L.Reshape([16, 16])(x)


def _volume(x):
  return L.Reshape([4, 4, 4, 4])(x)


def _film(x):
  return L.Reshape([2, 2, 4, 4, 4])(x)


def _flat(x):
  return L.Flatten()(x)


def _tokens(x):
  """Ten integers in [0, 8] for each image."""
  integers = tf.cast(tf.clip_by_value(2.0 * x + 4.0, 0.0, 8.0), tf.int32)
  return L.Reshape([256])(integers)[:, :10]


def _made_of(
  layer_class: Any,
  *args: Any,
  change_fn: LayerFn = lambda x: x,
  **kwargs: Any,
) -> LayerFn:
  return lambda x: layer_class(*args, **kwargs)(change_fn(x))


def _of_rows(layer_class: Any, *args: Any, **kwargs: Any) -> LayerFn:
  return _made_of(layer_class, *args, change_fn=_rows, **kwargs)


def _of_volume(layer_class: Any, *args: Any, **kwargs: Any) -> LayerFn:
  return _made_of(layer_class, *args, change_fn=_volume, **kwargs)


def _merge(layer_class: Any, *args: Any, **kwargs: Any) -> LayerFn:
  return lambda x: layer_class(*args, **kwargs)([x, tf.tanh(x)])


def _normalization(x):
  mean, variance = [0.1, -0.1, 0.2, 0.3], [1.0, 2.0, 0.5, 3.0]
  return L.Normalization(mean=mean, variance=variance)(x)


def _mirrored(x):
  """Images with mirror symmetry."""
  return x + tf.reverse(x, [2])


def _attending(layer_class, *args):
  def layer_fn(x):
    rows = _rows(x)
    return layer_class(*args)([rows, tf.tanh(rows)])

  return layer_fn


def _multi_head_attention(x):
  rows = _rows(x)
  return L.MultiHeadAttention(2, 3)(rows, rows)


# Layers that clients train as Keras does.
EQUAL: Mapping[str, LayerFn] = {
  'Activation': _made_of(L.Activation, 'gelu'),
  'ActivityRegularization': _made_of(L.ActivityRegularization, l2=0.01),
  'Add': _merge(L.Add),
  'AdditiveAttention': _attending(L.AdditiveAttention),
  'Attention': _attending(L.Attention),
  'Average': _merge(L.Average),
  'AveragePooling1D': _of_rows(L.AveragePooling1D),
  'AveragePooling2D': _made_of(L.AveragePooling2D),
  'AveragePooling3D': _of_volume(L.AveragePooling3D),
  'BatchNormalization': _made_of(L.BatchNormalization),
  'Bidirectional': lambda x: L.Bidirectional(L.SimpleRNN(3))(_rows(x)),
  'CategoryEncoding': lambda x: L.CategoryEncoding(9)(_tokens(x)),
  'CenterCrop': _made_of(L.CenterCrop, 5, 6),
  'Concatenate': _merge(L.Concatenate),
  'Conv1D': _of_rows(L.Conv1D, 3, 2),
  'Conv1DTranspose': _of_rows(L.Conv1DTranspose, 3, 2, strides=2),
  'Conv2D': _made_of(L.Conv2D, 3, 3),
  'Conv2DTranspose': _made_of(L.Conv2DTranspose, 3, 3, strides=2),
  'Conv3D': _of_volume(L.Conv3D, 3, 2),
  'Conv3DTranspose': _of_volume(L.Conv3DTranspose, 2, 2),
  'ConvLSTM1D': _made_of(L.ConvLSTM1D, 2, 3),
  'ConvLSTM2D': _of_volume(L.ConvLSTM2D, 2, 2),
  'ConvLSTM3D': lambda x: L.ConvLSTM3D(2, 2)(_film(x)),
  'Cropping1D': _of_rows(L.Cropping1D, 2),
  'Cropping2D': _made_of(L.Cropping2D, 2),
  'Cropping3D': _of_volume(L.Cropping3D, 1),
  'Dense': _made_of(L.Dense, 3, 'relu'),
  'DepthwiseConv1D': _of_rows(L.DepthwiseConv1D, 3),
  'DepthwiseConv2D': _made_of(L.DepthwiseConv2D, 3),
  'Discretization': _made_of(L.Discretization, [-0.5, 0.0, 0.5]),
  'Dot': lambda x: L.Dot(axes=-1)([_rows(x), tf.tanh(_rows(x))]),
  'ELU': _made_of(L.ELU),
  'EinsumDense': _of_rows(
    L.EinsumDense, 'abc,cd->abd', output_shape=(None, 3), bias_axes='d'
  ),
  'Embedding': lambda x: L.Embedding(9, 3)(_tokens(x)),
  'Flatten': _made_of(L.Flatten),
  'GRU': _of_rows(L.GRU, 3),
  'GRUCell': lambda x: L.RNN(L.GRUCell(3))(_rows(x)),
  'GlobalAveragePooling1D': _of_rows(L.GlobalAveragePooling1D),
  'GlobalAveragePooling2D': _made_of(L.GlobalAveragePooling2D),
  'GlobalAveragePooling3D': _of_volume(L.GlobalAveragePooling3D),
  'GlobalMaxPooling1D': _of_rows(L.GlobalMaxPooling1D),
  'GlobalMaxPooling2D': _made_of(L.GlobalMaxPooling2D),
  'GlobalMaxPooling3D': _of_volume(L.GlobalMaxPooling3D),
  'GroupNormalization': _made_of(L.GroupNormalization, 2),
  'HashedCrossing': lambda x: L.HashedCrossing(7, output_mode='one_hot')(
    (_tokens(x)[:, :1], _tokens(x)[:, 1:2])
  ),
  'Hashing': lambda x: L.Hashing(7)(_tokens(x)),
  'Identity': _made_of(L.Identity),
  'InputLayer': lambda x: tf.keras.Sequential(
    [L.InputLayer(IMAGE), L.Conv2D(2, 3)]
  )(x),
  'LSTM': _of_rows(L.LSTM, 3),
  'LSTMCell': lambda x: L.RNN(L.LSTMCell(3))(_rows(x)),
  'Lambda': _made_of(L.Lambda, lambda x: x * tf.nn.sigmoid(x)),
  'Layer': _made_of(L.Layer),
  'LayerNormalization': _made_of(L.LayerNormalization),
  'LeakyReLU': _made_of(L.LeakyReLU),
  'LocallyConnected1D': _of_rows(L.LocallyConnected1D, 2, 3),
  'LocallyConnected2D': _made_of(L.LocallyConnected2D, 2, 3),
  'Masking': lambda x: L.SimpleRNN(3)(L.Masking(0.0)(tf.nn.relu(_rows(x)))),
  'MaxPooling1D': _of_rows(L.MaxPooling1D),
  'MaxPooling2D': _made_of(L.MaxPooling2D),
  'MaxPooling3D': _of_volume(L.MaxPooling3D),
  'Maximum': _merge(L.Maximum),
  'Minimum': _merge(L.Minimum),
  'MultiHeadAttention': _multi_head_attention,
  'Multiply': _merge(L.Multiply),
  'Normalization': _normalization,
  'PReLU': _made_of(L.PReLU),
  'Permute': _of_rows(L.Permute, (2, 1)),
  'RNN': lambda x: L.RNN(L.SimpleRNNCell(3))(_rows(x)),
  'ReLU': _made_of(L.ReLU, 6.0, 0.1, 0.2),
  'RepeatVector': lambda x: L.RepeatVector(2)(_flat(x)),
  'Rescaling': _made_of(L.Rescaling, 0.5, 0.1),
  'Reshape': _made_of(L.Reshape, [4, -1]),
  'Resizing': _made_of(L.Resizing, 5, 6),
  'SeparableConv1D': _of_rows(L.SeparableConv1D, 3, 3),
  'SeparableConv2D': _made_of(L.SeparableConv2D, 3, 3),
  'SimpleRNN': _of_rows(L.SimpleRNN, 3),
  'SimpleRNNCell': lambda x: L.RNN(L.SimpleRNNCell(3))(_rows(x)),
  'Softmax': _made_of(L.Softmax),
  'StackedRNNCells': lambda x: L.RNN(
    L.StackedRNNCells([L.SimpleRNNCell(3), L.SimpleRNNCell(2)])
  )(_rows(x)),
  'Subtract': _merge(L.Subtract),
  'ThresholdedReLU': _made_of(L.ThresholdedReLU, 0.1),
  'TimeDistributed': lambda x: L.TimeDistributed(L.Dense(3))(_rows(x)),
  'UnitNormalization': _made_of(L.UnitNormalization),
  'UpSampling1D': _of_rows(L.UpSampling1D),
  'UpSampling2D': _made_of(L.UpSampling2D),
  'UpSampling3D': _of_volume(L.UpSampling3D),
  'ZeroPadding1D': _of_rows(L.ZeroPadding1D, 2),
  'ZeroPadding2D': _made_of(L.ZeroPadding2D, 2),
  'ZeroPadding3D': _of_volume(L.ZeroPadding3D, 1),
}

# Layers with other random numbers than Keras. They are compared without
# randomness (a rate of 0, or images that the layer does not change).
RANDOM: Mapping[str, LayerFn] = {
  'AlphaDropout': _made_of(L.AlphaDropout, 0.0),
  'Dropout': _made_of(L.Dropout, 0.0),
  'GaussianDropout': _made_of(L.GaussianDropout, 0.0),
  'GaussianNoise': _made_of(L.GaussianNoise, 0.0),
  'RandomBrightness': _made_of(L.RandomBrightness, 0.0, value_range=(-9, 9)),
  # TensorFlow has no gradient for it.
  'RandomContrast': lambda x: L.RandomContrast(1e-6)(tf.stop_gradient(x)),
  'RandomCrop': _made_of(L.RandomCrop, *IMAGE[:2]),
  'RandomFlip': lambda x: L.RandomFlip('horizontal')(_mirrored(x)),
  'RandomHeight': lambda x: L.GlobalMaxPooling2D()(L.RandomHeight(0.0)(x)),
  'RandomRotation': _made_of(L.RandomRotation, 0.0),
  'RandomTranslation': _made_of(L.RandomTranslation, 0.0, 0.0),
  'RandomWidth': lambda x: L.GlobalMaxPooling2D()(L.RandomWidth(0.0)(x)),
  'RandomZoom': _made_of(L.RandomZoom, 0.0),
  'SpatialDropout1D': _of_rows(L.SpatialDropout1D, 0.0),
  'SpatialDropout2D': _made_of(L.SpatialDropout2D, 0.0),
  'SpatialDropout3D': _of_volume(L.SpatialDropout3D, 0.0),
}

REFUSED: Mapping[str, Refusal] = {
  'IntegerLookup': Refusal(
    lambda x: L.IntegerLookup(vocabulary=list(range(9)))(_tokens(x)),
    'lookup table',
    'A lookup table is not a weight.',
  ),
  'SpectralNormalization': Refusal(
    lambda x: L.SpectralNormalization(L.Conv2D(2, 3))(x),
    "layer 'spectral_normalization.*as a Python `bool`",
    'Keras 2.14 cannot train it in a graph either.',
  ),
}

# Not tried, because these are no layers that take numbers.
OTHERS: Mapping[str, str] = {
  'AbstractRNNCell': 'Base class.',
  'DenseFeatures': 'Takes a dictionary of feature columns.',
  'InputSpec': 'Not a layer.',
  'StringLookup': 'Takes text.',
  'TextVectorization': 'Takes text.',
  'Wrapper': 'Base class.',
}

# Trained applications, one of each kind, with their image sizes.
APPLICATIONS: Mapping[str, int] = {
  'ConvNeXtTiny': 32,
  'DenseNet121': 32,
  'InceptionV3': 75,
  'MobileNet': 32,
  'MobileNetV2': 32,
  'MobileNetV3Large': 32,
  'MobileNetV3Small': 32,
  'NASNetMobile': 32,
  'RegNetX002': 32,
  'RegNetY002': 32,
  'ResNet50': 32,
  'ResNet50V2': 32,
  'VGG16': 32,
  'Xception': 71,
}


# Built, not compared. On images that differ by 1e-7, Keras's own weights of
# EfficientNetB0 differ by 0.4 after three steps with a learning rate of 0.001.
SENSITIVE = ('EfficientNetB0', 'EfficientNetV2B0', 'ResNetRS50')


def layer_model(layer_fn: LayerFn) -> tuple[tf.keras.Model, tf.keras.Model]:
  """Returns an extractor of `IMAGE`s with a layer, and a head."""
  images = tf.keras.Input(IMAGE)
  hidden = layer_fn(L.Conv2D(IMAGE[2], 1, activation='tanh')(images))
  features = L.Dense(FEATURE_DIM)(L.Flatten()(tf.cast(hidden, tf.float32)))
  return tf.keras.Model(images, features), _head(FEATURE_DIM)


def application_model(name: str) -> tuple[tf.keras.Model, tf.keras.Model]:
  """Returns an application without its top and without dropout, and a head."""
  base = getattr(tf.keras.applications, name)(
    include_top=False,
    weights=None,
    input_shape=(image_size(name), image_size(name), 3),
    pooling='avg',
  )
  for layer in base._flatten_layers():  # pylint: disable=protected-access
    if isinstance(layer, L.Dropout):
      layer.rate = 0.0
  return base, _head(base.output_shape[1])


def image_size(name: str) -> int:
  """Returns the height and width of images for an application."""
  return APPLICATIONS.get(name, 75 if name == 'InceptionResNetV2' else 32)


def large_applications() -> list[str]:
  """Returns the applications that are built, but not trained."""
  trained = {*APPLICATIONS, *SENSITIVE}
  return [name for name in application_names() if name not in trained]


def takes_pixels(keras_model: tf.keras.Model) -> bool:
  """Returns whether a model itself scales images from [0, 255]."""
  _, first, *_ = keras_model.layers  # The first layer is the input.
  return isinstance(first, L.Rescaling | L.Normalization)


def _head(feature_dim: int) -> tf.keras.Model:
  return tf.keras.Sequential(
    [tf.keras.Input([feature_dim]), L.Dense(NUM_CLASSES)]
  )


def layer_classes() -> list[str]:
  """Returns the names of all classes of keras.layers, without aliases."""
  return sorted(
    {
      value.__name__
      for value in vars(L).values()
      if inspect.isclass(value) and hasattr(L, value.__name__)
    }
  )


def application_names() -> list[str]:
  """Returns the names of all models of keras.applications."""
  return sorted(
    name
    for name, value in vars(tf.keras.applications).items()
    if inspect.isfunction(value)
  )
