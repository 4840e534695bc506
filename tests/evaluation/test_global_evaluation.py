"""The averaged model on the global test set, by hand."""

import collections

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tests.algorithms import clients
from tff_fedsa.evaluation import client_evaluation
from tff_fedsa.evaluation import global_evaluation
from tff_fedsa.server import averaging
from tff_fedsa.server import server_model

pytestmark = pytest.mark.usefixtures('in_process_context')


@pytest.fixture(scope='module')
def models():
  return [clients.tiny_mlp()]


def _random(*shape):
  return np.random.default_rng(3).standard_normal(shape).astype(np.float32)


def _evaluate(models, model, examples):
  """Tests what a method's server knows, with averaged weights."""
  weights = models[0].initial_weights(1)
  model = averaging.with_weights(model, weights)
  evaluate = global_evaluation.build_global_evaluation(
    models, clients.SPEC, _type_of(model)
  )
  found = global_evaluation.evaluate_test_sets(
    evaluate, model, {'test': examples}
  )
  extractor, head = models[0].to_keras(weights)
  features = extractor(examples['x']).numpy()
  return found['test'], features, head(features).numpy()


def _type_of(model):
  return tff.tensorflow.computation(
    lambda: tf.nest.map_structure(tf.constant, model)
  ).type_signature.result


def _correct(scores, labels):
  return int(np.sum(np.argmax(scores, axis=1) == labels))


def _nearness(features, centers):
  return -np.square(features[:, None] - centers).sum(axis=2)


def test_all_classifiers_by_hand(models, monkeypatch):
  # Several shards, several calls, and a rest.
  monkeypatch.setattr(global_evaluation, '_SHARD_SIZE', 7)
  monkeypatch.setattr(global_evaluation, '_SHARDS_PER_CALL', 3)
  model = server_model.ServerModel(
    anchors=_random(10, 16),
    prototypes=np.flip(_random(10, 16)),
    present=np.arange(10) != 4,
  )
  (examples,) = clients.random_examples(1, 100, seed=9)
  found, features, logits = _evaluate(models, model, examples)
  labels = examples['y']
  nearness = np.where(
    model.present, _nearness(features, model.prototypes), -np.inf
  )
  assert found == {
    'num_examples': 100,
    'prototype': _correct(nearness, labels),
    'anchor': _correct(_nearness(features, model.anchors), labels),
    'head': _correct(logits, labels),
  }
  # They differ, so none stands for another.
  assert len(set(found.values())) == 4


def test_the_servers_head_on_features_of_the_averaged_model(models):
  kernel, bias = _random(16, 10), _random(10)
  (examples,) = clients.random_examples(1, 40, seed=9)
  found, features, logits = _evaluate(
    models, server_model.HeadModel((kernel, bias)), examples
  )
  assert found == {
    'num_examples': 40,
    'head': _correct(logits, examples['y']),
    'global_head': _correct(features @ kernel + bias, examples['y']),
  }


def test_domains_count_the_same():
  counts = collections.OrderedDict(
    amazon={'num_examples': 100, 'prototype': 0, 'head': 50},
    dslr={'num_examples': 10, 'prototype': 10, 'head': 1},
  )
  assert global_evaluation.summarize(counts) == {
    'global_test_prototype_accuracy': 0.5,
    'global_test_prototype_accuracy_amazon': 0.0,
    'global_test_prototype_accuracy_dslr': 1.0,
    'global_test_head_accuracy': 0.3,
    'global_test_head_accuracy_amazon': 0.5,
    'global_test_head_accuracy_dslr': 0.1,
  }
  one = {'test': {'num_examples': 4, 'head': 3}}
  assert global_evaluation.summarize(one) == {'global_test_head_accuracy': 0.75}


def test_names_are_never_those_of_the_other_protocol():
  assert not set(client_evaluation.CLASSIFIERS) & set(
    client_evaluation.GLOBAL_CLASSIFIERS
  )
  mains = [
    client_evaluation.main_classifier(
      [client_evaluation.GLOBAL_PREFIX + n for n in names]
    )
    for names in (('prototype', 'anchor', 'head'), ('head', 'global_head'))
  ]
  assert mains == ['global_test_head'] * 2


def test_an_averaged_model_is_needed(models):
  model_type = server_model.server_model_type(10, 16)
  with pytest.raises(ValueError, match='this process averages no weights'):
    global_evaluation.build_global_evaluation(models, clients.SPEC, model_type)


def test_names_of_what_was_tested():
  def names(*pairs):
    return list(global_evaluation.by_name({pair: {} for pair in pairs}))

  assert names(('test', 'mlp')) == ['test']
  assert names(('test', 'mlp'), ('test', 'a_cnn')) == ['mlp', 'a_cnn']
  assert names(('x', 'mlp'), ('y', 'mlp')) == ['x', 'y']
  assert names(('x', 'a'), ('x', 'b'), ('y', 'a'), ('y', 'b')) == [
    'x_a',
    'x_b',
    'y_a',
    'y_b',
  ]
