"""Methods by name: one signature, each its own classifiers."""

import functools

import pytest

from tests.algorithms import clients
from tff_fedsa import composer
from tff_fedsa.algorithms import registry
from tff_fedsa.evaluation import client_evaluation
from tff_fedsa.server import averaging as averaging_lib

_CLASSIFIERS = {
  'fedsa': ('prototype', 'anchor', 'head'),
  'fedproto': ('prototype', 'head'),
  'fedtgp': ('prototype', 'head'),
  'local': ('head',),
  'feddistill': ('head',),
  'lg_fedavg': ('head', 'global_head'),
  'fedgh': ('head', 'global_head'),
  'fedavg': ('head',),
  'fedprox': ('head',),
  'fml': ('head',),
  'fedkd': ('head',),
  'fedgen': ('head', 'global_head'),
  'fedpcl': ('prototype', 'head'),
}


@pytest.fixture(scope='module')
def model():
  return clients.tiny_mlp()


@pytest.fixture(scope='module')
def process_of(model):
  return functools.cache(
    lambda name: registry.build(name, [model], input_spec=clients.SPEC)
  )


@pytest.fixture(scope='module')
def averaging(model):
  return averaging_lib.build_weight_averaging([model])


@pytest.mark.parametrize('name', registry.NAMES)
def test_all_have_the_same_signature(process_of, name):
  process = process_of(name)
  assert isinstance(process, composer.StatefulProcess)
  found, expected = (
    p.next.type_signature.parameter for p in (process, process_of('fedsa'))
  )
  assert found.client_states == expected.client_states
  assert found.examples == expected.examples
  assert process.next.type_signature.result.result == expected.client_states
  classifiers = client_evaluation.classifiers_of(process.server_model_type)
  assert classifiers == _CLASSIFIERS[name]
  assert process.averages_weights == (name in ('fedavg', 'fedprox'))


@pytest.mark.parametrize('name', registry.NAMES)
def test_all_have_an_averaged_model_in_protocol_global(
  process_of, averaging, name
):
  process = process_of(name)
  if not process.averages_weights:
    process = composer.with_averaging(process, averaging)
  assert process.averages_weights
  classifiers = client_evaluation.classifiers_of(process.server_model_type)
  assert classifiers == _CLASSIFIERS[name]


def test_the_main_classifier_is_the_one_that_papers_report():
  mains = {
    n: client_evaluation.main_classifier(c) for n, c in _CLASSIFIERS.items()
  }
  assert mains == {
    'fedsa': 'prototype',
    'fedproto': 'prototype',
    'fedtgp': 'prototype',
    'local': 'head',
    'feddistill': 'head',
    'lg_fedavg': 'global_head',
    'fedgh': 'global_head',
    'fedavg': 'head',
    'fedprox': 'head',
    'fml': 'head',
    'fedkd': 'head',
    'fedgen': 'global_head',
    'fedpcl': 'prototype',
  }


def test_hyperparameters_are_those_of_the_builder():
  assert registry.hyperparameters('local') == {'objective': None}
  assert registry.hyperparameters('fedtgp') == {
    'regularization_weight': 10.0,
    'server_epochs': 100,
    'server_learning_rate': 0.01,
    'max_margin': 100.0,
    'reference_order': False,
    'model_seed': 0,
  }


def test_what_is_unknown_is_named():
  with pytest.raises(ValueError, match="Unknown algorithm 'fed'; known: fedsa"):
    registry.get('fed')
  with pytest.raises(TypeError, match='local takes no anchors, keep_missing'):
    registry.build('local', [], anchors=None, keep_missing=True)
