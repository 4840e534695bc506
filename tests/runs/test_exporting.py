"""Exported Keras models say what the functional models say."""

import numpy as np
import pytest
import tensorflow as tf

from tff_fedsa.client import client_state
from tff_fedsa.data import input_spec
from tff_fedsa.models import architectures
from tff_fedsa.runs import exporting
from tff_fedsa.server import averaging
from tff_fedsa.server import server_model

_SPEC = input_spec.InputSpec((8, 8, 1))


@pytest.fixture(scope='module')
def model():
  return architectures.build('digits_mlp', _SPEC.model_shape, 10, 16)


@pytest.fixture(scope='module')
def images():
  rng = np.random.default_rng(0)
  return rng.integers(0, 256, [20, *_SPEC.shape]).astype(np.uint8)


def _random(*shape, seed=1):
  return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _state(model, seed=3):
  return client_state.new_client_state(
    model, 0, model.initial_weights(seed), client_id=0
  )


def _forward(model, weights, images, spec=_SPEC):
  """Returns features and logits as processes compute them."""
  features, logits = model.build_forward(spec)(
    *model.split(tf.constant(weights)), tf.constant(images)
  )
  return features.numpy(), logits.numpy()


def _saved_and_loaded(exported, path):
  exported.save(path)
  return tf.keras.models.load_model(path)


def test_a_loaded_model_scores_as_the_functional_one(model, images, tmp_path):
  state = _state(model)
  features, logits = _forward(model, state.weights, images)
  # Centers are features of images; without the fifth class its image is
  # another's.
  known = server_model.ServerModel(
    anchors=features[10:],
    prototypes=features[:10],
    present=np.arange(10) != 4,
  )
  exported = exporting.to_keras(model, state, known, _SPEC)
  assert exported.name == model.name
  loaded = _saved_and_loaded(exported, tmp_path / 'model.keras')
  # Pixels as stored: scaling is a layer.
  found = {name: t.numpy() for name, t in loaded(images).items()}
  assert set(found) == {'features', 'head', 'prototype', 'anchor'}
  np.testing.assert_allclose(found['features'], features, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(found['head'], logits, rtol=1e-4, atol=1e-5)
  # Scores are squared distances but for what is the same for all classes.
  norms = np.square(features).sum(axis=1, keepdims=True)
  for name, centers in (
    ('anchor', known.anchors),
    ('prototype', known.prototypes),
  ):
    squared = np.square(features[:, None] - centers).sum(axis=2)
    kept = known.present if name == 'prototype' else np.ones(10, bool)
    np.testing.assert_allclose(
      (norms - found[name])[:, kept], squared[:, kept], rtol=1e-3, atol=1e-3
    )
    np.testing.assert_array_equal(
      found[name].argmax(axis=1),
      np.where(kept, squared, np.inf).argmin(axis=1),
    )
  of_own_images = found['prototype'][:10].argmax(axis=1)
  np.testing.assert_array_equal(of_own_images == np.arange(10), known.present)


def test_the_servers_head_is_one_more_classifier(model, images, tmp_path):
  (kernel, bias) = head = _random(16, 10), _random(10, seed=2)
  state = _state(model)
  exported = exporting.to_keras(
    model, state, server_model.HeadModel(head), _SPEC
  )
  loaded = _saved_and_loaded(exported, tmp_path / 'model.keras')
  found = loaded(images)
  assert set(found) == {'features', 'head', 'global_head'}
  features, logits = _forward(model, state.weights, images)
  np.testing.assert_allclose(found['head'], logits, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(
    found['global_head'], features @ kernel + bias, rtol=1e-4, atol=1e-4
  )


def test_averaged_weights_take_the_place_of_the_clients(model, images):
  weights = model.initial_weights(5)
  known = averaging.with_weights((), weights)
  _, logits = _forward(model, weights, images)
  # Its own state has no part in it, and need not be there.
  for state in (None, _state(model)):
    exported = exporting.to_keras(model, state, known, _SPEC)
    np.testing.assert_allclose(
      exported(images)['head'], logits, rtol=1e-4, atol=1e-5
    )
  _, own = _forward(model, _state(model).weights, images)
  assert np.abs(own - logits).max() > 0.01


def test_resizing_and_channels_are_layers(tmp_path):
  spec = input_spec.InputSpec((5, 6, 1), size=(8, 8), channels=3)
  model = architectures.build('digits_mlp', spec.model_shape, 10, 16)
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, [4, *spec.shape]).astype(np.uint8)
  exported = exporting.to_keras(model, _state(model), (), spec)
  loaded = _saved_and_loaded(exported, tmp_path / 'model.keras')
  assert loaded.input_shape == (None, 5, 6, 1)
  _, logits = _forward(model, _state(model).weights, images, spec)
  np.testing.assert_allclose(
    loaded(images)['head'], logits, rtol=1e-4, atol=1e-5
  )
