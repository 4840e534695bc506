"""The cross-entropy with smoothed labels, class weights, adjusted logits."""

import numpy as np
import pytest
from sklearn.utils import class_weight
import tensorflow as tf

from tests.algorithms import clients
from tff_fedsa import settings as settings_lib
from tff_fedsa.algorithms import fml
from tff_fedsa.client import label_loss
from tff_fedsa.client import local_training

# A client without examples of class 3.
LABELS = np.array([0, 0, 0, 0, 1, 2, 2], np.int32)
LOGITS = np.random.default_rng(0).normal(size=[7, 4]).astype(np.float32)


def loss_of(**settings):
  config = local_training.LocalTrainingConfig(**settings)
  context = label_loss.context(config, tf.constant(LABELS), 4)
  specs = label_loss.context_specs(config, 4)
  assert {n: t.shape for n, t in context.items()} == {
    n: s.shape for n, s in specs.items()
  }
  return float(label_loss.cross_entropy(LOGITS, LABELS, context))


def log_softmax(logits):
  return logits - np.log(np.sum(np.exp(logits), axis=1, keepdims=True))


def test_the_default_is_the_plain_cross_entropy():
  expected = -np.mean(log_softmax(LOGITS)[np.arange(7), LABELS])
  assert loss_of() == pytest.approx(expected, rel=1e-6)
  assert not label_loss.context_specs(local_training.LocalTrainingConfig(), 4)


def test_smoothing_equals_that_of_keras():
  keras = tf.keras.losses.CategoricalCrossentropy(
    from_logits=True, label_smoothing=0.2
  )
  expected = float(keras(np.eye(4, dtype=np.float32)[LABELS], LOGITS))
  assert loss_of(label_smoothing=0.2) == pytest.approx(expected, rel=1e-6)


def test_balanced_weights_equal_those_of_scikit_learn():
  weights = class_weight.compute_sample_weight('balanced', LABELS)
  terms = -log_softmax(LOGITS)[np.arange(7), LABELS]
  expected = np.mean(weights * terms)
  assert loss_of(class_weights='balanced') == pytest.approx(expected, rel=1e-6)


def test_adjusted_logits_have_the_log_shares_of_classes():
  shares = np.array([4 / 7, 1 / 7, 2 / 7, 1e-6])
  adjusted = log_softmax(LOGITS + 2.0 * np.log(shares))
  expected = -np.mean(adjusted[np.arange(7), LABELS])
  assert loss_of(logit_adjustment=2.0) == pytest.approx(expected, rel=1e-6)


def test_a_client_without_examples_has_finite_context():
  config = local_training.LocalTrainingConfig(
    class_weights='balanced', logit_adjustment=1.0
  )
  context = label_loss.context(config, tf.zeros([0], tf.int32), 4)
  assert all(np.all(np.isfinite(tensor)) for tensor in context.values())


@pytest.mark.parametrize(
  'settings',
  [
    {'label_smoothing': 1.0},
    {'class_weights': 'inverse'},
    {'logit_adjustment': -1.0},
  ],
)
def test_values_out_of_range_are_refused(settings):
  with pytest.raises(settings_lib.SettingsError, match=next(iter(settings))):
    local_training.LocalTrainingConfig(**settings)


@pytest.mark.usefixtures('in_process_context')
def test_steps_of_a_pair_of_models_have_it():
  model = clients.tiny_mlp()
  (examples,) = clients.random_examples(1, 10)
  weights = np.bincount(examples['y'], minlength=10)
  weights = 10 / np.sum(weights > 0) / np.maximum(weights, 1)
  process = fml.build_fml(
    [model],
    input_spec=clients.SPEC,
    local=local_training.LocalTrainingConfig(
      class_weights='balanced', label_smoothing=0.1, logit_adjustment=0.5
    ),
  )
  _, _, measurements = clients.run(process, [model], [examples], rounds=1)
  encoder, head = model.to_keras(model.initial_weights(0))
  shares = np.bincount(examples['y'], minlength=10) / 10
  logits = head(encoder(examples['x'])) + 0.5 * np.log(np.maximum(shares, 1e-6))
  targets = 0.9 * np.eye(10)[examples['y']] + 0.01
  terms = -np.sum(targets * log_softmax(np.asarray(logits)), axis=1)
  expected = np.mean(weights[examples['y']] * terms)
  found = measurements['client_work']['cross_entropy']
  assert float(found) == pytest.approx(expected, rel=1e-5)
