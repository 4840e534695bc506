"""The table of names that TFF has moved is complete for what we use."""

import pathlib

from tools import port_tff

_ROOT = pathlib.Path(__file__).parents[1]


def _sources():
  for folder in ('tff_fedsa', 'flags', 'launch', 'benchmarks', 'tests'):
    for path in (_ROOT / folder).rglob('*.py'):
      if path != pathlib.Path(__file__):
        yield path.relative_to(_ROOT), path.read_text()


def test_of_every_name_it_is_known_where_it_goes():
  unknown = {}
  for path, source in _sources():
    for name in port_tff.names(source):
      # `tff.program` alone is prose or a module's path.
      is_prefix = any(
        known.startswith(f'{name}.')
        for known in (*port_tff.MOVED, *port_tff.STAYED, *port_tff.BY_HAND)
      )
      if not (
        is_prefix
        or port_tff.moved_to(name)
        or name.startswith((*port_tff.STAYED, *port_tff.BY_HAND))
      ):
        unknown.setdefault(name, []).append(str(path))
  assert unknown == {}


def test_private_modules_are_imported_in_one_place_and_by_the_runtime():
  for path, source in _sources():
    if path.parts[0] != 'tests' and port_tff.private_imports(source):
      assert str(path) == 'tff_fedsa/tff_compat.py' or path.parts[:2] == (
        'tff_fedsa',
        'execution',
      ), path


def test_a_rename_moves_what_moved_and_nothing_else():
  source = """import tensorflow_federated as tff

@tff.federated_computation(tff.FederatedType(np.int32, tff.CLIENTS))
def f(x):
  block = tff.framework.ComputationBuildingBlock.from_proto(p)
  return tff.learning.Model, tff.program.FileProgramStateManager
manager: tff.program.ProgramStateManager[tff.types.tensorflow_to_type(s)]
"""
  expected = """import federated_language
import tensorflow_federated as tff

@federated_language.federated_computation(\
federated_language.FederatedType(np.int32, federated_language.CLIENTS))
def f(x):
  block = federated_language.framework.ComputationBuildingBlock.from_proto(p)
  return tff.learning.Model, tff.program.FileProgramStateManager
manager: federated_language.program.ProgramStateManager[\
tff.tensorflow.to_type(s)]
"""
  assert port_tff.renamed(source) == expected
  untouched = 'import tensorflow_federated as tff\ntff.learning.Model\n'
  assert port_tff.renamed(untouched) == untouched


def test_it_lists_modules(capsys):
  assert port_tff.main([]) == 0
  listed = capsys.readouterr().out
  assert 'tff_fedsa/composer.py' in listed
  assert 'tff.federated_map' in listed
  assert 'tensorflow_federated.python.common_libs' in listed
