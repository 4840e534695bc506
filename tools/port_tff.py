"""Renames names that TFF moved after 0.87, and lists the remaining work.

  python -m tools.port_tff            which modules use what
  python -m tools.port_tff --write    renames, for the release after TFF 0.88

The names are those of TFF's release notes and of `federated_language` 0.5.
"""

from collections.abc import Iterator
import pathlib
import re
import sys

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_FOLDERS = ('tff_fedsa', 'flags', 'launch', 'benchmarks', 'tests')

_LANGUAGE = """
  CLIENTS SERVER Computation FederatedType FunctionType SequenceType StructType
  StructWithPythonType TensorType Type TypedObject Value federated_aggregate
  federated_broadcast federated_computation federated_eval federated_map
  federated_max federated_mean federated_min federated_secure_select
  federated_secure_sum federated_secure_sum_bitwidth federated_select
  federated_sum federated_value federated_zip sequence_map sequence_reduce
  sequence_sum to_type to_value
"""
_LANGUAGE_TYPES = """
  AbstractType FederatedType FunctionType PlacementType SequenceType StructType
  StructWithPythonType TensorType Type to_type
"""
_LANGUAGE_PROGRAM = """
  DelayedReleaseManager FederatedContext FederatedDataSource
  FederatedDataSourceIterator FilteringReleaseManager GroupingReleaseManager
  LoggingReleaseManager MaterializableStructure MaterializableTypeSignature
  MaterializableValue MaterializableValueReference MaterializedStructure
  MaterializedValue MemoryReleaseManager NativeFederatedContext
  NativeValueReference NotFilterableError PeriodicReleaseManager
  ProgramStateExistsError ProgramStateManager ProgramStateNotFoundError
  ProgramStateStructure ProgramStateValue ReleasableStructure ReleasableValue
  ReleaseManager check_in_federated_context contains_only_server_placed_data
  materialize_value
"""
_LANGUAGE_FRAMEWORK = """
  AsyncExecutionContext Block Call CompiledComputation ComputationBuildingBlock
  Executor Intrinsic Lambda Literal Reference Selection Struct
  SyncExecutionContext get_context_stack serialize_computation
  set_default_context
"""

# Name in 0.87 -> later name.
MOVED: dict[str, str] = {
  **{f'tff.{n}': f'federated_language.{n}' for n in _LANGUAGE.split()},
  **{
    f'tff.types.{n}': f'federated_language.{n}' for n in _LANGUAGE_TYPES.split()
  },
  **{
    f'tff.program.{n}': f'federated_language.program.{n}'
    for n in _LANGUAGE_PROGRAM.split()
  },
  **{
    f'tff.framework.{n}': f'federated_language.framework.{n}'
    for n in _LANGUAGE_FRAMEWORK.split()
  },
  'tff.types.tensorflow_to_type': 'tff.tensorflow.to_type',
  'tff.types.structure_from_tensor_type_tree': (
    'tff.tensorflow.structure_from_tensor_type_tree'
  ),
  'tff.types.type_to_tf_tensor_specs': 'tff.tensorflow.type_to_tf_tensor_specs',
  'tff.types.type_to_py_container': (
    'federated_language.framework.type_to_py_container'
  ),
}

# Names with these prefixes did not move.
STAYED = (
  'tff.aggregators.',
  'tff.analytics.',
  'tff.backends.',
  'tff.jax.',
  'tff.learning.',
  'tff.program.CSV',
  'tff.program.ClientIdDataSource',
  'tff.program.DatasetDataSource',
  'tff.program.File',
  'tff.program.SavedModelFileReleaseManager',
  'tff.program.TensorBoardReleaseManager',
  'tff.simulation.',
  'tff.templates.',
  'tff.tensorflow.',
)

# No longer public, or uncertain: to be ported by hand (docs/limits.md).
BY_HAND = (
  'tff.framework.MergeableComp',
  'tff.framework.Remote',
  'tff.framework.ResourceManagingExecutorFactory',
  'tff.structure.',
  'tff.test.',
)

_NAME = re.compile(r'\btff(?:\.[A-Za-z]\w*)+')
_PRIVATE = re.compile(
  r'^ *(?:from|import) (tensorflow_federated\.[\w.]+)', re.MULTILINE
)
_IMPORT = 'import tensorflow_federated as tff\n'


def names(source: str) -> set[str]:
  """Returns the dotted names beginning with `tff` in a source."""
  return set(_NAME.findall(source))


def moved_to(name: str) -> str | None:
  """Returns the new name of `tff.…`, attributes included, or None."""
  prefix = name
  while prefix != 'tff':
    if prefix in MOVED:
      return MOVED[prefix] + name[len(prefix) :]
    prefix = prefix.rpartition('.')[0]
  return None


def private_imports(source: str) -> list[str]:
  """Returns the modules of TFF imported by their private path."""
  return _PRIVATE.findall(source)


def renamed(source: str) -> str:
  """Returns a source with the new names and their import."""

  def rename(match: re.Match) -> str:
    return moved_to(match.group()) or match.group()

  result = _NAME.sub(rename, source)
  if result == source:
    return source
  return result.replace(_IMPORT, f'import federated_language\n{_IMPORT}', 1)


def _modules() -> Iterator[tuple[pathlib.Path, str]]:
  for folder in _FOLDERS:
    for path in sorted((_ROOT / folder).rglob('*.py')):
      yield path, path.read_text()


def main(arguments: list[str]) -> int:
  """Lists, or renames."""
  for path, source in _modules():
    moved = sorted(name for name in names(source) if moved_to(name))
    by_hand = sorted(n for n in names(source) if n.startswith(BY_HAND))
    by_hand += private_imports(source)
    if moved or by_hand:
      print(path.relative_to(_ROOT))
      print('  moved:   ', ', '.join(moved) or '-')
      print('  by hand: ', ', '.join(by_hand) or '-')
    if '--write' in arguments:
      path.write_text(renamed(source))
  return 0


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
