"""Augmentation: by hand, off where it must be, a function of seeds."""

import collections
import functools
import itertools

import numpy as np
import pytest
import tensorflow as tf

from tff_fedsa.client import local_optimizer
from tff_fedsa.client import local_training
from tff_fedsa.client import objective as objective_lib
from tff_fedsa.data import augmentation
from tff_fedsa.data import input_spec
from tff_fedsa.models import families

_IMAGES = np.random.default_rng(0).random((40, 3, 5, 2)).astype(np.float32)


def _candidates(image, padding, flip, fill):
  """Yields all that may become of an image, by plain NumPy."""
  height, width, _ = image.shape
  padded = np.empty((height + 2 * padding, width + 2 * padding, 2), np.float32)
  padded[:] = fill
  padded[padding : padding + height, padding : padding + width] = image
  offsets = range(2 * padding + 1)
  for top, left in itertools.product(offsets, offsets):
    crop = padded[top : top + height, left : left + width]
    yield (top, left, False), crop
    if flip:
      yield (top, left, True), crop[:, ::-1]


@pytest.mark.parametrize('fill', [0.0, (-1.0, 2.0)])
@pytest.mark.parametrize('padding, flip', [(0, True), (2, False), (1, True)])
def test_each_image_is_one_of_the_crops_by_hand(padding, flip, fill):
  augmented = augmentation.augment(
    tf.constant(_IMAGES),
    tf.constant([1, 2]),
    crop_padding=padding,
    flip=flip,
    fill=fill,
  ).numpy()
  assert augmented.shape == _IMAGES.shape
  seen = set()
  for image, result in zip(_IMAGES, augmented):
    found = [
      name
      for name, candidate in _candidates(image, padding, flip, fill)
      if np.array_equal(candidate, result)
    ]
    assert len(found) == 1
    seen.update(found)
  # Images differ in their draws, along each axis.
  tops, lefts, flips = map(set, zip(*seen))
  assert len(tops) == len(lefts) == 2 * padding + 1
  assert len(flips) == 1 + flip


def test_offsets_are_uniform_and_the_coin_is_fair():
  # A single bright pixel shows where its image went.
  images = np.zeros((6000, 5, 5, 1), np.float32)
  images[:, 2, 2] = 1.0
  augmented = augmentation.augment(
    tf.constant(images), tf.constant([3, 4]), crop_padding=2
  ).numpy()
  counts = augmented.sum(axis=0)[..., 0]
  np.testing.assert_allclose(counts, 6000 / 25, atol=5 * np.sqrt(6000 / 25))
  images[:] = np.arange(5.0)[:, np.newaxis]
  augmented = augmentation.augment(
    tf.constant(images), tf.constant([3, 4]), flip=True
  ).numpy()
  assert abs(np.mean(augmented[:, 0, 0, 0] == 4.0) - 0.5) < 0.03


def test_seeds_repeat_and_differ():
  spec = input_spec.InputSpec((8, 8, 1), crop_padding=2, flip=True)
  images = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 1), np.uint8)

  def seen(*seed):
    return spec.preprocess(tf.constant(images), tf.constant(seed)).numpy()

  np.testing.assert_array_equal(seen(1, 2), seen(1, 2))
  assert not np.array_equal(seen(1, 2), seen(1, 3))
  assert not np.array_equal(seen(1, 2), seen(2, 2))


def test_padding_is_black_as_the_model_sees_it_and_of_its_pixels():
  spec = input_spec.InputSpec(
    (4, 4, 2),
    scale=(1.0, 2.0),
    offset=(-5.0, -7.0),
    size=(8, 8),
    channels=4,
    crop_padding=8,
  )
  images = np.full((50, 4, 4, 2), 9, np.uint8)
  seen = spec.preprocess(tf.constant(images), tf.constant([0, 1])).numpy()
  assert seen.shape == (50, 8, 8, 4)
  values, counts = np.unique(seen.reshape(-1, 4), axis=0, return_counts=True)
  assert values.tolist() == [[-5, -7, -5, -7], [4, 11, 4, 11]]
  # A shift by up to 8 of 8 pixels leaves about (1 - 4.2 / 8) ** 2.
  assert 0.15 < counts[1] / counts.sum() < 0.35


def test_nothing_is_added_where_it_is_off():
  def operations(spec, *seeds):
    traced = tf.function(spec.preprocess).get_concrete_function(
      tf.TensorSpec([None, 8, 8, 1], tf.uint8), *seeds
    )
    return [op.type for op in traced.graph.get_operations()]

  plain, augmented = (
    input_spec.InputSpec((8, 8, 1), crop_padding=padding) for padding in (0, 1)
  )
  seed = tf.TensorSpec([2], tf.int32)
  evaluation = operations(plain)
  assert operations(augmented) == evaluation
  assert [*operations(plain, seed)] == [
    *evaluation[:1],
    'Placeholder',
    *evaluation[1:],
  ]
  assert len(operations(augmented, seed)) > len(evaluation) + 10
  with pytest.raises(ValueError, match='crop_padding >= 0, found -1'):
    input_spec.InputSpec((8, 8, 1), crop_padding=-1)


_PLAIN = input_spec.InputSpec((8, 8, 1))
_AUGMENTED = input_spec.InputSpec((8, 8, 1), crop_padding=2, flip=True)


@functools.cache
def _training(spec, prototypes):
  (model,) = families.build_family('digits_mlp', (8, 8, 1), 3, 4)
  train_fn = local_training.build_local_training(
    model,
    objective_lib.cross_entropy_objective(),
    local_optimizer.default_optimizer(),
    spec,
    local_training.LocalTrainingConfig(batch_size=4, prototypes=prototypes),
  )
  return model.initial_weights(0), tf.function(train_fn)


def _trained(spec, *, prototypes='running', round_num=1, seed=(3, 4)):
  weights, train_fn = _training(spec, prototypes)
  rng = np.random.default_rng(5)
  examples = collections.OrderedDict(
    x=tf.constant(rng.integers(0, 256, (12, 8, 8, 1), np.uint8)),
    y=tf.constant(np.arange(12) % 3, tf.int32),
  )
  return train_fn(
    tf.constant(weights),
    tf.zeros([0]),
    examples,
    {},
    tf.constant(seed),
    tf.constant(round_num),
  )


def test_training_is_augmented_and_a_function_of_client_and_round():
  weights = _trained(_AUGMENTED).weights
  np.testing.assert_array_equal(weights, _trained(_AUGMENTED).weights)
  for other in (
    _trained(_PLAIN),
    _trained(_AUGMENTED, round_num=2),
    _trained(_AUGMENTED, seed=(3, 5)),
  ):
    assert not np.array_equal(weights, other.weights)


def test_the_clean_pass_sees_images_as_they_are():
  # Before training, models are equal; only what they see could differ.
  specs = (_PLAIN, _AUGMENTED)
  np.testing.assert_array_equal(
    *(_trained(spec, prototypes='initial').prototypes for spec in specs)
  )
  running = [_trained(spec).prototypes for spec in specs]
  assert not np.array_equal(*running)
