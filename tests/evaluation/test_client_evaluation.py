"""Every client on its own test data, by hand."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tests.algorithms import clients
from tff_fedsa.client import client_state
from tff_fedsa.evaluation import client_evaluation
from tff_fedsa.server import averaging
from tff_fedsa.server import server_model

pytestmark = pytest.mark.usefixtures('in_process_context')


@pytest.fixture(scope='module')
def models():
  return [clients.tiny_mlp(), clients.tiny_mlp('tanh')]


def _random(*shape, seed=3):
  return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _states(models):
  """Three clients, each with weights of its own."""
  initial_state_fn = client_state.build_initial_state_fn(
    models, client_init='independent'
  )
  return [initial_state_fn(i) for i in range(3)]


def _type_of(model):
  return tff.tensorflow.computation(
    lambda: tf.nest.map_structure(tf.constant, model)
  ).type_signature.result


def _correct(scores, labels):
  return int(np.sum(np.argmax(scores, axis=1) == labels))


def _nearness(features, centers):
  return -np.square(features[:, None] - centers).sum(axis=2)


def test_all_classifiers_by_hand(models):
  model = server_model.ServerModel(
    anchors=_random(10, 16),
    prototypes=_random(10, 16, seed=5),
    present=np.arange(10) != 4,
  )
  # More than the 128 of one forward pass, and other numbers.
  examples = [
    clients.random_examples(1, number, seed=number)[0]
    for number in (150, 60, 1)
  ]
  states = _states(models)
  expected = []
  for i, (state, own) in enumerate(zip(states, examples)):
    extractor, head = models[i % 2].to_keras(state.weights)
    features = extractor(own['x']).numpy()
    nearness = np.where(
      model.present, _nearness(features, model.prototypes), -np.inf
    )
    expected.append(
      {
        'num_examples': len(own['y']),
        'prototype': _correct(nearness, own['y']),
        'anchor': _correct(_nearness(features, model.anchors), own['y']),
        'head': _correct(head(features).numpy(), own['y']),
      }
    )
  # They differ, so none stands for another.
  assert len(set(expected[0].values())) == 4

  evaluate = client_evaluation.build_evaluation(models, clients.SPEC)
  taken = []

  def given():
    for pair in zip(states, examples):
      taken.append(pair)
      yield pair

  found = client_evaluation.evaluate_clients(
    evaluate, model, given(), clients_per_call=2
  )
  assert found == expected and len(taken) == 3
  # Where nothing is present no prototype is right.
  (nothing,) = client_evaluation.evaluate_clients(
    evaluate,
    model._replace(present=np.zeros([10], bool)),
    zip(states[:1], examples[:1]),
  )
  assert nothing == {**expected[0], 'prototype': 0}


def test_clients_are_taken_when_their_turn_comes():
  taken = itertools.count()
  seen = []

  def evaluate(unused_model, states, examples):
    # How many were taken before this call.
    seen.append((states, examples, next(taken)))
    return [{'num_examples': np.int32(n)} for n in examples]

  def given():
    for i in range(5):
      next(taken)
      yield i, 10 * i

  found = client_evaluation.evaluate_clients(
    evaluate, None, given(), clients_per_call=2
  )
  assert found == [{'num_examples': 10 * i} for i in range(5)]
  assert seen == [
    ([0, 1], [0, 10], 2),
    ([2, 3], [20, 30], 5),
    ([4], [40], 7),
  ]


@pytest.mark.parametrize('averages', [False, True])
def test_the_servers_head_and_averaged_weights(models, averages):
  (model,) = models[:1]
  kernel, bias = _random(16, 10), _random(10, seed=4)
  known = server_model.HeadModel((kernel, bias))
  (examples,) = clients.random_examples(1, 100, seed=9)
  state = _states(models)[0]
  weights = state.weights
  if averages:
    weights = model.initial_weights(7)
    known = averaging.with_weights(known, weights)
  evaluate = client_evaluation.build_evaluation(
    [model], clients.SPEC, _type_of(known)
  )
  (found,) = client_evaluation.evaluate_clients(
    evaluate, known, [(state, examples)]
  )
  extractor, head = model.to_keras(weights)
  features = extractor(examples['x']).numpy()
  assert found == {
    'num_examples': 100,
    'head': _correct(head(features).numpy(), examples['y']),
    'global_head': _correct(features @ kernel + bias, examples['y']),
  }
  assert found['head'] != found['global_head']


def test_methods_have_the_classifiers_that_their_servers_know():
  heads = server_model.head_model_type([tf.TensorSpec([16, 10])])
  for model_type, names in (
    (server_model.server_model_type(3, 2), ('prototype', 'anchor', 'head')),
    (server_model.prototype_model_type(3, 2), ('prototype', 'head')),
    (heads, ('head', 'global_head')),
    (tff.types.to_type(()), ('head',)),
  ):
    assert client_evaluation.classifiers_of(model_type) == names
  main = client_evaluation.main_classifier
  assert main(('anchor', 'head', 'prototype')) == 'prototype'
  assert main(('head', 'global_head')) == 'global_head'
  assert main(('head', 'loss')) == 'head'


def test_summary_by_hand():
  counts = [
    dict(num_examples=10, prototype=10, anchor=5, head=0),
    dict(num_examples=30, prototype=15, anchor=15, head=30),
  ]
  summary = client_evaluation.summarize(counts)
  assert summary['prototype_accuracy'] == 25 / 40
  assert summary['prototype_accuracy_mean'] == 0.75
  assert summary['prototype_accuracy_std'] == 0.25
  assert summary['prototype_accuracy_min'] == 0.5
  np.testing.assert_allclose(summary['prototype_accuracy_p10'], 0.55)
  assert summary['anchor_accuracy'] == summary['anchor_accuracy_mean'] == 0.5
  assert summary['head_accuracy'] == 0.75
  assert 'global_head_accuracy' not in summary


def test_clients_without_examples_are_no_error():
  none = dict(num_examples=0, head=0)
  assert client_evaluation.summarize([none])['head_accuracy'] == 0.0
