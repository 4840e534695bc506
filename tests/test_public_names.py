"""`import tff_fedsa`: some twenty names, at no cost."""

import importlib
import os
import subprocess
import sys

import pytest

import tff_fedsa


def test_every_name_is_there_and_listed():
  assert 15 <= len(tff_fedsa.__all__) <= 25
  for name in tff_fedsa.__all__:
    assert getattr(tff_fedsa, name) is not None, name
    assert name in dir(tff_fedsa)
    if name != '__version__':
      assert name in tff_fedsa.__doc__, name


def test_names_are_those_of_their_modules():
  for name, (module, attribute) in tff_fedsa._NAMES.items():
    found = importlib.import_module(f'tff_fedsa.{module}')
    assert getattr(tff_fedsa, name) is getattr(found, attribute)


def test_a_wrong_name_is_an_attribute_error():
  with pytest.raises(AttributeError, match="no attribute 'Experimnt'"):
    tff_fedsa.Experimnt  # noqa: B018


def test_describing_an_experiment_imports_neither_tensorflow_nor_flags():
  program = (
    'import sys, tff_fedsa\n'
    "experiment = tff_fedsa.Experiment.from_preset('fedsa.digits')\n"
    "experiment.replace(alpha=0.5, algorithm='local').flags()\n"
    'tff_fedsa.TaskSpec(num_clients=3)\n'
    "slow = {'tensorflow', 'tensorflow_federated', 'absl.flags', 'pandas'}\n"
    'assert not slow & set(sys.modules), slow & set(sys.modules)\n'
  )
  process = subprocess.run(
    [sys.executable, '-c', program], stderr=-1, text=True
  )
  assert process.returncode == 0, process.stderr


def test_tensorflow_is_quiet_unless_the_user_wants_its_notes():
  program = (
    "import os, tff_fedsa; print(os.environ['TF_CPP_MIN_LOG_LEVEL'], end='')"
  )
  for given, expected in (({}, '3'), ({'TF_CPP_MIN_LOG_LEVEL': '0'}, '0')):
    environment = {
      name: value
      for name, value in os.environ.items()
      if name != 'TF_CPP_MIN_LOG_LEVEL'
    }
    process = subprocess.run(
      [sys.executable, '-c', program],
      env={**environment, **given},
      stdout=subprocess.PIPE,
      text=True,
    )
    assert process.stdout == expected


def test_moved_modules_are_found_with_a_warning():
  import importlib

  for name, room in tff_fedsa._MOVED.items():
    module = importlib.import_module(f'tff_fedsa.{room}.{name}')
    with pytest.warns(DeprecationWarning, match=f'is now tff_fedsa.{room}'):
      assert tff_fedsa.__getattr__(name) is module
