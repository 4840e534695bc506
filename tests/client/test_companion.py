"""A shared model beside the client's own: which one, and its training."""

import numpy as np
import pytest
import tensorflow as tf

from tests.algorithms import clients
from tff_fedsa.client import companion as companion_lib
from tff_fedsa.client import local_training
from tff_fedsa.client import objective as objective_lib
from tff_fedsa.data import input_spec
from tff_fedsa.maths import losses
from tff_fedsa.models import architectures

_SPEC = input_spec.InputSpec((8, 8, 1))
_PRIVATE = tf.TensorSpec([2, 3])


@pytest.fixture(scope='module')
def digits():
  return [
    architectures.build(name, (8, 8, 1), 10, 16)
    for name in ('digits_cnn', 'digits_mlp')
  ]


def test_the_smallest_model_is_shared_by_default(digits):
  smallest = min(digits, key=lambda model: model.num_weights)
  chosen = companion_lib.choose_model(digits, None, _SPEC)
  assert chosen.name == smallest.name
  # Its Keras layers are its own.
  assert chosen is not smallest and chosen.halves[0] is not smallest.halves[0]


def test_a_shared_model_by_name_has_the_clients_sizes(digits):
  chosen = companion_lib.choose_model(digits, 'digits_cnn', _SPEC)
  assert chosen.name == 'digits_cnn'
  assert (chosen.input_shape, chosen.num_classes, chosen.feature_dim) == (
    (8, 8, 1),
    10,
    16,
  )
  given = companion_lib.choose_model(digits, digits[0], _SPEC)
  assert given.name == digits[0].name and given is not digits[0]


@pytest.mark.parametrize(
  'sizes, message',
  [
    (((8, 8, 3), 10, 16), r'input_shape = \(8, 8, 1\), found \(8, 8, 3\) in '),
    (((8, 8, 1), 3, 16), "clients' num_classes = 10, found 3 in 'digits_mlp'"),
    (((8, 8, 1), 10, 8), "clients' feature_dim = 16, found 8 in 'digits_mlp'"),
  ],
)
def test_a_shared_model_that_does_not_fit_is_named(digits, sizes, message):
  other = architectures.build('digits_mlp', *sizes)
  with pytest.raises(ValueError, match=message):
    companion_lib.choose_model(digits, other, _SPEC)


def test_a_family_of_several_is_no_shared_model(digits):
  with pytest.raises(ValueError, match=r"found 'digits3', which is \['digits"):
    companion_lib.choose_model(digits, 'digits3', _SPEC)


def test_norms_to_clip_at():
  for good in (None, 1e-3, 10.0):
    companion_lib.check_clip_norm(good)
  for bad in (0.0, -1.0, np.inf, np.nan):
    with pytest.raises(ValueError, match=f'clip norm > 0, .* found {bad}'):
      companion_lib.check_clip_norm(bad)


def _loss_fn(features, logits, labels, head_fn, context):
  """Each model learns the labels, and the private table goes to -infinity."""
  del features, head_fn
  (private,) = context['private']
  return {
    'loss': losses.cross_entropy(logits, labels) + tf.reduce_sum(private),
    'shared': losses.cross_entropy(context['shared_logits'], labels),
  }


@pytest.fixture(scope='module')
def models():
  return clients.tiny_mlp(), clients.tiny_mlp('tanh')


def _training(models, **options):
  """Returns `fn(own, shared, private)`, a round of one step."""
  own, shared = models
  train = companion_lib.build_training(
    own,
    companion_lib.Companion(
      shared,
      receive_fn=lambda broadcast: broadcast['shared'],
      # Clients send what their shared model has learnt.
      send_fn=lambda broadcast, weights: weights - broadcast['shared'],
      private_specs=[_PRIVATE],
      initial_private_fn=lambda: [tf.fill([2, 3], 7.0)],
      **options,
    ),
    objective_lib.ClientObjective(_loss_fn, ('loss', 'shared')),
    clients.sgd(0.5),
    clients.SPEC,
    clients.ONE_STEP,
  )
  (examples,) = clients.random_examples(1, 10)
  return tf.function(
    lambda own, shared, private: train(
      own,
      tf.zeros([0]),
      {name: tf.constant(array) for name, array in examples.items()},
      {},
      tf.constant([0, 0]),
      tf.constant(0),
      {'shared': shared},
      private,
    ),
    autograph=False,
    input_signature=[tf.TensorSpec([None])] * 3,
  )


def _alone(model, weights):
  """Returns the weights of a model after the same step without another."""
  (examples,) = clients.random_examples(1, 10)
  train = local_training.build_local_training(
    model,
    objective_lib.cross_entropy_objective(),
    clients.sgd(0.5),
    clients.SPEC,
    clients.ONE_STEP,
  )
  result = tf.function(train, autograph=False)(
    tf.constant(weights),
    tf.zeros([0]),
    {name: tf.constant(array) for name, array in examples.items()},
    {},
    tf.constant([0, 0]),
    tf.constant(0),
  )
  return result.weights.numpy()


def test_each_model_takes_its_own_step(models):
  weights = [model.initial_weights(seed) for seed, model in enumerate(models)]
  train = _training(models)
  first = train(*weights, np.zeros([0], np.float32))
  expected = [_alone(*pair) for pair in zip(models, weights)]
  np.testing.assert_allclose(first.weights, expected[0], atol=1e-5)
  np.testing.assert_allclose(
    first.companion, expected[1] - weights[1], atol=1e-5
  )
  assert np.abs(first.companion).max() > 1e-3
  # From 7, against a gradient of 1, at a rate of 0.5.
  np.testing.assert_array_equal(first.private, [6.5] * 6)
  # What the client kept is where it goes on.
  second = train(*weights, first.private)
  np.testing.assert_array_equal(second.private, [6.0] * 6)
  np.testing.assert_allclose(second.weights, first.weights, atol=1e-6)


def test_each_models_gradient_is_clipped(models):
  weights = [model.initial_weights(seed) for seed, model in enumerate(models)]
  train = _training(models, clip_norm=0.1, optimizer=clients.sgd(2.0))
  result = train(*weights, np.zeros([0], np.float32))
  # The lengths of the steps: rate times largest norm.
  steps = result.weights - weights[0], result.companion, result.private - 7.0
  lengths = [np.linalg.norm(step) for step in steps]
  np.testing.assert_allclose(lengths, [0.05, 0.2, 0.05], rtol=1e-4)


def test_a_norm_that_is_none_is_named(models):
  with pytest.raises(ValueError, match='clip norm > 0, or None .* found -1'):
    _training(models, clip_norm=-1.0)
