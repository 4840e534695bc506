"""Named normalizations, and input specs of one scale per channel."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf

from tff_fedsa.data import input_spec
from tff_fedsa.data import normalization
from tff_fedsa.data import sources
from tff_fedsa.runs import exporting

_RNG = np.random.default_rng(0)
_IMAGES = _RNG.integers(0, 200, (3000, 4, 4, 3)).astype(np.uint8)
_IMAGES[..., 1] //= 2
_SPEC = input_spec.InputSpec((4, 4, 3))


def _seen(spec, images):
  return spec.preprocess(tf.constant(images)).numpy()


def test_half_is_the_reference_and_changes_nothing():
  assert normalization.normalized(_SPEC, 'half', [_IMAGES]) is _SPEC
  expected = (_IMAGES[:5] / 255 - 0.5) / 0.5
  np.testing.assert_allclose(_seen(_SPEC, _IMAGES[:5]), expected, atol=1e-6)


def test_unit_and_imagenet():
  unit = normalization.normalized(_SPEC, 'unit', [_IMAGES])
  np.testing.assert_allclose(
    _seen(unit, _IMAGES[:5]), _IMAGES[:5] / 255, atol=1e-6
  )
  imagenet = normalization.normalized(_SPEC, 'imagenet', [_IMAGES])
  mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
  np.testing.assert_allclose(
    _seen(imagenet, _IMAGES[:5]), (_IMAGES[:5] / 255 - mean) / std, atol=1e-5
  )
  # Digits are 0..16.
  digits = input_spec.InputSpec((8, 8, 1), scale=1 / 8)
  unit = normalization.normalized(digits, 'unit', [])
  assert (unit.scale, unit.offset) == (1 / 16, 0.0)


def test_dataset():
  spec = normalization.normalized(_SPEC, 'dataset', [_IMAGES])
  seen = _seen(spec, _IMAGES)
  np.testing.assert_allclose(seen.mean((0, 1, 2)), 0.0, atol=1e-5)
  np.testing.assert_allclose(seen.std((0, 1, 2), np.float64), 1.0, atol=1e-5)
  mean, std = normalization.mean_and_std([_IMAGES[:7], _IMAGES[7:]])
  np.testing.assert_allclose(mean, _IMAGES.mean((0, 1, 2)))
  np.testing.assert_allclose(std, _IMAGES.std((0, 1, 2)))
  as_float = sources.from_arrays(
    _IMAGES.astype(np.float32), np.arange(3000) % 2
  ).input_spec
  spec = normalization.normalized(as_float, 'dataset', [_IMAGES])
  np.testing.assert_allclose(
    _seen(spec, _IMAGES.astype(np.float32)), seen, atol=1e-5
  )


def test_exported_models_scale_the_same_way():
  spec = normalization.normalized(_SPEC, 'imagenet', [])
  images = tf.keras.Input(spec.shape)
  model = tf.keras.Model(images, exporting._preprocessed(images, spec))
  restored = tf.keras.models.model_from_json(model.to_json())
  np.testing.assert_allclose(
    restored(_IMAGES[:5]).numpy(), _seen(spec, _IMAGES[:5]), atol=1e-5
  )


def test_what_does_not_fit_is_refused():
  with pytest.raises(
    ValueError, match='known: half, unit, imagenet, dataset, none'
  ):
    normalization.normalized(_SPEC, 'whole', [_IMAGES])
  grey = input_spec.InputSpec((4, 4, 1))
  with pytest.raises(ValueError, match='of 3 channels, found 1 channels'):
    normalization.normalized(grey, 'imagenet', [])
  unknown_range = input_spec.InputSpec((4, 4, 3), 'float32', 1.0, 0.0)
  for name in ('unit', 'imagenet'):
    with pytest.raises(ValueError, match='needs to know the range of pixels'):
      normalization.normalized(unknown_range, name, [_IMAGES])
  with pytest.raises(ValueError, match='divides by the standard deviation'):
    normalization.normalized(_SPEC, 'dataset', [np.zeros_like(_IMAGES)])


def test_one_scale_for_each_channel():
  spec = input_spec.InputSpec((1, 1, 2), scale=[2.0, 3.0], offset=(0, 1))
  assert _seen(spec, np.ones([1, 1, 1, 2], np.uint8)).ravel().tolist() == [2, 4]
  restored = json.loads(json.dumps(spec.to_json_dict()))
  assert input_spec.InputSpec(**restored) == spec
  for wrong, message in (
    (dict(scale=(1.0, 2.0, 3.0)), 'one scale, or one for each of 2 channels'),
    (dict(offset=(1.0,)), 'one offset, or one for each'),
    (dict(scale=(1.0, 0.0)), 'scale other than 0'),
    (dict(offset=(np.nan, 0.0)), 'finite offset'),
  ):
    with pytest.raises(ValueError, match=message):
      dataclasses.replace(spec, **wrong)
