"""Large modules are imported without the garbage collector."""

import gc
import sys

import pytest

from tff_fedsa.execution import imports


@pytest.fixture
def freezes(monkeypatch):
  """Counts calls; to freeze what tests leave behind would keep it for good."""
  calls = []
  monkeypatch.setattr(gc, 'freeze', lambda: calls.append(gc.isenabled()))
  return calls


@pytest.fixture
def write(tmp_path, monkeypatch):
  """Writes a module and returns its name."""
  monkeypatch.syspath_prepend(str(tmp_path))
  names = []

  def write_module(name, text):
    (tmp_path / f'{name}.py').write_text(text)
    names.append(name)
    return name

  yield write_module
  for name in names:
    sys.modules.pop(name, None)


def test_a_module_is_imported_without_collections(write, freezes):
  name = write('module_of_imports', 'import gc\nFOUND = gc.isenabled()\n')
  imports.quickly(name)
  assert not sys.modules[name].FOUND
  assert gc.isenabled() and freezes == [False]
  imports.quickly(name)
  assert freezes == [False]


def test_the_collector_goes_on_after_an_error(write, freezes):
  with pytest.raises(ZeroDivisionError):
    imports.quickly(write('broken_of_imports', '1 / 0'))
  assert gc.isenabled() and not freezes


def test_a_program_without_a_collector_stays_so(write, freezes):
  gc.disable()
  try:
    imports.quickly(write('other_of_imports', ''))
    assert not gc.isenabled()
  finally:
    gc.enable()
  assert freezes == [False]
