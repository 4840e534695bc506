"""Writes the BUILD files from the modules and their imports.

  python -m tools.build_files           says which BUILD files are out of date
  python -m tools.build_files --write   writes them

One rule per module: `py_test` for test_*.py, `py_binary` for programs,
`py_library` for the rest; its dependencies are what the module imports, lazily
or not. What imports do not show, a module says in a comment:

  # BUILD: //launch:train //flags:presets

and `# BUILD: manual` where a test is about the checkout itself, which Bazel
does not show it.
"""

import ast
from collections.abc import Iterator
import dataclasses
import json
import pathlib
import re
import sys
from typing import Optional

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_TOP_FOLDERS = ('tff_fedsa', 'flags', 'launch', 'tools', 'tests', 'benchmarks')

# Imported under another name than it is installed.
_DISTRIBUTIONS = {
  'PIL': 'pillow',
  'absl': 'absl_py',
  'grpc': 'grpcio',
  'sklearn': 'scikit_learn',
  'tree': 'dm_tree',
}

# Not in the lock: one benchmark compares with it, and says to install it.
_INSTALLED_BY_HAND = ('torch', 'torchvision')

# Package -> filegroup name -> glob.
_FILE_GROUPS = {
  'flags': {'presets': '**/*.flags', 'sweeps': 'sweeps/*.toml'},
  'tests/testdata': {'testdata': '**'},
}
_FILES = (
  '//:setup.cfg',
  '//flags:presets',
  '//flags:sweeps',
  '//tests/testdata',
  '//:documents',
)

_DECLARED = re.compile(r'^# BUILD: (.+)$', re.MULTILINE)

_HEAD = '# Written by `make build-files` from the modules and their imports.\n'

_ROOT_BUILD = (
  _HEAD
  + """
package(default_visibility = ["//visibility:public"])

licenses(["notice"])

exports_files([
    "LICENSE",
    "requirements.lock",
    "setup.cfg",
])

filegroup(
    name = "documents",
    srcs = glob(["*.md", "docs/**"]),
)
"""
)


@dataclasses.dataclass(frozen=True)
class Rule:
  """A rule of a BUILD file.

  Attributes:
    kind: E.g. `py_library`.
    name: Its target.
    attributes: The others, by name.
  """

  kind: str
  name: str
  attributes: dict[str, str | list[str]]

  def __str__(self) -> str:
    lines = [f'{self.kind}(', f'    name = {_quoted(self.name)},']
    for key, value in self.attributes.items():
      if isinstance(value, str):
        lines.append(f'    {key} = {_quoted(value)},')
      elif len(value) == 1:
        lines.append(f'    {key} = [{_quoted(value[0])}],')
      elif value:
        lines.append(f'    {key} = [')
        lines += [f'        {_quoted(item)},' for item in value]
        lines.append('    ],')
    return '\n'.join([*lines, ')'])


def build_files(root: pathlib.Path = _ROOT) -> dict[pathlib.Path, str]:
  """Returns what every BUILD file should hold, by path relative to `root`."""
  modules = sorted(
    path.relative_to(root)
    for folder in _TOP_FOLDERS
    for path in (root / folder).rglob('*.py')
  )
  contents = {pathlib.Path('BUILD'): _ROOT_BUILD}
  for folder in sorted({module.parent for module in modules}):
    rules = [
      _rule(root, module, modules)
      for module in modules
      if module.parent == folder
    ]
    contents[folder / 'BUILD'] = _build_file(folder, rules)
  for group in _FILE_GROUPS:
    path = pathlib.Path(group) / 'BUILD'
    if path not in contents:
      contents[path] = _build_file(path.parent, [])
  return contents


def imports(source: str) -> Iterator[str]:
  """Yields the dotted names that a module's source imports, anywhere in it.

  For `from a import b` both `a` and `a.b`: only one of them may be a module.
  """
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
      yield node.module
      yield from (f'{node.module}.{alias.name}' for alias in node.names)


def outdated(root: pathlib.Path = _ROOT) -> dict[pathlib.Path, str]:
  """Returns the BUILD files that are not as they should be, with the reason."""
  expected = build_files(root)
  reasons = {}
  for path, content in expected.items():
    if not (root / path).exists():
      reasons[path] = 'missing'
    elif (root / path).read_text(encoding='utf-8') != content:
      reasons[path] = 'differs from the modules and their imports'
  for folder in _TOP_FOLDERS:
    for found in (root / folder).rglob('BUILD'):
      if found.relative_to(root) not in expected:
        reasons[found.relative_to(root)] = 'no module stands there any more'
  return reasons


def _build_file(folder: pathlib.Path, rules: list[Rule]) -> str:
  groups = _FILE_GROUPS.get(folder.as_posix(), {})
  kinds = sorted({rule.kind for rule in rules})
  parts = []
  if kinds:
    loaded = ', '.join(_quoted(kind) for kind in kinds)
    parts.append(f'load("@rules_python//python:defs.bzl", {loaded})')
  parts.append('package(default_visibility = ["//visibility:public"])')
  if folder.as_posix() == 'tools':
    parts.append('exports_files(["run_pytest.py"])')
  for name, pattern in groups.items():
    parts.append(
      'filegroup(\n'
      f'    name = {_quoted(name)},\n'
      f'    srcs = glob([{_quoted(pattern)}]),\n'
      ')'
    )
  parts += [str(rule) for rule in rules]
  return _HEAD + '\n' + '\n\n'.join(parts) + '\n'


def _rule(
  root: pathlib.Path, module: pathlib.Path, modules: list[pathlib.Path]
) -> Rule:
  source = (root / module).read_text(encoding='utf-8')
  declared = [
    label for match in _DECLARED.findall(source) for label in match.split()
  ]
  found = (_dependency(name, modules) for name in imports(source))
  deps = {label for label in found if label is not None}
  deps |= {
    label for label in declared if label.startswith('/') and label not in _FILES
  }
  # What Python itself runs first: the packages that the module is in.
  for parent in module.parents:
    package = parent / '__init__.py'
    if package in modules and package != module:
      deps.add(_label(package))
  data = {label for label in declared if label in _FILES}
  name = _target(module)
  attributes: dict[str, str | list[str]] = {'srcs': [module.name]}
  if module.name.startswith('test_'):
    kind = 'py_test'
    deps |= {'//tests:conftest', '@pypi//pytest', '@pypi//pytest_timeout'}
    data.add('//:setup.cfg')
    attributes = {
      'size': 'enormous' if 'pytest.mark.slow' in source else 'medium',
      'srcs': [module.name, '//tools:run_pytest.py'],
      'args': [f'$(location {module.name})'],
      'main': '//tools:run_pytest.py',
    }
  elif "__name__ == '__main__'" in source:
    kind = 'py_binary'
  else:
    kind = 'py_library'
  here = f'//{module.parent.as_posix()}:'
  deps.discard(_label(module))
  attributes['data'] = sorted(data)
  attributes['deps'] = sorted(
    # As buildifier has it: this package, others, other repositories.
    (dep.replace(here, ':') if dep.startswith(here) else dep for dep in deps),
    key=lambda label: (':/@'.index(label[0]), label),
  )
  if 'manual' in declared:
    attributes['tags'] = ['manual']
  return Rule(kind, name, attributes)


def _dependency(name: str, modules: list[pathlib.Path]) -> Optional[str]:
  """Returns the label of an imported name; None for the standard library."""
  top = name.partition('.')[0]
  if top in sys.stdlib_module_names or top in _INSTALLED_BY_HAND:
    return None
  if top not in _TOP_FOLDERS:
    return f'@pypi//{_DISTRIBUTIONS.get(top, top)}'
  path = pathlib.Path(*name.split('.'))
  for candidate in (path.with_suffix('.py'), path / '__init__.py'):
    if candidate in modules:
      return _label(candidate)
  return None  # A folder without __init__.py, or a name within a module.


def _target(module: pathlib.Path) -> str:
  return module.parent.name if module.stem == '__init__' else module.stem


def _label(module: pathlib.Path) -> str:
  return f'//{module.parent.as_posix()}:{_target(module)}'


def _quoted(text: str) -> str:
  return json.dumps(text)


def main(arguments: list[str]) -> int:
  """Checks or writes; returns the exit status."""
  if arguments not in ([], ['--write']):
    print(__doc__)
    return 2
  contents, reasons = build_files(), outdated()
  for path, reason in reasons.items():
    if not arguments:
      print(f'{path}: {reason}; run `make build-files`')
    elif path in contents:
      (_ROOT / path).write_text(contents[path], encoding='utf-8')
      print(f'wrote {path}')
    else:
      (_ROOT / path).unlink()
      print(f'removed {path}')
  return 1 if reasons and not arguments else 0


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
