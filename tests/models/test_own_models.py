"""Own Keras models become functional models with the weights that they have."""

import numpy as np
import pytest
import tensorflow as tf

from tff_fedsa.models import own_models

_SHAPE = (4, 4, 1)


def _classifier(**last):
  return tf.keras.Sequential(
    [
      tf.keras.Input(_SHAPE),
      tf.keras.layers.Flatten(),
      tf.keras.layers.Dense(5, activation='relu'),
      tf.keras.layers.Dense(3, **last),
    ],
    name='mine',
  )


def test_a_classifier_is_cut_before_its_last_layer():
  keras_model = _classifier()
  (model,) = own_models.to_functional([keras_model], _SHAPE, 3)
  assert (model.name, model.feature_dim, model.num_classes) == ('mine', 5, 3)
  images = np.random.default_rng(0).normal(size=[6, *_SHAPE]).astype(np.float32)
  halves = model.to_keras(model.initial_weights(7))
  np.testing.assert_allclose(
    halves.head(halves.feature_extractor(images)),
    keras_model(images),
    rtol=1e-6,
  )


def test_pairs_and_functional_models():
  (model,) = own_models.to_functional([_classifier()], _SHAPE, 3)
  halves = model.to_keras(model.initial_weights(0))
  found = own_models.to_functional([model, tuple(halves)], _SHAPE, 3)
  assert found[0] is model and found[1].num_weights == model.num_weights


@pytest.mark.parametrize(
  'models, error, message',
  [
    ([], ValueError, 'at least one model'),
    (['digits_cnn'], TypeError, 'Model 0: expected a Keras model'),
    ([_classifier(activation='softmax')], ValueError, "activation='softmax'"),
    (
      [
        tf.keras.Sequential([tf.keras.Input(_SHAPE), tf.keras.layers.Flatten()])
      ],
      ValueError,
      'whose last layer is Dense',
    ),
  ],
)
def test_other_models_are_refused(models, error, message):
  with pytest.raises(error, match=message):
    own_models.to_functional(models, _SHAPE, 3)


@pytest.mark.parametrize('shape, classes', [((8, 8, 1), 3), (_SHAPE, 4)])
def test_models_must_fit_the_data(shape, classes):
  with pytest.raises(ValueError, match="Model 'mine': expected inputs"):
    own_models.to_functional([_classifier()], shape, classes)
