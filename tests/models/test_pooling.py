"""Adaptive average pooling against torch's, and saved with a Keras model."""

import re

import numpy as np
import pytest
import tensorflow as tf

from tests import golden
from tff_fedsa.models import pooling


def _golden_cases():
  with np.load(golden.TESTDATA / 'torchvision' / 'torchvision.npz') as arrays:
    return {
      name: arrays[name] for name in arrays if name.startswith('adaptive_pool')
    }


@pytest.mark.parametrize('name', list(_golden_cases()))
def test_equals_torch(name):
  sizes = re.fullmatch(r'adaptive_pool_(\d+)_to_(\d+)', name).groups()
  num_inputs, num_outputs = map(int, sizes)
  inputs = np.sin(np.arange(2 * num_inputs)).reshape([2, -1])
  inputs = tf.constant(inputs, tf.float32)
  pooled = pooling.AdaptiveAveragePooling(num_outputs)(inputs)
  golden.assert_close(pooled, _golden_cases()[name], 1e-6)


@pytest.mark.parametrize(
  'num_inputs, num_outputs', [(7, 3), (3, 7), (10, 4), (5, 5), (1, 3), (6, 1)]
)
def test_any_sizes_follow_the_definition(num_inputs, num_outputs):
  inputs = np.random.default_rng(0).normal(size=[4, num_inputs])
  expected = [
    inputs[
      :,
      int(np.floor(i * num_inputs / num_outputs)) : int(
        np.ceil((i + 1) * num_inputs / num_outputs)
      ),
    ].mean(axis=1)
    for i in range(num_outputs)
  ]
  pooled = pooling.AdaptiveAveragePooling(num_outputs)(
    tf.constant(inputs, tf.float32)
  )
  golden.assert_close(pooled, np.stack(expected, axis=1), 1e-6)


def test_flattens_and_skips_what_fits():
  images = tf.keras.Input([2, 3, 4])
  assert pooling.adaptive_average_pooling(images, 8).shape == (None, 8)
  model = tf.keras.Model(images, pooling.adaptive_average_pooling(images, 24))
  assert [type(layer).__name__ for layer in model.layers] == [
    'InputLayer',
    'Flatten',
  ]


def test_saved_model_loads(tmp_path):
  images = tf.keras.Input([2, 3, 4])
  model = tf.keras.Model(images, pooling.adaptive_average_pooling(images, 9))
  assert not model.weights
  model.save(tmp_path / 'model.keras')
  loaded = tf.keras.models.load_model(tmp_path / 'model.keras')
  values = tf.random.stateless_normal([5, 2, 3, 4], [0, 1])
  np.testing.assert_array_equal(loaded(values), model(values))


def test_needs_a_positive_size():
  with pytest.raises(ValueError, match='feature_dim >= 1, found 0'):
    pooling.AdaptiveAveragePooling(0)
