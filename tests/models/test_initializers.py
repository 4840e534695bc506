"""Initial weights are distributed as PyTorch's and torchvision's."""

import numpy as np
import pytest
import tensorflow as tf

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


def _layers(name, shape=(32, 32, 3)):
  """Layers with weights of a new model, by name; the head's last."""
  tf.keras.utils.set_random_seed(0)
  extractor, head = architectures.build_keras(name, shape, 10, 512)
  layers = {layer.name: layer for layer in extractor.layers if layer.weights}
  layers['head'] = [layer for layer in head.layers if layer.weights][-1]
  return layers


def _assert_normal(values, stddev, tolerance=0.1):
  values = np.ravel(values)
  assert abs(values.std() / stddev - 1) < tolerance
  # Not truncated at two standard deviations.
  assert np.abs(values).max() > 2.5 * stddev


@pytest.mark.slow
def test_mobilenet_counts_the_filters_of_all_channels():
  layers = _layers('mobilenet_v2')
  # Kernels of a depthwise and of a pointwise convolution.
  depthwise = layers['features.8.conv.1.0'].depthwise_kernel
  assert depthwise.shape == (3, 3, 384, 1)
  _assert_normal(depthwise, np.sqrt(2 / (9 * 384)))
  _assert_normal(layers['features.18.0'].kernel, np.sqrt(2 / 1280))
  _assert_normal(layers['head'].kernel, 0.01)
  np.testing.assert_array_equal(layers['head'].bias, 0)
  assert layers['features.0.1'].momentum == 0.9
  assert layers['features.0.1'].epsilon == 1e-5


@pytest.mark.slow
def test_googlenet_is_normal_of_one_hundredth():
  layers = _layers('googlenet')
  _assert_normal(layers['conv1.conv'].kernel, 0.01)
  _assert_normal(layers['inception4c.branch2.1.conv'].kernel, 0.01)
  _assert_normal(layers['head'].kernel, 0.01)
  _assert_uniform(layers['head'].bias, 1 / np.sqrt(512))
  assert layers['conv1.bn'].epsilon == 1e-3
  assert layers['conv1.bn'].momentum == 0.9


@pytest.mark.slow
def test_vit_has_the_initializers_of_each_of_its_parts():
  layers = _layers('vit_b_16')
  _assert_normal(layers['conv_proj'].kernel, 1 / np.sqrt(16 * 16 * 3))
  np.testing.assert_array_equal(layers['conv_proj'].bias, 0)
  np.testing.assert_array_equal(layers['class_token'].token, 0)
  _assert_normal(layers['encoder.pos_embedding'].embedding, 0.02)
  block = 'encoder.layers.encoder_layer_7'
  attention = layers[f'{block}.self_attention']
  _assert_uniform(attention.in_proj.kernel, np.sqrt(6 / (768 + 3 * 768)))
  _assert_uniform(attention.out_proj.kernel, 1 / np.sqrt(768))
  for projection in (attention.in_proj, attention.out_proj):
    np.testing.assert_array_equal(projection.bias, 0)
  _assert_uniform(layers[f'{block}.mlp.0'].kernel, np.sqrt(6 / (768 + 3072)))
  _assert_normal(layers[f'{block}.mlp.3'].bias, 1e-6)
  assert layers[f'{block}.ln_1'].epsilon == 1e-6
