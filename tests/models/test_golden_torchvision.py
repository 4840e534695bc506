"""Forward passes of our architectures against torchvision's, weights equal.

testdata/torchvision/README.md says how both sides get their weights.
"""

import json

import numpy as np
import pytest
import tensorflow as tf

from tests import golden
from tff_fedsa.data import input_spec
from tff_fedsa.models import architectures
from tff_fedsa.models import families  # Registers the architectures.

del families

_DIRECTORY = golden.TESTDATA / 'torchvision'


def _arrays():
  with np.load(_DIRECTORY / 'torchvision.npz') as arrays:
    return dict(arrays)


def _torch_weights(model):
  """The weights by formula: name -> array in torch's layout."""
  description = json.loads((_DIRECTORY / 'state_dicts.json').read_text())
  weights = {}
  for k, (name, shape) in enumerate(description[model]['tensors'].items()):
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


def _keras_layout(array):
  if array.ndim == 4:
    return array.transpose(2, 3, 1, 0)
  return array.T


def _images(size):
  shape = [4, 3, size, size]
  images = np.sin(0.1 * np.arange(np.prod(shape))).reshape(shape)
  return images.transpose(0, 2, 3, 1).astype(np.float32)


def _set_fedavg_cnn(extractor, weights):
  # Torch flattens [64, 5, 5], Keras [5, 5, 64].
  dense = weights['dense.weight'].reshape([512, 64, 5, 5])
  weights['dense.weight'] = dense.transpose(0, 2, 3, 1).reshape([512, -1])
  extractor.set_weights([_keras_layout(w) for w in weights.values()])


def _set_resnet10(extractor, weights):
  """Assigns layers in the order of their construction.

  Both sides list a block's two convolutions before its shortcut's.
  """
  layers = _by_construction(extractor)
  names = list(weights)
  position = 0
  while position < len(names):
    layer = next(layers)
    count = len(layer.weights)
    group = names[position : position + count]
    layer.set_weights([_keras_layout(weights[name]) for name in group])
    position += count
  assert next(layers, None) is None


def _by_construction(extractor):
  def number(layer):
    suffix = layer.name.rsplit('_', 1)[-1]
    return int(suffix) if suffix.isdigit() else 0

  kinds = (tf.keras.layers.Conv2D, tf.keras.layers.BatchNormalization)
  columns = [
    sorted((x for x in extractor.layers if isinstance(x, kind)), key=number)
    for kind in kinds
  ]
  assert len(columns[0]) == len(columns[1])
  for pair in zip(*columns):
    yield from pair


_SETTERS = {'fedavg_cnn': _set_fedavg_cnn, 'resnet10': _set_resnet10}
_CASES = [('fedavg_cnn', 32), ('resnet10', 32), ('resnet10', 64)]


@pytest.fixture(scope='module', params=_CASES, ids=lambda c: f'{c[0]}_{c[1]}')
def case(request):
  name, size = request.param
  model = architectures.build(name, (size, size, 3), 10, 512)
  keras_model = model.to_keras(model.initial_weights(0))
  _SETTERS[name](keras_model.feature_extractor, _torch_weights(name))
  flat = tf.constant(model.weights_from_keras(keras_model))
  spec = input_spec.InputSpec((size, size, 3), 'float32', 1.0, 0.0)
  return f'{name}_{size}', model, model.split(flat), spec


def test_inference_features(case):
  name, model, weights, spec = case
  features, _ = model.build_forward(spec)(*weights, _images(spec.shape[0]))
  golden.assert_close(features, _arrays()[f'{name}_eval'], 1e-4)


def test_training_features_and_statistics(case):
  name, model, weights, spec = case
  step = model.build_train_step(
    lambda features, logits, labels, head_fn, context: {
      'loss': tf.reduce_sum(logits)
    },
    batch_size=4,
    context_specs={},
    input_spec=spec,
  )
  output = step(
    *weights, _images(spec.shape[0]), np.zeros(4, np.int32), {}, [0, 0]
  )
  arrays = _arrays()
  golden.assert_close(output.features, arrays[f'{name}_train'], 1e-4)
  if model.state_specs:
    statistics = [np.asarray(tensor) for tensor in output.state]
    golden.assert_close(
      statistics[0], arrays[f'{name}_train_first_running_mean'], 1e-4
    )
    # Unbiased like torch's: Keras's fused BatchNorm does it for images.
    golden.assert_close(
      statistics[-1], arrays[f'{name}_train_last_running_var'], 1e-4
    )


@pytest.mark.parametrize('name', list(_SETTERS))
def test_number_of_weights(name):
  description = json.loads((_DIRECTORY / 'state_dicts.json').read_text())
  model = architectures.build(name, (32, 32, 3), 10, 512)
  without_head = model.num_trainable - (512 * 10 + 10)
  expected = description[name]['trainable_parameters_without_head']
  assert without_head == expected
