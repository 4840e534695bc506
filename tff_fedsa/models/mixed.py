"""Small architectures for several inputs, of any number and kinds."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from etils import epy

from tff_fedsa.data import input_spec as input_spec_lib
from tff_fedsa.models import architectures
from tff_fedsa.runs import errors

with epy.lazy_imports():
  import tensorflow as tf

  from tff_fedsa.models import assembly
  from tff_fedsa.models import functional

# Three small architectures for each kind of inputs, the families of one input.
ENCODERS = {
  'image': ('digits_mlp', 'digits_cnn', 'digits_cnn_bn'),
  'table': ('table_mlp', 'table_resnet', 'table_transformer'),
  'series': ('sensor_cnn', 'sensor_fcn', 'sensor_gru'),
  'tokens': ('text_mean', 'text_cnn', 'text_transformer'),
}
NAMES = ('mixed1', 'mixed2', 'mixed3')

# Features of each input.
_WIDTH = 64


def _register(index: int) -> None:
  """Registers the architecture that joins the encoders of a number."""

  @architectures.register_architecture(NAMES[index])
  def mixed(
    input_shape: Mapping[str, tuple[int, ...]],
    num_classes: int,
    feature_dim: int,
    vocabulary_sizes: Mapping[str, int],
    embedding_width: int | None = None,
    masked: Collection[str] = (),
  ) -> functional.KerasClientModel:
    if not isinstance(input_shape, Mapping):
      raise errors.UserError(
        f'Expected several inputs by name, found one of shape {input_shape}.'
      )
    given, encoded = {}, []
    for number, (name, shape) in enumerate(input_shape.items()):
      size = vocabulary_sizes.get(name)
      dtype = 'float32' if size is None else 'int32'
      kind = input_spec_lib.kind_of(shape, dtype)
      if kind not in ENCODERS:
        raise errors.UserError(
          f'The input {name!r} of shape {shape} is of no known kind.'
        )
      member = ENCODERS[kind][index]
      keras_model = architectures.build_keras(
        member,
        shape,
        num_classes,
        _WIDTH,
        size,
        embedding_width,
        name in masked,
      )
      extractor = keras_model.feature_extractor
      given[name] = tf.keras.Input(shape, dtype=dtype)
      # Names of layers differ within a model.
      named = tf.keras.Model(
        extractor.inputs, extractor.outputs, name=f'input{number}_{member}'
      )
      encoded.append(named(given[name]))
    hidden = encoded[0]
    if len(encoded) > 1:
      hidden = tf.keras.layers.Concatenate()(encoded)
    hidden = tf.keras.layers.ReLU()(hidden)
    return assembly.dense_client_model(given, hidden, num_classes, feature_dim)


for _index in range(len(NAMES)):
  _register(_index)
