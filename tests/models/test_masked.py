"""Models of masked series: padding changes nothing."""

import numpy as np
import pytest
import tensorflow as tf

from tff_fedsa.data import input_spec
from tff_fedsa.data import ragged
from tff_fedsa.models import families
from tff_fedsa.models import own_models

_RNG = np.random.default_rng(0)
_SERIES = [
  _RNG.normal(size=[length, 4]).astype(np.float32) for length in (47, 50, 1, 9)
]
_SENSOR = ('sensor_cnn', 'sensor_fcn', 'sensor_gru')


def _model(name, steps, *, masked=True):
  (model,) = families.build_family(
    name, (steps, 4 + masked), 3, 8, masked=masked
  )
  return model


@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('name', _SENSOR)
def test_features_do_not_depend_on_the_amount_of_padding(name, training):
  weights = _model(name, 50).initial_weights(3)
  features = []
  for steps in (50, 83):
    extractor, _ = _model(name, steps).to_keras(weights)
    given = ragged.pad_series(_SERIES, steps)
    features.append(extractor(given, training=training).numpy())
    if training:  # Statistics of BatchNorm count steps only, too.
      state = [v.numpy() for v in extractor.non_trainable_variables]
      features[-1] = np.concatenate([features[-1].ravel(), *state])
  np.testing.assert_allclose(features[1], features[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('name', _SENSOR)
def test_series_without_padding_have_the_features_of_no_mask(name):
  series = np.stack([_SERIES[1], _SERIES[1][::-1]])[:, :48]
  masked, plain = _model(name, 48), _model(name, 48, masked=False)
  weights = plain.initial_weights(3)
  # So models of series without padding fit as initial weights.
  np.testing.assert_array_equal(masked.initial_weights(3), weights)
  for training in (False, True):
    np.testing.assert_allclose(
      masked.to_keras(weights)[0](
        ragged.pad_series(series, 48), training=training
      ),
      plain.to_keras(weights)[0](series, training=training),
      rtol=1e-4,
      atol=1e-5,
    )


def test_gradients_do_not_depend_on_the_amount_of_padding():
  weights = _model('sensor_fcn', 50).initial_weights(3)
  found = []
  for steps in (50, 80):
    model = _model('sensor_fcn', steps)
    spec = input_spec.InputSpec((steps, 5), 'float32', 2.0, 1.0, masked=True)
    step = model.build_train_step(
      lambda features, *_: {'loss': tf.reduce_sum(features**2)},
      batch_size=4,
      context_specs={},
      input_spec=spec,
    )
    output = step(
      *model.split(tf.constant(weights)),
      tf.constant(ragged.pad_series(_SERIES, steps)),
      tf.constant([0, 1, 2, 0]),
      {},
      tf.constant([1, 2]),
    )
    found.append(np.concatenate([g.numpy().ravel() for g in output.gradients]))
  scale = np.abs(found[0]).max()
  assert scale > 0.0
  np.testing.assert_allclose(found[1], found[0], atol=1e-5 * scale)


def test_one_of_several_inputs_may_be_masked():
  features = []
  for steps in (50, 80):
    shape = {'walk': (steps, 5), 'run': (50, 4)}
    (model,) = families.build_family('mixed1', shape, 3, 8, masked=('walk',))
    extractor, _ = model.to_keras(model.initial_weights(3))
    features.append(
      extractor(
        {
          'walk': ragged.pad_series(_SERIES, steps),
          'run': np.ones([4, 50, 4], np.float32),
        }
      )
    )
  np.testing.assert_allclose(features[1], features[0], rtol=1e-5, atol=1e-6)


def test_other_architectures_get_the_mask_as_a_channel():
  model = _model('harcnn1', 50)
  extractor, _ = model.to_keras(model.initial_weights(0))
  given = ragged.pad_series(_SERIES, 50)
  flipped = given.copy()
  flipped[..., -1] = 1.0 - flipped[..., -1]
  assert np.abs(extractor(given) - extractor(flipped)).max() > 1e-4


def test_own_keras_models_get_the_mask_as_their_last_channel():
  given = tf.keras.Input((50, 5))
  values, mask = tf.split(given, [4, 1], axis=-1)
  mean = tf.reduce_sum(values * mask, 1) / tf.reduce_sum(mask, 1)
  own = tf.keras.Model(given, tf.keras.layers.Dense(3)(mean))
  (model,) = own_models.to_functional([own], (50, 5), 3)
  spec = input_spec.InputSpec((50, 5), 'float32', 2.0, 1.0, masked=True)
  features, _ = model.build_forward(spec)(
    *model.split(tf.constant(model.initial_weights(0))),
    tf.constant(ragged.pad_series(_SERIES, 50)),
  )
  expected = [2.0 * series.mean(axis=0) + 1.0 for series in _SERIES]
  np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)
