"""Methods by name: one signature, each its own classifiers."""

import dataclasses
import functools

import pytest

from tests.algorithms import clients
from tff_fedsa import composer
from tff_fedsa import settings
from tff_fedsa.algorithms import fedsa
from tff_fedsa.algorithms import local
from tff_fedsa.algorithms import registry
from tff_fedsa.evaluation import client_evaluation
from tff_fedsa.runs import metrics
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


# Methods of which some terms are off by default.
_ALL_TERMS = {
  'fedsa': fedsa.FedSAConfig(lambda_structure=1.0, lambda_virtual=1.0)
}


@pytest.fixture(scope='module')
def process_of(model):
  return functools.cache(
    lambda name: registry.build(
      name, [model], _ALL_TERMS.get(name), input_spec=clients.SPEC
    )
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


@pytest.mark.parametrize(
  'name',
  [
    # One with a companion, one with a trained server, one that averages.
    pytest.param(
      name,
      marks=() if name in ('fedkd', 'fedgen', 'fedavg') else pytest.mark.slow,
    )
    for name in registry.NAMES
  ],
)
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


def test_methods_declare_what_they_average():
  averages = {name: registry.get(name).averages for name in registry.NAMES}
  assert {name: a for name, a in averages.items() if a} == {
    'fedsa': 'prototypes',
    'fedproto': 'prototypes',
    'feddistill': 'logits',
    'fedavg': 'weights',
    'fedprox': 'weights',
  }


@pytest.mark.parametrize('name', registry.NAMES)
def test_methods_declare_the_terms_that_they_measure(process_of, name):
  method = registry.get(name)
  assert method.name == name
  work = process_of(name).next.type_signature.result.measurements.member[
    'client_work'
  ]
  others = {'loss', 'cross_entropy', 'examples', 'clients_trained'}
  others |= {'clients_nonfinite', *metrics.COLUMNS}
  assert set(dir(work)) - others == set(method.terms) - {*metrics.COLUMNS}
  assert set(method.terms) <= set(dir(work))


def test_the_flags_of_a_method_begin_with_its_name():
  for method in registry.methods():
    for setting in settings.fields_of(method.config):
      assert method.name == 'fedsa' or setting.flag.startswith(
        f'{method.name}_'
      )


def test_what_is_unknown_is_named():
  with pytest.raises(ValueError, match="Unknown algorithm 'fed'; known: fedsa"):
    registry.get('fed')
  with pytest.raises(
    TypeError, match='local takes no anchors, keep_missing; i'
  ):
    registry.build(
      'local', [], input_spec=clients.SPEC, anchors=None, keep_missing=True
    )
  with pytest.raises(
    TypeError, match='of fedsa to be a FedSAConfig, found Loc'
  ):
    registry.build('fedsa', [], local.LocalConfig(), input_spec=clients.SPEC)


def test_an_own_method_is_registered(monkeypatch, model):
  monkeypatch.setattr(registry, '_registered', {})
  own = dataclasses.replace(registry.get('local'), name='own', title='Own')
  registry.register(own)
  assert registry.names() == (*registry.NAMES, 'own')
  assert registry.get('own').title == 'Own'
  process = registry.build(
    'own', [model], input_spec=clients.SPEC, model_seed=1, max_participants=2
  )
  assert isinstance(process, composer.StatefulProcess)
  with pytest.raises(ValueError, match="'own' is registered already"):
    registry.register(own)


@pytest.mark.parametrize('name', ['local', 'fedavg'])
def test_a_process_is_composed_once(model, monkeypatch, name):
  composed, compose = [], composer._compose

  def counted(*arguments):
    composed.append(arguments)
    return compose(*arguments)

  monkeypatch.setattr(composer, '_compose', counted)
  process = registry.build(
    name, [model], input_spec=clients.SPEC, max_examples=5
  )
  assert len(composed) == 1
  assert process.parts.limits.max_examples == 5
