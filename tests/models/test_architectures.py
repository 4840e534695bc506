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
_NATURAL = ['fedavg_cnn', 'resnet8', 'resnet10_3x3', 'resnet6_gn']
_LARGE = ['googlenet', 'mobilenet_v2', 'resnet50']


@pytest.fixture
def registry(monkeypatch):
  """The registry, as it was again after the test."""
  known = dict(architectures._ARCHITECTURES)
  monkeypatch.setattr(architectures, '_ARCHITECTURES', known)


@pytest.mark.parametrize(
  'name, shape, feature_dim',
  [(name, (8, 8, 1), 48) for name in _DIGITS]
  + [(name, (32, 32, 3), 48) for name in _NATURAL]
  + [('resnet8', (28, 28, 1), 128), ('fedavg_cnn', (28, 28, 1), 128)]
  + [('resnet8', (8, 8, 1), 48), ('hcnn2_1024', (28, 28, 1), 48)]
  + [('digits_cnn', (8, 8, 1), 128), ('resnet6_gn', (32, 32, 3), 128)],
)
def test_every_architecture_fits_the_shapes(name, shape, feature_dim):
  _assert_fits(name, shape, feature_dim)


@pytest.mark.slow
@pytest.mark.parametrize(
  'name, shape',
  [('vit_b_32', (64, 32, 1))]
  + [
    (name, (size, size, 3))
    for name in (*_LARGE, 'resnet18', 'fedavg_cnn')
    for size in (28, 224)
  ],
)
def test_images_of_all_sizes(name, shape):
  _assert_fits(name, shape, 48)


def _assert_fits(name, shape, feature_dim):
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


@pytest.mark.parametrize(
  'name, what',
  [
    ('fedavg_cnn', 'at least 16x16'),
    ('hcnn2', 'at least 16x16'),
    ('googlenet', 'at least 15x15'),
    ('vit_b_16', 'multiples of 16'),
  ],
)
def test_some_need_large_images(name, what):
  with pytest.raises(ValueError, match=f'{name} needs .*{what}.*image_size'):
    architectures.build(name, (8, 8, 1), 10, 16)


_SMALL_FAMILIES = {
  'digits3': (8, 8, 1),
  'reference_mlp2': (8, 8, 1),
  'cnn_resnet8': (32, 32, 3),
  'HCNNs8': (28, 28, 1),
}


@pytest.mark.parametrize('family', list(_SMALL_FAMILIES))
def test_families_can_be_built(family):
  members = families.members(family)
  models = families.build_family(family, _SMALL_FAMILIES[family], 10, 64)
  assert tuple(model.name for model in models) == members
  assert {model.feature_dim for model in models} == {64}
  sizes = [model.num_weights for model in models]
  assert len(set(sizes)) == len(sizes), 'the architectures differ'


@pytest.mark.parametrize(
  'family, expected',
  [
    ('HtFE2', 'fedavg_cnn resnet18'),
    ('HtFE3', 'resnet10 resnet18 resnet34'),
    ('HtFE4', 'fedavg_cnn googlenet mobilenet_v2 resnet18'),
    ('HtFE5', 'fedavg_cnn resnet10 resnet18 resnet34 resnet50'),
    ('HtFE-img-5', 'googlenet mobilenet_v2 resnet18 resnet34 resnet50'),
    (
      'HtFE8',
      'fedavg_cnn googlenet mobilenet_v2 resnet18 resnet34 resnet50 resnet101 '
      'resnet152',
    ),
    (
      'HtFE9',
      'resnet4 resnet6 resnet8 resnet10 resnet18 resnet34 resnet50 resnet101 '
      'resnet152',
    ),
    (
      'HtM10',
      'fedavg_cnn googlenet mobilenet_v2 resnet18 resnet34 resnet50 resnet101 '
      'resnet152 vit_b_16 vit_b_32',
    ),
    (
      'HtFE8-HtC4',
      'fedavg_cnn+linear googlenet+mlp512 mobilenet_v2+mlp256 resnet18+mlp128 '
      'resnet34+linear resnet50+mlp512 resnet101+mlp256 resnet152+mlp128',
    ),
    (
      'Res34-HtC4',
      'resnet34+linear resnet34+mlp512 resnet34+mlp256 resnet34+mlp128',
    ),
    (
      'Res34-HtC4-relu',
      'resnet34+linear_relu resnet34+mlp512_relu resnet34+mlp256_relu '
      'resnet34+mlp128_relu',
    ),
  ],
)
def test_members_of_the_papers_families(family, expected):
  assert families.members(family) == tuple(expected.split())
  assert families.members(family.lower()) == families.members(family)


@pytest.mark.parametrize('family', families.names())
def test_members_of_families_are_known(family):
  members = families.members(family)
  assert len(set(members)) == len(members) >= 2
  assert all(architectures.is_known(name) for name in members)


@pytest.mark.parametrize(
  'head, sizes',
  [
    ('linear', [(16, 10), (10,)]),
    ('mlp128', [(16, 128), (128,), (128, 10), (10,)]),
    ('tanh768', [(16, 768), (768,), (768, 10), (10,)]),
  ],
)
def test_other_heads(head, sizes):
  model = architectures.build(f'digits_mlp+{head}', (8, 8, 1), 10, 16)
  assert model.name == f'digits_mlp+{head}'
  assert [tuple(spec.shape) for spec in model.head_specs] == sizes
  features = np.random.default_rng(0).normal(size=[5, 16]).astype(np.float32)
  keras_head = model.to_keras(model.initial_weights(3)).head
  hidden, *rest = (layer for layer in keras_head.layers if layer.weights)
  expected = features @ hidden.kernel + hidden.bias
  for layer in rest:
    activation = np.tanh if head == 'tanh768' else lambda x: np.maximum(x, 0)
    expected = activation(expected) @ layer.kernel + layer.bias
  logits = keras_head(features)
  np.testing.assert_allclose(logits, expected, atol=1e-5)
  assert np.min(logits) < 0


def test_heads_of_the_reference_have_no_negative_logits():
  plain, with_relu = (
    architectures.build(f'digits_mlp+{head}', (8, 8, 1), 10, 16)
    for head in ('mlp256', 'mlp256_relu')
  )
  weights = plain.initial_weights(1)
  np.testing.assert_array_equal(weights, with_relu.initial_weights(1))
  features = tf.random.stateless_normal([20, 16], [0, 1])
  logits, rectified = (
    model.to_keras(weights).head(features).numpy()
    for model in (plain, with_relu)
  )
  assert logits.min() < 0
  np.testing.assert_array_equal(rectified, np.maximum(logits, 0))


def test_family_of_names():
  assert families.members('digits_mlp') == ('digits_mlp',)
  expected = ('digits_cnn', 'digits_mlp')
  assert families.members('digits_cnn,digits_mlp') == expected
  assert families.members(['digits_cnn', 'digits_mlp']) == expected
  with pytest.raises(
    ValueError, match="'no_net'; known families: .*digits3.*digits_mlp"
  ):
    families.members('digits_mlp,no_net')
  assert families.members('digits_mlp+mlp256') == ('digits_mlp+mlp256',)
  with pytest.raises(ValueError, match="'digits_mlp\\+no_head';.*mlp256"):
    families.members('digits_mlp+no_head')
  with pytest.raises(ValueError, match='known families'):
    families.members([])


@pytest.mark.parametrize(
  'family, members, turns',
  [
    ('cnn_resnet8', 'fedavg_cnn resnet8', (0, 1)),
    ('digits_mlp * 3, digits_cnn', 'digits_mlp digits_cnn', (0, 0, 0, 1)),
    (
      ['digits_mlp', 'digits_cnn+mlp256*2'],
      'digits_mlp digits_cnn+mlp256',
      (0, 1, 1),
    ),
    # Two tiers of one architecture.
    ('digits_mlp*2,digits_mlp', 'digits_mlp digits_mlp', (0, 0, 1)),
  ],
)
def test_counts_of_clients(family, members, turns):
  assert families.members(family) == tuple(members.split())
  assert families.turns(family) == turns


@pytest.mark.parametrize('count', ['0', '-1', '1.5', 'all', '', '1000000'])
def test_wrong_counts(count):
  with pytest.raises(ValueError, match=r'ARCHITECTURE\*COUNT.*digits_mlp\*'):
    families.turns(f'digits_mlp*{count},digits_cnn')
