"""Initial weights are distributed as PyTorch's and torchvision's."""

import numpy as np
import pytest

from tff_fedsa.models import architectures
from tff_fedsa.models import families  # Registers the architectures.

del families


def _assert_uniform(values, limit):
  values = np.ravel(values)
  assert np.abs(values).max() <= limit
  # The standard deviation of U(-a, a) is a / sqrt(3); some biases are only 32.
  assert abs(values.std() * np.sqrt(3) / limit - 1) < 0.3
  assert abs(values.mean()) < 0.3 * limit


def test_dense_and_convolutions_are_uniform_by_fan_in():
  model = architectures.build('fedavg_cnn', (32, 32, 3), 10, 512)
  keras_model = model.to_keras(model.initial_weights(0))
  layers = [x for half in keras_model for x in half.layers if x.weights]
  fan_ins = [5 * 5 * 3, 5 * 5 * 32, 5 * 5 * 64, 512]
  assert len(layers) == len(fan_ins)
  for layer, fan_in in zip(layers, fan_ins):
    _assert_uniform(layer.kernel, 1 / np.sqrt(fan_in))
    if layer.bias.shape[0] >= 32:
      _assert_uniform(layer.bias, 1 / np.sqrt(fan_in))
    assert np.abs(layer.bias).min() > 0, 'biases are drawn too'


@pytest.mark.parametrize('name', ['resnet8', 'resnet10'])
def test_resnet_kernels_are_normal_by_fan_out(name):
  model = architectures.build(name, (32, 32, 3), 10, 512)
  keras_model = model.to_keras(model.initial_weights(0))
  kernels = 0
  for layer in keras_model.feature_extractor.layers:
    if hasattr(layer, 'kernel'):
      kernels += 1
      height, width, _, filters = layer.kernel.shape
      expected = np.sqrt(2 / (height * width * filters))
      kernel = np.asarray(layer.kernel)
      assert abs(kernel.std() / expected - 1) < 0.05
      # Not truncated at two standard deviations.
      assert np.abs(kernel).max() > 2.5 * expected
      assert layer.bias is None
    elif hasattr(layer, 'gamma'):
      assert (layer.momentum, layer.epsilon) == (0.9, 1e-5)
      np.testing.assert_array_equal(layer.gamma, 1)
  # The stem, two per block, one for each shortcut that changes shape.
  blocks = {'resnet8': 3, 'resnet10': 4}[name]
  assert kernels == 1 + 2 * blocks + (blocks - 1)
