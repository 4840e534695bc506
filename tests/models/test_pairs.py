"""Two models in one step: each is trained as it would be alone."""

import numpy as np
import pytest
import tensorflow as tf

from tests.algorithms import clients
from tff_fedsa.data import input_spec
from tff_fedsa.maths import losses
from tff_fedsa.models import functional
from tff_fedsa.models import pairs

_SPEC = clients.SPEC


def _noisy_model(units):
  """With dropout, BatchNorm and a penalty."""

  def build_fn():
    images = tf.keras.Input([8, 8, 1])
    hidden = tf.keras.layers.Flatten()(images)
    hidden = tf.keras.layers.Dense(units, kernel_regularizer='l2')(hidden)
    hidden = tf.keras.layers.BatchNormalization()(hidden)
    hidden = tf.keras.layers.Dropout(0.5)(hidden)
    features = tf.keras.layers.Dense(16)(hidden)
    head = tf.keras.layers.Dense(10)
    return functional.KerasClientModel(
      tf.keras.Model(images, features),
      tf.keras.Sequential([tf.keras.Input([16]), head]),
    )

  return functional.FunctionalModel(build_fn, name=f'noisy_{units}')


def _cross_entropy(features, logits, labels, head_fn, context):
  del features, head_fn, context
  return {'loss': losses.cross_entropy(logits, labels)}


def _both(features, logits, labels, head_fn, context):
  del features, head_fn
  return {
    'loss': losses.cross_entropy(logits, labels),
    'shared': losses.cross_entropy(context['shared_logits'], labels),
  }


@pytest.fixture(scope='module')
def models():
  return _noisy_model(7), _noisy_model(5)


def test_flat_vectors_have_three_parts(models):
  own, shared = models
  pair = pairs.ModelPair(own, shared, [tf.TensorSpec([2, 3])])
  size = own.num_weights + shared.num_weights + 6
  vector = tf.range(size, dtype=tf.float32)
  parts = pair.parts(vector)
  assert [len(part) for part in parts] == [
    own.num_weights,
    shared.num_weights,
    6,
  ]
  trainable, state = pair.split(vector)
  assert [t.shape for t in trainable] == [s.shape for s in pair.trainable_specs]
  assert [t.shape for t in state] == [s.shape for s in pair.state_specs]
  np.testing.assert_array_equal(pair.flatten(trainable, state), vector)
  np.testing.assert_array_equal(trainable[-1], np.reshape(parts[2], [2, 3]))
  np.testing.assert_array_equal(trainable[0], own.split(parts[0])[0][0])
  np.testing.assert_array_equal(state[-1], shared.split(parts[1])[1][-1])


def test_a_step_of_both_is_a_step_of_each(models):
  own, shared = models
  pair = pairs.ModelPair(own, shared)
  options = {'batch_size': 10, 'context_specs': {}, 'input_spec': _SPEC}
  (examples,) = clients.random_examples(1, 10)
  images, labels = tf.constant(examples['x']), tf.constant(examples['y'])
  weights = [model.initial_weights(3) for model in models]
  step = pair.build_train_step(_both, **options)
  seed = tf.constant([1, 2])
  found = step(
    *pair.split(tf.constant(np.concatenate(weights))), images, labels, {}, seed
  )
  other_seed = tf.random.experimental.stateless_fold_in(seed, -1)
  expected = [
    model.build_train_step(_cross_entropy, **options)(
      *model.split(tf.constant(own_weights)), images, labels, {}, own_seed
    )
    for model, own_weights, own_seed in zip(models, weights, (seed, other_seed))
  ]
  for name in ('gradients', 'state'):
    both = [t for output in expected for t in getattr(output, name)]
    assert len(both) == len(getattr(found, name))
    for a, b in zip(getattr(found, name), both):
      np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
  np.testing.assert_array_equal(found.features, expected[0].features)
  np.testing.assert_array_equal(found.logits, expected[0].logits)
  # Penalties are part of both.
  for name, output in zip(('loss', 'shared'), expected):
    np.testing.assert_allclose(found.losses[name], output.losses['loss'], 1e-6)
  forward = pair.build_forward(_SPEC)
  np.testing.assert_array_equal(
    forward(*pair.split(tf.constant(np.concatenate(weights))), images)[1],
    own.build_forward(_SPEC)(*own.split(tf.constant(weights[0])), images)[1],
  )


def test_images_must_fit_both(models):
  own, _ = models
  pair = pairs.ModelPair(own, own.copy())
  spec = input_spec.InputSpec((9, 8, 1))
  with pytest.raises(ValueError, match="'noisy_7': expected inputs of shape"):
    pair.build_train_step(
      _both, batch_size=10, context_specs={}, input_spec=spec
    )


def test_a_copy_has_layers_of_its_own(models):
  own, _ = models
  copy = own.copy()
  np.testing.assert_array_equal(copy.initial_weights(5), own.initial_weights(5))
  assert copy is not own and copy.name == own.name
  # Both are bound at once: with the same layers that could not work.
  pairs.ModelPair(own, copy).build_train_step(
    _both, batch_size=None, context_specs={}, input_spec=_SPEC
  )
