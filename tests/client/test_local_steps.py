"""Parts of a client's loop over its examples."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tests.algorithms import clients
from tff_fedsa import settings
from tff_fedsa.algorithms import fedpcl
from tff_fedsa.algorithms import registry
from tff_fedsa.client import local_optimizer
from tff_fedsa.client import local_steps
from tff_fedsa.client import local_training
from tff_fedsa.client import objective
from tff_fedsa.runs import errors


@pytest.mark.parametrize('dtype', ['uint8', 'float32'])
@pytest.mark.parametrize('shape', [(32, 32, 3), (8, 8, 1), (3, 5, 1)])
def test_images_are_taken_as_gather_takes_them(dtype, shape):
  # (3, 5, 1) does not fill words of eight bytes.
  images = np.random.default_rng(0).integers(0, 256, [9, *shape]).astype(dtype)
  signature = [
    tf.TensorSpec([None, *shape], dtype),
    tf.TensorSpec([None], tf.int32),
  ]
  take = tf.function(local_steps.take, input_signature=signature)
  for chosen in ([3, 0, 8, 3], [], [7]):
    chosen = np.array(chosen, np.int32)
    np.testing.assert_array_equal(take(images, chosen), images[chosen])


def test_a_static_batch_stays_static():
  images = tf.zeros([9, 8, 8, 1], tf.uint8)
  taken = local_steps.take(images, tf.constant([1, 2]))
  assert taken.shape == (2, 8, 8, 1)


def _keras_step(model, weights, examples, of_head):
  """Returns flat weights after a step of the head, or of the extractor."""
  extractor, head = model.to_keras(weights)
  learns = head if of_head else extractor
  with tf.GradientTape() as tape:
    logits = head(extractor(examples['x']))
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
      examples['y'], logits
    )
    loss = tf.reduce_mean(losses)
  gradients = tape.gradient(loss, learns.trainable_weights)
  for weight, gradient in zip(learns.trainable_weights, gradients):
    weight.assign_sub(0.1 * gradient)
  trained = extractor.trainable_weights + head.trainable_weights
  return np.concatenate([weight.numpy().ravel() for weight in trained])


def _with_head_epochs(model, **config):
  return local_training.build_local_training(
    model,
    objective.cross_entropy_objective(),
    local_optimizer.LocalOptimizer(
      tff.learning.optimizers.build_sgdm(0.1, 0.9)
    ),
    clients.SPEC,
    local_training.LocalTrainingConfig(
      batch_size=10, num_epochs=2, head_epochs=1, **config
    ),
  )


def test_the_head_learns_first_and_then_the_extractor():
  model = clients.tiny_mlp()
  (examples,) = clients.random_examples(1, 10)
  weights = model.initial_weights(0)
  # Momentum would move the head on after its only epoch.
  result = tf.function(_with_head_epochs(model), autograph=False)(
    tf.constant(weights),
    tf.zeros([0]),
    examples,
    {},
    tf.constant([0, 0]),
    tf.constant(0),
  )
  expected = _keras_step(model, weights, examples, of_head=True)
  expected = _keras_step(model, expected, examples, of_head=False)
  np.testing.assert_allclose(result.weights, expected, rtol=1e-5, atol=1e-6)


def test_who_has_no_epochs_of_the_head_alone():
  with pytest.raises(settings.SettingsError, match='< num_epochs=2, so that'):
    local_training.LocalTrainingConfig(num_epochs=2, head_epochs=2)
  model = clients.tiny_mlp()
  own = {3: {'client_epochs_per_round': 5}}
  with pytest.raises(errors.UserError, match='all clients have the same epoch'):
    _with_head_epochs(model, client_settings=own)
  contrast = fedpcl.FedPCLConfig(cross_entropy_weight=0.0)
  for algorithm, config, options, match in (
    ('fml', None, {}, 'also trains a shared model'),
    ('local', None, {'batch_clients': 2}, 'trained together'),
    ('fedpcl', contrast, {}, 'Heads learn nothing'),
  ):
    with pytest.raises(errors.UserError, match=match):
      registry.build(
        algorithm,
        [model],
        config,
        input_spec=clients.SPEC,
        local=local_training.LocalTrainingConfig(
          num_epochs=2, head_epochs=1, **options
        ),
      )
