"""The rules of the house: layers, rooms, no import circle, one BUILD file."""

import ast
import configparser
import graphlib
import pathlib
import re

import pytest

_ROOT = pathlib.Path(__file__).parents[1]
_MOST_MODULES_IN_THE_ROOT = 8
_MOST_LINES_OF_BUILD = 120

# The packages of ours that a folder may import: never those above it.
_LAYERS = {
  'tff_fedsa': {'tff_fedsa'},
  'flags': {'tff_fedsa', 'flags'},
  'launch': {'tff_fedsa', 'flags', 'launch'},
  'benchmarks': {'tff_fedsa', 'flags', 'launch', 'benchmarks'},
}
_OURS = {*_LAYERS, 'tests', 'tools'}


def _sources(folder, root=_ROOT):
  """Source by module name."""
  return {
    '.'.join(path.relative_to(root).with_suffix('').parts): path.read_text()
    for path in (root / folder).rglob('*.py')
  }


def _imports(source):
  """Every name that a module imports, also within functions; types do not
  count."""
  found = set()
  for_types = set()
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.If) and 'TYPE_CHECKING' in ast.unparse(node.test):
      for_types.update(n for child in node.body for n in ast.walk(child))
    if node in for_types:
      continue
    if isinstance(node, ast.Import):
      found.update(alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, 'Imports are absolute.'
      found.update(f'{node.module}.{alias.name}' for alias in node.names)
  return found


def _violations(folder, sources):
  return [
    (name, imported)
    for name, source in sources.items()
    for imported in sorted(_imports(source))
    if imported.partition('.')[0] in _OURS - _LAYERS[folder]
  ]


def _circle(sources):
  """The modules of an import circle; empty where there is none."""
  graph = {
    name: {imported for imported in _imports(source) if imported in sources}
    for name, source in sources.items()
  }
  try:
    graphlib.TopologicalSorter(graph).prepare()
  except graphlib.CycleError as error:
    return error.args[1]
  return []


@pytest.mark.parametrize('folder', _LAYERS)
def test_imports_point_downwards(folder):
  assert _violations(folder, _sources(folder)) == []


def test_a_violation_would_be_found():
  source = 'def f():\n  from launch import train\n'
  assert _violations('tff_fedsa', {'x': source}) == [('x', 'launch.train')]


@pytest.mark.parametrize('folder', _LAYERS)
def test_there_is_no_import_circle(folder):
  assert _circle(_sources(folder)) == []


def test_a_circle_would_be_found():
  sources = {
    'a.x': 'from a import y',
    'a.y': 'def f():\n  from a import z',
    'a.z': 'import a.x',
  }
  assert set(_circle(sources)) == set(sources)
  sources['a.z'] = 'if TYPE_CHECKING:\n  import a.x'
  assert _circle(sources) == []


def test_the_root_of_the_package_is_small():
  modules = [
    path.name
    for path in (_ROOT / 'tff_fedsa').glob('*.py')
    if path.name != '__init__.py'
  ]
  assert 0 < len(modules) <= _MOST_MODULES_IN_THE_ROOT, modules


def test_the_execution_stack_knows_nothing_of_the_rest():
  for name, source in _sources('tff_fedsa/execution').items():
    for imported in _imports(source):
      assert not re.match(
        r'tff_fedsa\.(?!execution\b|settings\b|runs\.errors\b)', imported
      ), f'{name} imports {imported}'


def test_the_package_defines_no_flag_and_prints_nothing():
  for name, source in _sources('tff_fedsa').items():
    assert 'absl.flags' not in _imports(source), name
    calls = (n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Call))
    names = {c.func.id for c in calls if isinstance(c.func, ast.Name)}
    assert 'print' not in names, name


def _build_list(name):
  text = (_ROOT / 'BUILD').read_text()
  block = re.search(rf'^{name} = \[(.*?)^\]', text, re.MULTILINE | re.DOTALL)
  return set(re.findall('"([^"]+)"', block.group(1)))


def test_one_short_build_file_names_every_launcher_and_package():
  assert [
    p.name for p in _ROOT.glob('*/**/BUILD') if '.venv' not in str(p)
  ] == []
  lines = (_ROOT / 'BUILD').read_text().splitlines()
  assert len(lines) <= _MOST_LINES_OF_BUILD
  launchers = {
    name.partition('.')[2]
    for name, source in _sources('launch').items()
    if '__main__' in source and not name.endswith('__main__')
  }
  assert _build_list('LAUNCHERS') == launchers
  config = configparser.ConfigParser()
  config.read(_ROOT / 'setup.cfg')
  asked = config['options']['install_requires'].split()
  names = {re.split('[=<>]', name)[0] for name in asked if name[0].isalpha()}
  assert _build_list('PACKAGES') == names
