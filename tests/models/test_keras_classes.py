"""Keras models survive layers that others build within a TF1 graph."""

import numpy as np
import pytest
import tensorflow as tf

from tff_fedsa.data import input_spec
from tff_fedsa.models import families
from tff_fedsa.models import keras_classes


def _build_within_a_graph():
  """As `tff.learning` does when it calls a `model_fn`."""
  with tf.Graph().as_default():
    tf.keras.Sequential(
      [
        tf.keras.layers.Flatten(input_shape=(8, 8, 1)),
        tf.keras.layers.Dense(3, activation='relu'),
      ]
    )


def _model():
  return tf.keras.Sequential(
    [
      tf.keras.Input([8, 8, 1]),
      tf.keras.layers.Flatten(),
      tf.keras.Sequential([tf.keras.layers.Dense(3, activation='relu')]),
    ]
  )


def test_what_a_graph_breaks_is_mended():
  model, images = _model(), np.ones([2, 8, 8, 1], np.float32)
  expected = model(images).numpy()
  _build_within_a_graph()
  with pytest.raises(ValueError, match='invalid state'):
    model(images)
  keras_classes.restore(model)
  np.testing.assert_array_equal(model(images), expected)


def test_it_changes_nothing_where_nothing_is_broken():
  model, images = _model(), np.ones([2, 8, 8, 1], np.float32)
  expected = model(images).numpy()
  keras_classes.restore(model)
  np.testing.assert_array_equal(model(images), expected)
  assert len(model.layers) == 2


@pytest.mark.parametrize('family', ['digits_mlp', 'digits3'])
def test_models_of_clients_can_be_built_before_those_of_fed_avg(family):
  models = families.build_family(family, (8, 8, 1), 10, feature_dim=8)
  _build_within_a_graph()
  spec = input_spec.InputSpec((8, 8, 1))
  images = np.zeros([2, 8, 8, 1], np.uint8)
  for model in models:
    forward = model.build_forward(spec)
    weights = tf.constant(model.initial_weights(0))
    features, logits = forward(*model.split(weights), images)
    assert features.shape == (2, 8) and logits.shape == (2, 10)
