"""The examples in docstrings run."""

import doctest
import importlib
import pathlib

import pytest

_ROOT = pathlib.Path(__file__).parents[1]
_MODULES = sorted(
  '.'.join(path.relative_to(_ROOT).with_suffix('').parts)
  for path in (_ROOT / 'tff_fedsa').rglob('*.py')
  if '>>> ' in path.read_text()
)


def test_there_are_some():
  assert len(_MODULES) >= 5


@pytest.mark.parametrize('name', _MODULES)
def test_docstring_examples(name):
  result = doctest.testmod(importlib.import_module(name))
  assert result.attempted > 0 and result.failed == 0
