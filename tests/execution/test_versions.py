"""Workarounds refuse versions that they were not written for."""

import importlib
import pathlib

import pytest

from tff_fedsa.execution import native
from tff_fedsa.execution import versions
from tff_fedsa.execution.in_process import contexts
from tff_fedsa.execution.remote import contexts as remote_contexts
from tff_fedsa.models import functional

_ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def other(monkeypatch):
  """Returns a function that pretends another version of a package."""
  real = versions.installed

  def pretend(package, version):
    monkeypatch.setattr(
      versions,
      'installed',
      lambda name: version if name == package else real(name),
    )

  return pretend


def test_the_versions_of_this_environment_are_those_written_for():
  versions.require(*{w.user for w in versions.WORKAROUNDS})


def test_a_patch_release_is_no_other_version(other):
  other('tensorflow', '2.14.9')
  versions.require('in_process')


@pytest.mark.parametrize(
  'package, version, create, instead',
  [
    (
      'tensorflow',
      '2.141.0',
      contexts.set_in_process_context,
      '--runtime=native',
    ),
    ('python', '3.12.1', contexts.set_in_process_context, '--runtime=native'),
    (
      'tensorflow_federated',
      '0.88.0',
      contexts.create_async_in_process_context,
      '--runtime=native',
    ),
    (
      'tensorflow',
      '2.15.0',
      lambda: remote_contexts.set_remote_context(['localhost:8000']),
      '--runtime=native',
    ),
    (
      'keras',
      '3.0.0',
      lambda: functional.FunctionalModel(None),
      'requirements.lock',
    ),
    (
      'tensorflow_federated',
      '0.88.0',
      native.set_native_context,
      'tff.backends.native',
    ),
  ],
)
def test_others_are_refused(other, package, version, create, instead):
  other(package, version)
  with pytest.raises(versions.VersionError) as caught:
    create()
  message = str(caught.value)
  assert f'found {version}' in message and instead in message
  assert message.startswith(f'Expected {package} ') and '\n' not in message


def test_each_workaround_names_modules_that_exist():
  for workaround in versions.WORKAROUNDS:
    for module in workaround.modules:
      importlib.import_module(f'tff_fedsa.{module}')


def test_all_modules_that_use_internals_are_named():
  named = {m for w in versions.WORKAROUNDS for m in w.modules}
  package = _ROOT / 'tff_fedsa'
  private = (
    'tensorflow_federated.python',
    'tensorflow_federated.proto',
    'from tensorflow.python',
    'from tensorflow.core',
    'from keras.src',
  )
  unnamed = set()
  for path in package.rglob('*.py'):
    module = '.'.join(path.relative_to(package).with_suffix('').parts)
    if module not in named and any(p in path.read_text() for p in private):
      unnamed.add(module)
  assert not unnamed


def test_documents_hold_the_table():
  text = (_ROOT / 'docs' / 'runtimes.md').read_text()
  assert versions.table() in text
