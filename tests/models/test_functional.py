"""Functional models compute what eager Keras computes."""

import random

import numpy as np
import pytest
import tensorflow as tf

from tests import golden
from tests.models import keras_zoo
from tff_fedsa.data import input_spec
from tff_fedsa.models import functional
from tff_fedsa.models import steps

L = tf.keras.layers
_SPEC = input_spec.InputSpec(keras_zoo.IMAGE, 'float32', 1.0, 0.0)
_RNG = np.random.default_rng(0)
_IMAGES = _RNG.normal(size=[5, *keras_zoo.IMAGE]).astype(np.float32)
_LABELS = np.array([0, 3, 1, 1, 2], np.int32)
_ANCHORS = tf.constant(
  _RNG.normal(size=[keras_zoo.NUM_CLASSES, keras_zoo.FEATURE_DIM]), tf.float32
)
_SEED = np.array([3, 4], np.int32)
# Slow to differentiate. Other recurrent layers stay among the fast tests.
_RECURRENT_AS_WELL = ('gru', 'bidirectional')


def _objective(features, logits, labels, head_fn, context):
  """Calls the head twice, as FedSA does."""
  cross_entropy = tf.nn.sparse_softmax_cross_entropy_with_logits
  ce = tf.reduce_mean(cross_entropy(labels, logits))
  calibration = tf.reduce_mean(
    cross_entropy(tf.range(keras_zoo.NUM_CLASSES), head_fn(context['anchors']))
  )
  pull = tf.reduce_mean((features - tf.gather(context['anchors'], labels)) ** 2)
  return {'loss': ce + calibration + pull, 'ce': ce}


def _train_step(model, batch_size=None, spec=_SPEC):
  return model.build_train_step(
    _objective,
    batch_size=batch_size,
    context_specs={'anchors': tf.TensorSpec(_ANCHORS.shape)},
    input_spec=spec,
  )


def _varied_weights(model):
  """Weights in which nothing is zero or one, so that no mistake cancels."""
  weights = model.initial_weights(1)
  noise = np.random.default_rng(1).uniform(0.05, 0.2, weights.shape)
  return (weights + noise).astype(np.float32)


def _eager_step(keras_model, images=_IMAGES, labels=_LABELS):
  """The same step as `_train_step` with Keras's own means."""
  extractor, head = keras_model
  trainable = extractor.trainable_weights + head.trainable_weights
  with tf.GradientTape() as tape:
    features = extractor(images, training=True)
    logits = head(features, training=True)
    penalties = [*extractor.losses, *head.losses]
    losses = _objective(
      features,
      logits,
      labels,
      lambda x: head(x, training=True),
      {'anchors': _ANCHORS},
    )
    loss = losses['loss'] + sum(penalties)
  gradients = tape.gradient(loss, trainable, unconnected_gradients='zero')
  state = extractor.non_trainable_weights + head.non_trainable_weights
  state = [v for v in state if v.dtype == tf.float32]
  return steps.StepOutput(
    [tf.convert_to_tensor(g) for g in gradients],
    [tf.convert_to_tensor(v) for v in state],
    features,
    logits,
    {'loss': loss, 'ce': losses['ce']},
  )


def _assert_same_step(actual, expected):
  tf.nest.map_structure(
    lambda a, b: golden.assert_close(a, b, 1e-6), actual.losses, expected.losses
  )
  golden.assert_close(actual.features, expected.features, 1e-6)
  for ours, theirs in (
    (actual.gradients, expected.gradients),
    (actual.state, expected.state),
  ):
    assert len(ours) == len(theirs)
    scale = max([float(tf.reduce_max(tf.abs(t))) for t in theirs], default=0)
    for a, b in zip(ours, theirs):
      assert a.shape == b.shape
      # Gradients that vanish in theory (a bias in front of BatchNorm) are
      # rounding noise of the size of the others.
      np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 * scale)


@pytest.mark.parametrize(
  'name',
  [
    pytest.param(
      name, marks=pytest.mark.slow if name in _RECURRENT_AS_WELL else ()
    )
    for name in keras_zoo.LAYERS
  ],
)
def test_step_and_forward_equal_eager_keras(name):
  model = functional.FunctionalModel(
    keras_zoo.client_model(keras_zoo.LAYERS[name]), name=name
  )
  _assert_equals_keras(model)


def _assert_equals_keras(model):
  weights = _varied_weights(model)
  trainable, state = model.split(tf.constant(weights))
  keras_model = model.to_keras(weights)
  features, logits = model.build_forward(_SPEC)(trainable, state, _IMAGES)
  golden.assert_close(features, keras_model.feature_extractor(_IMAGES), 1e-6)
  golden.assert_close(logits, keras_model.head(features), 1e-6)
  step = _train_step(model)
  # Or a loop over steps could not take the updated weights.
  for gradient, spec in zip(
    step.structured_outputs.gradients, model.trainable_specs
  ):
    assert gradient.shape == spec.shape
  actual = step(
    trainable, state, _IMAGES, _LABELS, {'anchors': _ANCHORS}, _SEED
  )
  _assert_same_step(actual, _eager_step(keras_model))
  # The model itself is as it was: variables back in place, no symbolic rest.
  np.testing.assert_array_equal(
    model.weights_from_keras(model._keras_model), model.initial_weights(0)
  )
  model._keras_model.feature_extractor(_IMAGES)


def test_several_sgd_steps_equal_keras_optimizer():
  """Three steps of plain SGD; BatchNorm statistics move along."""
  model = functional.FunctionalModel(
    keras_zoo.client_model(keras_zoo.LAYERS['tied'])
  )
  weights = model.initial_weights(2)
  keras_model = model.to_keras(weights)
  step = _train_step(model, batch_size=5)
  trainable, state = model.split(tf.constant(weights))
  optimizer = tf.keras.optimizers.SGD(0.1)
  variables = [w for half in keras_model for w in half.trainable_weights]
  for _ in range(3):
    output = step(
      trainable, state, _IMAGES, _LABELS, {'anchors': _ANCHORS}, _SEED
    )
    trainable = [w - 0.1 * g for w, g in zip(trainable, output.gradients)]
    state = output.state
    gradients = _eager_step(keras_model).gradients
    optimizer.apply_gradients(zip(gradients, variables))
  flat = model.flatten(trainable, state)
  golden.assert_close(flat, model.weights_from_keras(keras_model), 1e-6)
  moved = np.abs(flat - weights)[model.num_trainable :]
  assert moved.min() > 1e-4, 'all statistics should move'


def test_subclassed_models():
  model = functional.FunctionalModel(
    keras_zoo.subclassed, input_shape=keras_zoo.IMAGE
  )
  assert model.input_shape == keras_zoo.IMAGE
  assert (model.feature_dim, model.num_classes) == (6, 4)
  _assert_equals_keras(model)


def test_subclassed_models_that_were_called():
  def build_fn():
    extractor, head = keras_zoo.subclassed()
    head(extractor(_IMAGES))
    return functional.KerasClientModel(extractor, head)

  _assert_equals_keras(functional.FunctionalModel(build_fn))


@pytest.mark.slow
@pytest.mark.parametrize('application', ['MobileNetV2', 'EfficientNetB0'])
def test_keras_applications(application):
  def build_fn():
    base = getattr(tf.keras.applications, application)(
      include_top=False, weights=None, input_shape=(32, 32, 3), pooling='avg'
    )
    features = L.Dense(keras_zoo.FEATURE_DIM)(base.output)
    return functional.KerasClientModel(
      tf.keras.Model(base.input, features),
      tf.keras.Sequential(
        [tf.keras.Input([keras_zoo.FEATURE_DIM]), L.Dense(4)]
      ),
    )

  model = functional.FunctionalModel(build_fn)
  weights = model.initial_weights(0)
  keras_model = model.to_keras(weights)
  trainable, state = model.split(tf.constant(weights))
  spec = input_spec.InputSpec((32, 32, 3), 'float32', 1.0, 0.0)
  images = np.random.default_rng(0).normal(size=[5, 32, 32, 3])
  images = images.astype(np.float32)
  features, _ = model.build_forward(spec)(trainable, state, images)
  # As a graph, like ours: eager convolutions are not fused with BatchNorm,
  # which makes 1e-6 more or less in 50 layers.
  extractor = tf.function(keras_model.feature_extractor)
  golden.assert_close(features, extractor(images), 1e-6)
  output = _train_step(model, spec=spec)(
    trainable, state, images, _LABELS, {'anchors': _ANCHORS}, _SEED
  )
  if application != 'EfficientNetB0':  # It has dropout.
    _assert_same_step(output, tf.function(_eager_step)(keras_model, images))


# Random layers.


def _noise_features(layer, seed, rate_images):
  """Features of a model that is just the random layer, and its forward."""
  shape = rate_images.shape[1:]

  def build_fn():
    images = tf.keras.Input(shape)
    features = L.Flatten()(layer(images))
    return functional.KerasClientModel(
      tf.keras.Model(images, features),
      tf.keras.Sequential([tf.keras.Input([features.shape[-1]]), L.Dense(4)]),
    )

  model = functional.FunctionalModel(build_fn)
  spec = input_spec.InputSpec(shape, 'float32', 1.0, 0.0)
  step = model.build_train_step(
    lambda features, logits, labels, head_fn, context: {
      'loss': tf.reduce_sum(logits)
    },
    batch_size=None,
    context_specs={},
    input_spec=spec,
  )
  weights = model.split(tf.constant(model.initial_weights(0)))
  labels = np.zeros(len(rate_images), np.int32)
  return [
    np.asarray(step(*weights, rate_images, labels, {}, s).features)
    for s in seed
  ] + [np.asarray(model.build_forward(spec)(*weights, rate_images)[0])]


_RANDOM_LAYERS = {
  'dropout': lambda: L.Dropout(0.25),
  'dropout_with_seed': lambda: L.Dropout(0.25, seed=7),
  'spatial_dropout': lambda: L.SpatialDropout2D(0.25),
  'alpha_dropout': lambda: L.AlphaDropout(0.25),
  'gaussian_dropout': lambda: L.GaussianDropout(0.25),
  'gaussian_noise': lambda: L.GaussianNoise(0.5),
  'random_flip': lambda: L.RandomFlip(),
  'random_rotation': lambda: L.RandomRotation(0.2),
  'random_translation': lambda: L.RandomTranslation(0.2, 0.2),
  'random_zoom': lambda: L.RandomZoom(0.3),
}


@pytest.mark.parametrize('name', list(_RANDOM_LAYERS))
def test_random_layers_follow_the_seed(name):
  images = np.random.default_rng(0).uniform(0.5, 1, [20, 8, 8, 3])
  images = images.astype(np.float32)
  same, again, other, inference = _noise_features(
    _RANDOM_LAYERS[name](), [[1, 2], [1, 2], [1, 3]], images
  )
  np.testing.assert_array_equal(same, again)
  assert (same != other).mean() > 0.1
  np.testing.assert_array_equal(inference, images.reshape([20, -1]))


def test_dropout_rate_and_scale():
  images = np.ones([100, 8, 8, 3], np.float32)
  first, second, _ = _noise_features(L.Dropout(0.25), [[1, 2], [2, 2]], images)
  # 19200 draws: the standard deviation of the mean is 0.0031.
  assert abs((first == 0).mean() - 0.25) < 0.013
  np.testing.assert_allclose(first[first != 0], 1 / 0.75, rtol=1e-6)
  # Masks of different seeds are independent: both drop 1/16.
  assert abs(((first == 0) & (second == 0)).mean() - 1 / 16) < 0.01


def test_random_layers_in_one_model_draw_independently():
  """Two dropouts, and one that is called twice, have different masks."""

  def build_fn():
    shared = L.Dropout(0.5)
    images = tf.keras.Input([8, 8, 3])
    parts = [shared(images), shared(images), L.Dropout(0.5)(images)]
    features = L.Flatten()(L.Concatenate()(parts))
    return functional.KerasClientModel(
      tf.keras.Model(images, features),
      tf.keras.Sequential([tf.keras.Input([576]), L.Dense(4)]),
    )

  model = functional.FunctionalModel(build_fn)
  step = model.build_train_step(
    lambda f, logits, *_: {'loss': tf.reduce_sum(logits)},
    batch_size=10,
    context_specs={},
    input_spec=_SPEC,
  )
  weights = model.split(tf.constant(model.initial_weights(0)))
  images = np.ones([10, 8, 8, 3], np.float32)
  features = step(*weights, images, np.zeros(10, np.int32), {}, [1, 2]).features
  masks = np.reshape(features, [10, 64, 3, 3]) == 0
  for i, j in ((0, 1), (0, 2), (1, 2)):
    both = (masks[:, :, i] & masks[:, :, j]).mean()
    assert abs(both - 0.25) < 0.05


def test_own_layer_with_a_random_generator():
  class Noise(L.Layer):
    def __init__(self):
      super().__init__()
      self.rng = tf.random.Generator.from_seed(1)

    def call(self, x, training=False):
      return x + self.rng.normal(tf.shape(x)) if training else x

  images = np.ones([20, 8, 8, 3], np.float32)
  same, again, other, inference = _noise_features(
    Noise(), [[1, 2], [1, 2], [1, 3]], images
  )
  np.testing.assert_array_equal(same, again)
  assert (same != other).all()
  assert abs(same.std() - 1) < 0.05
  np.testing.assert_array_equal(inference, 1)


def test_recurrent_and_attention_dropout_follow_the_seed():
  for layer in (
    lambda x: L.GRU(5, dropout=0.3, recurrent_dropout=0.3)(
      L.Reshape([8, 24])(x)
    ),
    lambda x: L.MultiHeadAttention(2, 5, dropout=0.3)(x, x),
  ):
    model = functional.FunctionalModel(keras_zoo.client_model(layer))
    step = _train_step(model)
    weights = model.split(tf.constant(_varied_weights(model)))
    first, again, other = (
      np.asarray(
        step(*weights, _IMAGES, _LABELS, {'anchors': _ANCHORS}, s).features
      )
      for s in ([1, 2], [1, 2], [2, 2])
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any(axis=1).all()


# Weights.


def test_flat_vector_has_trainable_weights_first():
  model = functional.FunctionalModel(
    keras_zoo.client_model(
      lambda x: L.BatchNormalization()(L.Conv2D(2, 3)(x)),
      [L.BatchNormalization()],
    )
  )
  # Extractor: conv 3*3*3*2 + 2, gamma 2, beta 2, dense 72*6 + 6; head: gamma 6,
  # beta 6, dense 6*4 + 4. State: 2 x 2 of the extractor, 2 x 6 of the head.
  assert model.num_trainable == 56 + 4 + 438 + 12 + 28
  assert model.num_weights == model.num_trainable + 4 + 12
  assert [tuple(s.shape) for s in model.state_specs] == [(2,), (2,), (6,), (6,)]
  keras_model = model.to_keras(np.arange(model.num_weights, dtype=np.float32))
  conv = keras_model.feature_extractor.layers[1]
  np.testing.assert_array_equal(
    conv.kernel, np.arange(54.0).reshape([3, 3, 3, 2])
  )
  dense = keras_model.head.layers[-1]
  np.testing.assert_array_equal(dense.bias, np.arange(534.0, 538.0))
  np.testing.assert_array_equal(
    keras_model.head.layers[0].moving_variance, np.arange(548.0, 554.0)
  )
  flat = np.arange(model.num_weights, dtype=np.float32)
  np.testing.assert_array_equal(model.weights_from_keras(keras_model), flat)
  np.testing.assert_array_equal(model.flatten(*model.split(flat)), flat)


def test_initial_weights_depend_on_the_seed_only():
  build_fn = keras_zoo.client_model(keras_zoo.LAYERS['gru'])
  model = functional.FunctionalModel(build_fn)
  expected = model.initial_weights(5)
  L.Dense(3)(tf.zeros([1, 2]))
  tf.random.set_seed(123)
  np.random.seed(4)
  random.seed(4)
  np.testing.assert_array_equal(model.initial_weights(5), expected)
  other_model = functional.FunctionalModel(build_fn, name='other')
  np.testing.assert_array_equal(other_model.initial_weights(5), expected)
  assert (model.initial_weights(6) != expected).mean() > 0.5
  assert model.initial_weights(-1).shape == expected.shape


def test_callers_random_state_is_untouched():
  def draw_after(action):
    tf.keras.utils.set_random_seed(1)
    action()
    return (
      random.random(),
      np.random.uniform(),
      float(tf.random.uniform([])),
      float(L.Dense(1)(tf.ones([1, 1]))),
    )

  def use_models():
    model = functional.FunctionalModel(
      keras_zoo.client_model(keras_zoo.LAYERS['dense'])
    )
    model.to_keras(model.initial_weights(3))
    _train_step(model)

  assert draw_after(use_models) == draw_after(lambda: None)


@pytest.mark.parametrize(
  'name', ['tied', 'normalization', 'frozen_conv', 'operators']
)
def test_from_keras_keeps_weights(name):
  build_fn = keras_zoo.client_model(keras_zoo.LAYERS[name])
  keras_model = build_fn()
  for half in keras_model:
    for variable in half.trainable_weights:
      variable.assign_add(tf.ones_like(variable) * 0.1)
  model = functional.FunctionalModel.from_keras(keras_model)
  weights = model.initial_weights(0)
  np.testing.assert_array_equal(weights, model.initial_weights(1))
  features, logits = model.build_forward(_SPEC)(
    *model.split(tf.constant(weights)), _IMAGES
  )
  golden.assert_close(features, keras_model.feature_extractor(_IMAGES), 1e-6)
  golden.assert_close(logits, keras_model.head(features), 1e-6)
  copy = model.to_keras(weights)
  golden.assert_close(copy.feature_extractor(_IMAGES), features, 1e-6)
  assert copy.head is not keras_model.head


def test_wrong_weights_are_refused():
  model = functional.FunctionalModel(
    keras_zoo.client_model(keras_zoo.LAYERS['dense'])
  )
  other = keras_zoo.client_model(keras_zoo.LAYERS['gru'])()
  with pytest.raises(ValueError, match=r'expected weights of shape \(\d+,\)'):
    model.to_keras(np.zeros(3))
  with pytest.raises(ValueError, match='weights of shapes'):
    model.weights_from_keras(other)
