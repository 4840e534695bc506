"""Forward passes of our architectures against torchvision's, weights equal.

testdata/torchvision/README.md says how both sides get their weights, and why
training mode of deep models is compared in double precision.
"""

import functools
import json

import numpy as np
import pytest
import tensorflow as tf

from tests import golden
from tff_fedsa.data import input_spec
from tff_fedsa.models import architectures
from tff_fedsa.models import families  # Registers the architectures.
from tff_fedsa.models import torch_weights

del families

_DIRECTORY = golden.TESTDATA / 'torchvision'
_slow = functools.partial(pytest.param, marks=pytest.mark.slow)


@functools.cache
def _arrays(file='torchvision'):
  with np.load(_DIRECTORY / f'{file}.npz') as arrays:
    return dict(arrays)


@functools.cache
def _descriptions():
  return json.loads((_DIRECTORY / 'state_dicts.json').read_text())


def _torch_weights(model, image_size):
  """The weights by formula: name -> array in torch's layout."""
  weights = {}
  for k, (name, shape) in enumerate(_descriptions()[model]['tensors'].items()):
    if name == 'encoder.pos_embedding':
      patch_size = int(model.rpartition('_')[2])
      shape = [1, (image_size // patch_size) ** 2 + 1, 768]
    s = np.sin(0.7 * np.arange(np.prod(shape)) + k).reshape(shape)
    if len(shape) > 1:
      weights[name] = s * np.sqrt(4 / np.prod(shape[1:]))
    elif name.endswith('running_var'):
      weights[name] = 1 + 0.5 * s**2
    elif name.endswith('running_mean'):
      weights[name] = 0.1 * s
    elif name.endswith('weight'):
      weights[name] = 1 + 0.1 * s
    else:
      weights[name] = 0.1 * s
  return weights


def _images(size):
  shape = [4, 3, size, size]
  images = np.sin(0.1 * np.arange(np.prod(shape))).reshape(shape)
  return images.transpose(0, 2, 3, 1)


def _assign_fedavg_cnn(extractor, weights):
  # Torch flattens [64, 5, 5], Keras [5, 5, 64].
  dense = weights['dense.weight'].reshape([512, 64, 5, 5])
  weights['dense.weight'] = dense.transpose(0, 2, 3, 1).reshape([512, -1])
  extractor.set_weights(
    [w.transpose(2, 3, 1, 0) if w.ndim == 4 else w.T for w in weights.values()]
  )


def _assign(extractor, name, size):
  weights = _torch_weights(name, size)
  if name == 'fedavg_cnn':
    _assign_fedavg_cnn(extractor, weights)
  else:
    torch_weights.assign(extractor, weights)


def _build(name, size):
  """Returns a functional model, its golden weights and its input spec."""
  feature_dim = _feature_dim(name)
  model = architectures.build(name, (size, size, 3), 10, feature_dim)
  keras_model = model.to_keras(np.zeros([model.num_weights], np.float32))
  _assign(keras_model.feature_extractor, name, size)
  flat = tf.constant(model.weights_from_keras(keras_model))
  spec = input_spec.InputSpec((size, size, 3), 'float32', 1.0, 0.0)
  return model, model.split(flat), spec


def _feature_dim(name):
  arrays = _arrays('double' if name.startswith('vit') else 'torchvision')
  return arrays[f'{name}_32_eval'].shape[1]


@pytest.mark.parametrize(
  'name, size, file',
  [
    ('fedavg_cnn', 32, 'torchvision'),
    ('resnet10', 32, 'torchvision'),
    ('resnet18', 32, 'torchvision'),
    _slow('mobilenet_v2', 32, 'torchvision'),
    _slow('resnet10', 64, 'torchvision'),
    _slow('resnet18', 64, 'torchvision'),
    _slow('resnet50', 32, 'torchvision'),
    _slow('resnet50', 64, 'torchvision'),
    _slow('mobilenet_v2', 64, 'torchvision'),
    _slow('googlenet', 32, 'torchvision'),
    _slow('googlenet', 64, 'torchvision'),
    _slow('vit_b_16', 32, 'double'),
    _slow('vit_b_32', 64, 'double'),
  ],
)
def test_inference_features(name, size, file):
  model, weights, spec = _build(name, size)
  images = tf.constant(_images(size), tf.float32)
  features, _ = model.build_forward(spec)(*weights, images)
  golden.assert_close(features, _arrays(file)[f'{name}_{size}_eval'], 1e-4)


@pytest.mark.parametrize(
  'name, size',
  [
    ('fedavg_cnn', 32),
    ('resnet10', 32),
    _slow('resnet10', 64),
    _slow('resnet18', 64),
  ],
)
def test_training_features_and_statistics(name, size):
  model, weights, spec = _build(name, size)
  step = model.build_train_step(
    lambda features, logits, labels, head_fn, context: {
      'loss': tf.reduce_sum(logits)
    },
    batch_size=4,
    context_specs={},
    input_spec=spec,
  )
  output = step(
    *weights,
    tf.constant(_images(size), tf.float32),
    np.zeros(4, np.int32),
    {},
    [0, 0],
  )
  expected = {
    part: _arrays().get(f'{name}_{size}_train{part}')
    for part in ('', '_first_running_mean', '_last_running_var')
  }
  golden.assert_close(output.features, expected[''], 1e-4)
  if model.state_specs:
    statistics = [np.asarray(tensor) for tensor in output.state]
    golden.assert_close(statistics[0], expected['_first_running_mean'], 1e-4)
    # Unbiased like torch's: Keras's fused BatchNorm does it for images.
    golden.assert_close(statistics[-1], expected['_last_running_var'], 1e-4)


@pytest.fixture
def double_precision():
  tf.keras.backend.set_floatx('float64')
  yield
  tf.keras.backend.set_floatx('float32')


@pytest.mark.parametrize(
  'name, size',
  [
    ('resnet18', 32),
    ('mobilenet_v2', 32),
    _slow('googlenet', 32),
    _slow('resnet50', 32),
    _slow('resnet50', 64),
    _slow('mobilenet_v2', 64),
    _slow('googlenet', 64),
  ],
)
def test_training_features_in_double_precision(double_precision, name, size):
  """Tests the Keras model; the functional one computes the same in float32."""
  extractor, _ = architectures.build_keras(
    name, (size, size, 3), 10, _feature_dim(name)
  )
  _assign(extractor, name, size)
  for layer in extractor.layers:
    if isinstance(layer, tf.keras.layers.Dropout):
      assert layer.rate == 0.2
      layer.rate = 0.0
  features = extractor(_images(size), training=True)
  assert features.dtype == tf.float64
  expected = _arrays('double')[f'{name}_{size}_train']
  golden.assert_close(features, expected, 1e-8)
  # Statistics of the first BatchNorm do not suffer from what is deep.
  first = next(v for v in extractor.weights if 'moving_mean' in v.name)
  golden.assert_close(
    first, _arrays()[f'{name}_{size}_train_first_running_mean'], 1e-6
  )


def test_weights_of_another_model_are_refused():
  extractor, _ = architectures.build_keras('resnet10', (32, 32, 3), 10, 512)
  before = extractor.get_weights()
  weights = _torch_weights('resnet18', 32)
  del weights['conv1.weight']
  weights['bn1.weight'] = np.zeros(7)
  with pytest.raises(
    ValueError,
    match='conv1.weight is missing; bn1.weight: expected .64,.*found .7,.*2 in',
  ):
    torch_weights.assign(extractor, weights)
  for ours, theirs in zip(extractor.get_weights(), before):
    np.testing.assert_array_equal(ours, theirs)
