"""The registry of architectures and the families made of them."""

import inspect

import numpy as np
import pytest
import tensorflow as tf

from tff_fedsa.data import input_spec
from tff_fedsa.models import architectures
from tff_fedsa.models import families
from tff_fedsa.models import functional
from tff_fedsa.models import initializers
from tff_fedsa.models import pooling

_DIGITS = [
  'digits_mlp',
  'digits_cnn',
  'digits_cnn_bn',
  'mlp_64_64_128',
  'mlp_64_128_64',
]
_NATURAL = ['fedavg_cnn', 'resnet8', 'resnet10']


@pytest.fixture
def registry(monkeypatch):
  """The registry, as it was again after the test."""
  known = dict(architectures._ARCHITECTURES)
  monkeypatch.setattr(architectures, '_ARCHITECTURES', known)


@pytest.mark.parametrize(
  'name, shape',
  [(name, (8, 8, 1)) for name in _DIGITS]
  + [(name, (32, 32, 3)) for name in _NATURAL]
  + [('resnet8', (28, 28, 1)), ('fedavg_cnn', (28, 28, 1))],
)
@pytest.mark.parametrize('feature_dim', [48, 128])
def test_every_architecture_fits_the_shapes(name, shape, feature_dim):
  model = architectures.build(name, shape, 7, feature_dim)
  assert model.input_shape == shape
  assert (model.num_classes, model.feature_dim) == (7, feature_dim)
  spec = input_spec.InputSpec(shape)
  images = np.random.default_rng(0).integers(256, size=[3, *shape])
  weights = model.split(tf.constant(model.initial_weights(0)))
  features, logits = model.build_forward(spec)(
    *weights, images.astype(np.uint8)
  )
  assert features.shape == (3, feature_dim) and logits.shape == (3, 7)
  assert np.isfinite(logits).all() and np.ptp(logits) > 0


def test_resnet8_repeats_its_256_features():
  model = architectures.build('resnet8', (32, 32, 3), 10, 512)
  weights = model.split(tf.constant(model.initial_weights(0)))
  spec = input_spec.InputSpec((32, 32, 3), 'float32', 1.0, 0.0)
  features, _ = model.build_forward(spec)(*weights, tf.ones([2, 32, 32, 3]))
  np.testing.assert_array_equal(features[:, ::2], features[:, 1::2])


@pytest.mark.parametrize(
  'name, hidden',
  [
    ('mlp_64_64_128', (64 * 64 + 64) + (64 * 128 + 128)),
    ('mlp_64_128_64', (64 * 128 + 128) + (128 * 64 + 64)),
  ],
)
def test_reference_mlps_have_two_layers(name, hidden):
  """The 64 in front are the pixels of an 8x8 image."""
  model = architectures.build(name, (8, 8, 1), 10, 128)
  assert model.num_weights == hidden + 128 * 10 + 10


def test_own_architecture_takes_few_lines(registry):
  @architectures.register_architecture('own_net')
  def own_net(input_shape, num_classes, feature_dim):
    images = tf.keras.Input(input_shape)
    hidden = tf.keras.layers.Conv2D(8, 3, activation='relu')(images)
    features = pooling.adaptive_average_pooling(hidden, feature_dim)
    return functional.KerasClientModel(
      feature_extractor=tf.keras.Model(images, features),
      head=initializers.linear_head(feature_dim, num_classes),
    )

  assert len(inspect.getsource(own_net).splitlines()) <= 20
  assert 'own_net' in architectures.names()
  models = families.build_family('own_net, digits_mlp', (8, 8, 1), 10, 32)
  assert [model.name for model in models] == ['own_net', 'digits_mlp']


def test_subclassed_architecture(registry):
  """Models that know no shape until they are called."""

  class Extractor(tf.keras.Model):
    def __init__(self, feature_dim):
      super().__init__()
      self.dense = tf.keras.layers.Dense(feature_dim)

    def call(self, images):
      return self.dense(tf.reshape(images, [-1, 64]))

  architectures.register_architecture('subclassed')(
    lambda input_shape, num_classes, feature_dim: functional.KerasClientModel(
      Extractor(feature_dim),
      tf.keras.Sequential([tf.keras.layers.Dense(num_classes)]),
    )
  )
  model = architectures.build('subclassed', (8, 8, 1), 10, 16)
  assert model.num_weights == 64 * 16 + 16 + 16 * 10 + 10


def test_registry_errors(registry):
  with pytest.raises(ValueError, match="'digits_mlp' is registered already"):
    architectures.register_architecture('digits_mlp')
  with pytest.raises(ValueError, match='letters, digits'):
    architectures.register_architecture('a,b')
  with pytest.raises(ValueError, match='Unknown.*known: .*digits_mlp'):
    architectures.build('no_net', (8, 8, 1), 10, 16)
  architectures.register_architecture('stubborn')(
    lambda input_shape, num_classes, feature_dim: architectures._ARCHITECTURES[
      'digits_mlp'
    ](input_shape, num_classes, 5)
  )
  with pytest.raises(ValueError, match=r'\(16, 10\), found \(5, 10\)'):
    architectures.build('stubborn', (8, 8, 1), 10, 16)


def test_fedavg_cnn_needs_large_images():
  with pytest.raises(ValueError, match='at least 16x16.*image_size'):
    architectures.build('fedavg_cnn', (8, 8, 1), 10, 16)


@pytest.mark.parametrize('family', families.names())
def test_families(family):
  members = families.members(family)
  assert len(members) >= 2
  shape = (32, 32, 3) if 'resnet' in family else (8, 8, 1)
  models = families.build_family(family, shape, 10, 64)
  assert tuple(model.name for model in models) == members
  assert {model.feature_dim for model in models} == {64}
  sizes = [model.num_weights for model in models]
  assert len(set(sizes)) == len(sizes), 'the architectures differ'


def test_family_of_names():
  assert families.members('digits_mlp') == ('digits_mlp',)
  expected = ('digits_cnn', 'digits_mlp')
  assert families.members('digits_cnn,digits_mlp') == expected
  assert families.members(['digits_cnn', 'digits_mlp']) == expected
  with pytest.raises(
    ValueError, match="'no_net'; known families: .*digits3.*digits_mlp"
  ):
    families.members('digits_mlp,no_net')
  with pytest.raises(ValueError, match='known families'):
    families.members([])
