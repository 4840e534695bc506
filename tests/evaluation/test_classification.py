"""Metrics from sums are those of scikit-learn on pooled predictions."""

import math

import numpy as np
import pytest
from sklearn import calibration
from sklearn import metrics as sklearn_metrics
import tensorflow as tf
import tensorflow_federated as tff

from tests.algorithms import clients
from tff_fedsa.client import client_state
from tff_fedsa.evaluation import classification
from tff_fedsa.evaluation import client_evaluation
from tff_fedsa.evaluation import global_evaluation
from tff_fedsa.server import averaging
from tff_fedsa.server import server_model

_ALL = classification.METRICS
_STATISTICS = classification.statistics_of(_ALL)


def _softmax(scores):
  exponents = np.exp(scores - scores.max(axis=1, keepdims=True))
  return exponents / exponents.sum(axis=1, keepdims=True)


def _ece(probabilities, predictions, labels):
  """From scikit-learn's reliability curve, weighted by its bins' examples."""
  confidence = probabilities.max(axis=1)
  correct = predictions == labels
  of_bins, means = calibration.calibration_curve(
    correct, confidence, n_bins=classification.NUM_CALIBRATION_BINS
  )
  edges = np.linspace(0, 1, classification.NUM_CALIBRATION_BINS + 1)
  sizes = np.bincount(np.searchsorted(edges[1:-1], confidence))
  sizes = sizes[sizes > 0]
  return np.sum(sizes * np.abs(of_bins - means)) / len(labels)


def _check(found, scores, labels):
  """Compares with scikit-learn; all classes have labels."""
  predictions = scores.argmax(axis=1)
  probabilities = _softmax(scores.astype(np.float64))
  assert found['macro_f1'] == pytest.approx(
    sklearn_metrics.f1_score(labels, predictions, average='macro'), abs=1e-12
  )
  assert found['balanced_accuracy'] == pytest.approx(
    sklearn_metrics.balanced_accuracy_score(labels, predictions), abs=1e-12
  )
  recall = sklearn_metrics.recall_score(labels, predictions, average=None)
  np.testing.assert_allclose(
    [found[f'recall_{i}'] for i in range(len(recall))], recall, atol=1e-12
  )
  assert found['log_loss'] == pytest.approx(
    sklearn_metrics.log_loss(labels, probabilities.astype(np.float32)), rel=1e-5
  )
  assert found['ece'] == pytest.approx(
    _ece(probabilities, predictions, labels), abs=1e-5
  )
  auroc = sklearn_metrics.roc_auc_score(
    labels, probabilities, multi_class='ovr', average='macro'
  )
  assert abs(found['auroc'] - auroc) <= found['auroc_error'] + 1e-6
  assert found['auroc_error'] < 0.005


@pytest.mark.parametrize('scale', [0.1, 1.0, 5.0])
def test_metrics_are_those_of_scikit_learn(scale):
  rng = np.random.default_rng(0)
  labels = rng.integers(0, 7, 500).astype(np.int32)
  scores = rng.standard_normal([500, 7]).astype(np.float32)
  scores[np.arange(500), labels] += 1.0
  scores *= scale
  sums = classification.of_batch(
    _STATISTICS,
    tf.constant(scores),
    tf.argmax(scores, axis=1, output_type=tf.int32),
    tf.constant(labels),
  )
  _check(classification.compute(sums, _ALL), scores, labels)
  np.testing.assert_array_equal(
    np.asarray(sums['confusion'])[:, :-1],
    sklearn_metrics.confusion_matrix(labels, scores.argmax(axis=1)),
  )


def test_absent_classes_and_no_prediction():
  # Class 2 has no example and is never predicted; one example has no answer.
  labels = np.array([0, 0, 1, 1], np.int32)
  predictions = np.array([0, 1, 1, -1], np.int32)
  scores = np.full([4, 3], -np.inf, np.float32)
  scores[[0, 1, 2], [0, 1, 1]] = 0.0
  sums = classification.of_batch(
    _STATISTICS, tf.constant(scores), tf.constant(predictions), labels
  )
  found = classification.compute(sums, _ALL)
  assert np.asarray(sums['confusion']).tolist() == [
    [1, 1, 0, 0],
    [0, 1, 0, 1],
    [0, 0, 0, 0],
  ]
  assert (found['recall_0'], found['recall_1']) == (0.5, 0.5)
  assert 'recall_2' not in found
  # F1 by hand: 2/3 of class 0, 2 * 1 / (2 + 2) of class 1.
  assert found['macro_f1'] == pytest.approx((2 / 3 + 1 / 2) / 2)
  # Right with certainty twice; clipped at float32's epsilon; a third.
  epsilon = np.finfo(np.float32).eps
  assert found['log_loss'] == pytest.approx(
    (-math.log(epsilon) + math.log(3)) / 4, rel=1e-5
  )
  nothing = classification.zeros(_STATISTICS, 3)
  assert all(map(math.isnan, classification.compute(nothing, _ALL).values()))


def test_unknown_metrics_are_refused():
  with pytest.raises(ValueError, match="Unknown metric 'f1'; known: macro_f1"):
    classification.check(['f1'])
  assert classification.statistics_of([]) == ()
  assert classification.statistics_of(['recall']) == ('confusion',)


@pytest.fixture(scope='module')
def model():
  return clients.tiny_mlp()


def test_the_federated_evaluation(in_process_context, model):
  rng = np.random.default_rng(5)
  centers = rng.standard_normal([2, 10, 16]).astype(np.float32)
  known = server_model.ServerModel(
    anchors=centers[0], prototypes=centers[1], present=np.ones([10], bool)
  )
  initial_state_fn = client_state.build_initial_state_fn(
    [model], client_init='independent'
  )
  states = [initial_state_fn(i) for i in range(2)]
  # More than one batch of inference.
  examples = [
    clients.random_examples(1, number, seed=number)[0] for number in (300, 200)
  ]
  per_client = client_evaluation.evaluate_clients(
    client_evaluation.build_evaluation([model], clients.SPEC, metrics=_ALL),
    known,
    zip(states, examples),
  )
  plain = client_evaluation.evaluate_clients(
    client_evaluation.build_evaluation([model], clients.SPEC),
    known,
    zip(states, examples),
  )
  # Accuracies are the same with and without metrics.
  assert [{name: row[name] for name in plain[0]} for row in per_client] == plain
  pairs = [model.to_keras(state.weights) for state in states]
  features = [e(own['x']).numpy() for (e, _), own in zip(pairs, examples)]
  scores = {
    'head': [h(own).numpy() for (_, h), own in zip(pairs, features)],
    **{
      name: [
        -np.square(own[:, np.newaxis] - centers[i]).mean(axis=2)
        for own in features
      ]
      for i, name in enumerate(('anchor', 'prototype'))
    },
  }
  labels = [own['y'] for own in examples]
  summary = client_evaluation.summarize(per_client, _ALL)
  rows = client_evaluation.without_statistics(per_client, _ALL)
  for name, of_clients in scores.items():
    start = len(name) + 1
    of_all = {
      key[start:]: value
      for key, value in summary.items()
      if key.startswith(f'{name}_')
    }
    _check(of_all, np.concatenate(of_clients), np.concatenate(labels))
    for row, own, own_labels in zip(rows, of_clients, labels):
      _check(
        {k[start:]: v for k, v in row.items() if k.startswith(f'{name}_')},
        own,
        own_labels,
      )
  # Statistics do not leave the evaluation with a client's row.
  assert all(np.isscalar(value) for row in rows for value in row.values())


def test_averaged_models(in_process_context, model):
  (examples,) = clients.random_examples(1, 300, seed=9)
  kernel = np.random.default_rng(3).standard_normal([16, 10])
  weights = model.initial_weights(7)
  known = averaging.with_weights(
    server_model.HeadModel(
      (kernel.astype(np.float32), np.zeros([10], np.float32))
    ),
    weights,
  )
  model_type = tff.tensorflow.computation(
    lambda: tf.nest.map_structure(tf.constant, known)
  ).type_signature.result
  evaluate = global_evaluation.build_global_evaluation(
    [model], clients.SPEC, model_type, metrics=_ALL
  )
  found = global_evaluation.evaluate_test_sets(
    evaluate, known, {'test': examples}
  )
  summary = global_evaluation.summarize(found, _ALL)
  extractor, head = model.to_keras(weights)
  prefix = 'global_test_head_'
  _check(
    {
      name.removeprefix(prefix): value
      for name, value in summary.items()
      if name.startswith(prefix)
    },
    head(extractor(examples['x'])).numpy(),
    examples['y'],
  )
