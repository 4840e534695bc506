"""BUILD files agree with the modules, and imports point downwards."""

# BUILD: manual

import ast
import collections
import pathlib
import re

import pytest

from tools import build_files

_ROOT = pathlib.Path(__file__).parents[1]
_FILES = {
  path: content
  for path, content in build_files.build_files().items()
  if path.name == 'BUILD'
}


def _rules():
  """Yields (folder, rule's attributes), read from the files that are there."""
  for path in _FILES:
    tree = ast.parse((_ROOT / path).read_text())
    for statement in tree.body:
      call = statement.value
      if isinstance(call, ast.Call) and call.func.id.startswith('py_'):
        attributes = {k.arg: ast.literal_eval(k.value) for k in call.keywords}
        yield path.parent, attributes


def test_build_files_are_as_make_build_files_writes_them():
  assert build_files.outdated() == {}


def test_every_module_has_one_rule_and_every_dependency_exists():
  targets = set()
  sources = collections.Counter()
  for folder, rule in _rules():
    targets.add(f'//{folder}:{rule["name"]}')
    sources.update(
      folder / source for source in rule['srcs'] if not source.startswith('/')
    )
  modules = {
    path.relative_to(_ROOT)
    for folder in (*_LAYERS, 'tests', 'tools')
    for path in (_ROOT / folder).rglob('*.py')
  }
  assert set(sources) == modules
  assert set(sources.values()) == {1}
  for folder, rule in _rules():
    for dep in rule.get('deps', ()):
      if not dep.startswith('@'):
        label = f'//{folder}{dep}' if dep.startswith(':') else dep
        assert label in targets, f'{folder}: {rule["name"]} needs {dep}'


def test_third_party_dependencies_are_in_the_lock_file():
  locked = {
    re.sub(r'[-.]', '_', name)
    for name in re.findall(
      r'^([\w.-]+)==', (_ROOT / 'requirements.lock').read_text(), re.MULTILINE
    )
  }
  for folder, rule in _rules():
    for dep in rule.get('deps', ()):
      if dep.startswith('@pypi//'):
        assert dep.removeprefix('@pypi//') in locked, (folder, rule['name'])


# What a folder may import of ours: never what stands above it.
_LAYERS = {
  'tff_fedsa': {'tff_fedsa'},
  'flags': {'tff_fedsa', 'flags'},
  'launch': {'tff_fedsa', 'flags', 'launch'},
  'benchmarks': {'tff_fedsa', 'flags', 'launch', 'benchmarks'},
}


def _violations(folder, sources):
  allowed = _LAYERS[folder]
  return [
    (name, imported)
    for name, source in sources.items()
    for imported in build_files.imports(source)
    if (top := imported.partition('.')[0]) not in allowed
    and top in ('tff_fedsa', 'flags', 'launch', 'tests', 'tools', 'benchmarks')
  ]


def _sources(folder):
  return {
    str(path.relative_to(_ROOT)): path.read_text()
    for path in (_ROOT / folder).rglob('*.py')
  }


@pytest.mark.parametrize('folder', _LAYERS)
def test_imports_point_downwards(folder):
  assert _violations(folder, _sources(folder)) == []


def test_the_execution_stack_knows_nothing_of_the_rest():
  for name, source in _sources('tff_fedsa/execution').items():
    for imported in build_files.imports(source):
      assert not re.match(r'tff_fedsa(?!\.execution)\b', imported) or (
        imported == 'tff_fedsa'
      ), f'{name} imports {imported}'


def test_the_package_defines_no_flag_and_prints_nothing():
  for name, source in _sources('tff_fedsa').items():
    assert 'absl.flags' not in set(build_files.imports(source)), name
    calls = (n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Call))
    names = {c.func.id for c in calls if isinstance(c.func, ast.Name)}
    assert 'print' not in names, name


def test_a_violation_would_be_found(tmp_path):
  source = 'def f():\n  from launch import train\n'
  assert _violations('tff_fedsa', {'x.py': source}) == [
    ('x.py', 'launch'),
    ('x.py', 'launch.train'),
  ]
  # A new module without a rule, and a BUILD file that lost its module.
  (tmp_path / 'flags').mkdir()
  (tmp_path / 'flags/new.py').write_text('import numpy\n')
  for path, content in build_files.build_files(tmp_path).items():
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_text(content)
  assert build_files.outdated(tmp_path) == {}
  (tmp_path / 'flags/new.py').write_text('import absl\n')
  (tmp_path / 'launch').mkdir()
  (tmp_path / 'launch/BUILD').write_text('')
  assert [str(path) for path in build_files.outdated(tmp_path)] == [
    'flags/BUILD',
    'launch/BUILD',
  ]
