"""Parts of flat vectors that clients share, by hand."""

import types

import numpy as np
import pytest
import tensorflow as tf

from tests.algorithms import clients
from tff_fedsa.models import functional
from tff_fedsa.models import tiers as tiers_lib


def _with_statistics():
  """16 + 4 weights, BatchNorm; a head with BatchNorm and a kernel of 4 x 3."""

  def build_fn():
    images = tf.keras.Input([2, 2, 1])
    features = tf.keras.layers.Dense(4)(tf.keras.layers.Flatten()(images))
    features = tf.keras.layers.BatchNormalization()(features)
    return functional.KerasClientModel(
      tf.keras.Model(images, features),
      tf.keras.Sequential(
        [
          tf.keras.Input([4]),
          tf.keras.layers.BatchNormalization(),
          tf.keras.layers.Dense(3),
        ]
      ),
    )

  return functional.FunctionalModel(build_fn, name='statistics')


@pytest.fixture(scope='module')
def model():
  return _with_statistics()


# Extractor 20 + 8, head 8 + 15, statistics of the extractor 8, of the head 8.
_EXTRACTOR, _HEAD = [*range(28)], [*range(28, 51)]
_STATISTICS, _OF_HEAD = [*range(51, 59)], [*range(59, 67)]


def _state(architecture, weights, counts=(0.0, 0.0)):
  """Returns what tiers read of a `ClientState`."""
  return types.SimpleNamespace(
    architecture=tf.constant(architecture),
    weights=tf.constant(weights),
    counts=tf.constant(counts),
  )


@pytest.mark.parametrize(
  'part, statistics, shared',
  [
    ('model', True, _EXTRACTOR + _HEAD + _STATISTICS + _OF_HEAD),
    ('model', False, _EXTRACTOR + _HEAD),
    ('extractor', True, _EXTRACTOR + _STATISTICS),
    ('extractor', False, _EXTRACTOR),
  ],
)
def test_parts_of_a_model(model, part, statistics, shared):
  tiers = tiers_lib.Tiers([model], part, statistics=statistics)
  assert model.num_weights == 67 and tiers.sizes == (len(shared),)
  weights = np.arange(67, dtype=np.float32)
  sent = tiers.sent(tf.constant(0), tf.constant(weights)).numpy()
  np.testing.assert_array_equal(sent, shared)
  received = tiers.received(_state(0, weights), tf.constant(-sent)).numpy()
  expected = weights.copy()
  expected[shared] *= -1
  np.testing.assert_array_equal(received, expected)
  np.testing.assert_array_equal(
    tiers.initial_weights(3), model.initial_weights(3)[shared]
  )


def test_each_architecture_has_a_place(model):
  other = clients.tiny_mlp()
  tiers = tiers_lib.Tiers([other, model], 'extractor')
  assert tiers.names == ('tiny_relu', 'statistics')
  size = other.num_weights - 170  # The head: 16 x 10 + 10.
  assert tiers.sizes == (size, 36) and tiers.num_weights == size + 36
  shared = tiers.initial_weights(1)
  for architecture, one in enumerate((other, model)):
    weights = tf.constant(one.initial_weights(2))
    received = tiers.received(
      _state(architecture, weights), tf.constant(shared)
    )
    # What it sends now is what it received.
    part = np.split(shared, [size])[architecture]
    np.testing.assert_array_equal(
      tiers.sent(tf.constant(architecture), received), part
    )
    # Its head is its own.
    for found, own in zip(one.head_of(received), one.head_of(weights)):
      np.testing.assert_array_equal(found, own)


def test_own_and_averaged_weights_are_mixed(model):
  tiers = tiers_lib.Tiers([model], 'extractor', mixing=0.25)
  rng = np.random.default_rng(0)
  own = rng.standard_normal(67).astype(np.float32)
  shared = rng.standard_normal(tiers.num_weights).astype(np.float32)
  places = _EXTRACTOR + _STATISTICS
  whole, mixed = own.copy(), own.copy()
  whole[places] = shared
  mixed[places] += 0.25 * (shared - own[places])
  trained = tiers.received(_state(0, own, (0.0, 3.0)), tf.constant(shared))
  np.testing.assert_allclose(trained, mixed, rtol=1e-6)
  rest = np.setdiff1d(np.arange(67), places)
  np.testing.assert_array_equal(trained.numpy()[rest], own[rest])
  # Without a round of training it has nothing of its own to keep.
  joined = tiers.received(_state(0, own), tf.constant(shared))
  np.testing.assert_array_equal(joined, whole)


def test_an_architecture_twice_has_two_names(model):
  tiers = tiers_lib.Tiers([model, clients.tiny_mlp(), model])
  assert tiers.names == ('statistics_0', 'tiny_relu', 'statistics_2')


def test_what_does_not_fit_is_refused(model):
  with pytest.raises(ValueError, match="part of a model 'head'; known: extrac"):
    tiers_lib.Tiers([model], 'head')

  def frozen_fn():
    extractor, head = clients.tiny_mlp().halves
    extractor = tf.keras.models.clone_model(extractor)
    extractor.trainable = False
    return functional.KerasClientModel(
      extractor, tf.keras.models.clone_model(head)
    )

  frozen = functional.FunctionalModel(frozen_fn, name='frozen')
  with pytest.raises(ValueError, match="The extractor of 'frozen' has no weig"):
    tiers_lib.Tiers([frozen], 'extractor', statistics=False)
