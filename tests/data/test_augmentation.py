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
from tff_fedsa.data import own_data
from tff_fedsa.data import task_spec
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


_SERIES = np.random.default_rng(1).normal(size=[40, 6, 2]).astype(np.float32)


def test_series_are_shifted_and_hold_their_ends():
  shifted = augmentation.augment_numbers(
    tf.constant(_SERIES), tf.constant([1, 2]), crop_padding=2
  ).numpy()
  padded = np.pad(_SERIES, [[0, 0], [2, 2], [0, 0]], mode='edge')
  seen = set()
  for series, result in zip(padded, shifted):
    fits = [np.array_equal(series[s : s + 6], result) for s in range(5)]
    assert sum(fits) == 1
    seen.add(fits.index(True))
  assert seen == {*range(5)}


def test_scaling_and_jitter_have_their_deviations():
  ones = tf.ones([500, 6, 2])
  scaled = augmentation.augment_numbers(
    ones, tf.constant([1, 2]), scaling=0.3
  ).numpy()
  # One factor for each series and channel.
  assert np.ptp(scaled, axis=1).max() == 0.0
  np.testing.assert_allclose(scaled.mean(), 1.0, atol=0.05)
  np.testing.assert_allclose(scaled[:, 0].std(), 0.3, atol=0.03)
  for shape in ((500, 6, 2), (500, 7)):
    noise = augmentation.augment_numbers(
      tf.zeros(shape), tf.constant([1, 2]), jitter=0.2
    ).numpy()
    np.testing.assert_allclose([noise.mean(), noise.std()], [0, 0.2], atol=0.02)


def test_a_share_of_tokens_becomes_padding():
  tokens = np.random.default_rng(0).integers(1, 9, [300, 20]).astype(np.int32)
  dropped = augmentation.drop_tokens(
    tf.constant(tokens), tf.constant([1, 2]), rate=0.3
  ).numpy()
  gone = dropped == 0
  np.testing.assert_array_equal(dropped[~gone], tokens[~gone])
  np.testing.assert_allclose(gone.mean(), 0.3, atol=0.03)


_OF_KINDS = {
  'series': input_spec.InputSpec(
    (6, 2), 'float32', scale=2.0, crop_padding=1, jitter=0.1, scaling=0.1
  ),
  'table': input_spec.InputSpec((6,), 'float32', jitter=0.1),
  'tokens': input_spec.InputSpec((6,), 'int32', token_dropout=0.4),
}


@pytest.mark.parametrize('kind', _OF_KINDS)
def test_other_kinds_are_augmented_in_training_only(kind):
  spec = _OF_KINDS[kind]
  assert spec.kind == kind and spec.is_augmented
  assert input_spec.InputSpec(**spec.to_json_dict()) == spec
  inputs = np.arange(1, 1 + 8 * np.prod(spec.shape)).reshape(8, *spec.shape)
  inputs = tf.constant(inputs.astype(spec.dtype))
  factor = 2.0 if kind == 'series' else 1
  np.testing.assert_array_equal(spec.preprocess(inputs), inputs * factor)
  seeds = [[1, 2], [1, 2], [1, 3]]
  first, again, other = (
    spec.preprocess(inputs, tf.constant(seed)).numpy() for seed in seeds
  )
  assert first.shape == inputs.shape and first.dtype == spec.model_dtype
  np.testing.assert_array_equal(first, again)
  assert not np.array_equal(first, other)
  assert not np.array_equal(first, inputs * factor)


@pytest.mark.parametrize(
  'shape, dtype, options, message',
  [
    ((6,), 'float32', {'scaling': 0.1}, 'Only series .* have scaling; found'),
    ((6,), 'float32', {'crop_padding': 1}, 'Only images .*and series.*have cr'),
    ((6,), 'int32', {'jitter': 0.1}, 'series.*and rows of a table have jitter'),
    ((6, 2), 'float32', {'token_dropout': 0.1}, 'Only tokens have token_drop'),
    ((6, 2), 'float32', {'flip': True}, 'Only images .* have flip'),
    ((6,), 'int32', {'token_dropout': 1.0}, 'token_dropout < 1, found 1.0'),
    ((6, 2), 'float32', {'jitter': -1.0}, 'jitter >= 0, found -1.0'),
  ],
)
def test_augmentation_of_another_kind_is_refused(
  shape, dtype, options, message
):
  with pytest.raises(ValueError, match=message):
    input_spec.InputSpec(shape, dtype, **options)


def test_own_data_are_augmented_too():
  spec = task_spec.TaskSpec(augment_jitter=0.5, augment_crop_padding=2)
  clients = [(_SERIES, np.arange(40) % 2)] * 2
  found = own_data.to_task(clients, spec).input_spec
  assert (found.jitter, found.crop_padding) == (0.5, 2)
  x, y = clients[0]
  task = own_data.from_arrays(
    x, y, num_clients=2, alpha=9.0, augment_scaling=0.1
  )
  assert task.input_spec.scaling == 0.1
  texts = own_data.from_arrays(
    ['a b'] * 8, [0, 1] * 4, client_ids=[0] * 8, augment_token_dropout=0.2
  )
  assert texts.input_spec.token_dropout == 0.2
