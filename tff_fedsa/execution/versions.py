"""Which versions the workarounds of other packages' internals were written for.

What they reach into is private: another version may have moved it, or mended
what they work around, and would then compute something else without a word.
Whoever uses them asks `require` first.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import importlib
import platform

from tff_fedsa.runs import errors

_TENSORFLOW = 'tensorflow'
_KERAS = 'keras'
_TFF = 'tensorflow_federated'
_PYTHON = 'python'

# Versions of all workarounds; a port changes these and each workaround.
_WRITTEN_FOR: Mapping[str, str] = {
  _TENSORFLOW: '2.14',
  _KERAS: '2.14',
  _TFF: '0.87',
  _PYTHON: '3.11',
}


@dataclasses.dataclass(frozen=True)
class Workaround:
  """A workaround for a package's behaviour that uses its private parts.

  Attributes:
    user: Who asks for it, a key of `_INSTEAD`.
    modules: Modules that contain it, below `tff_fedsa`.
    packages: Packages whose internals it uses.
    reason: Behaviour that it works around.
  """

  user: str
  modules: Sequence[str]
  packages: Sequence[str]
  reason: str

  @property
  def written_for(self) -> str:
    """The versions: e.g. `tensorflow 2.14, python 3.11`."""
    return ', '.join(f'{name} {_WRITTEN_FOR[name]}' for name in self.packages)


WORKAROUNDS = (
  Workaround(
    'in_process',
    ('execution.in_process.eager_tensors',),
    (_TENSORFLOW, _PYTHON),
    'Each eager tensor leaks 40 bytes.',
  ),
  Workaround(
    'in_process',
    ('execution.in_process.function_removals',),
    (_TENSORFLOW,),
    'A function that is freed while a graph with an LSTM or GRU is prepared '
    'crashes the process.',
  ),
  Workaround(
    'in_process',
    ('execution.in_process.graph_imports',),
    (_TENSORFLOW, _TFF),
    'Functions of an imported graph are never freed. Imports of lowered loops '
    'fail in some processes. Executions have one cancellation for the process.',
  ),
  Workaround(
    'in_process',
    ('execution.in_process.graph_rewriting',),
    (_TENSORFLOW, _TFF),
    'Variables and tables of a TFF graph belong to a session: they get the '
    'anonymous name, and each execution its own. Two kinds of kernels of '
    'oneDNN are not reentrant.',
  ),
  Workaround(
    'in_process',
    ('execution.in_process.dataset_loops',),
    (_TENSORFLOW,),
    'A reduction of a data set prepares its function anew whenever it is '
    'executed.',
  ),
  Workaround(
    'in_process',
    ('execution.in_process.control_flow', 'execution.in_process.contexts'),
    (_TENSORFLOW, _TFF),
    "Grappler inlines functions and lowers control flow that must stay: TFF's "
    'compiler is called in parts.',
  ),
  Workaround(
    'in_process',
    (
      'execution.in_process.executor',
      'execution.in_process.values',
      'execution.in_process.tensorflow_functions',
      'execution.in_process.cancellation',
    ),
    (_TFF, _TENSORFLOW),
    "TFF's interfaces of executors and its conversions are private, as is "
    "TensorFlow's cancellation.",
  ),
  Workaround(
    'native',
    ('execution.native', 'execution.workers', 'execution.comparison'),
    (_TFF,),
    'TFF leaves its `worker_binary` behind when Python ends.',
  ),
  Workaround(
    'remote',
    (
      'execution.remote.client_pool',
      'execution.remote.connection',
      'execution.remote.functions',
      'execution.remote.parcels',
    ),
    (_TFF,),
    "Requests are made to the worker's service, whose protocol is private.",
  ),
  Workaround(
    'models',
    ('models.binding', 'models.seeding', 'models.keras_classes'),
    (_KERAS, _TENSORFLOW),
    'Layers of Keras keep weights and seeds in attributes: pure functions of '
    'them are traced with tensors in their place.',
  ),
  Workaround(
    'models',
    ('models.steps',),
    (_TENSORFLOW,),
    "AutoGraph's state is the thread's: layers are traced as written.",
  ),
  Workaround(
    'pipelines',
    ('tff_compat',),
    (_TFF,),
    '`Serializable` is private.',
  ),
)

_INSTEAD = {
  'in_process': 'use --runtime=native (native.set_native_context())',
  'remote': 'use --runtime=native (native.set_native_context())',
  'native': 'use tff.backends.native.set_sync_local_cpp_execution_context()',
  'models': 'install the versions of requirements.lock',
  'pipelines': 'install the versions of requirements.lock',
}


class VersionError(errors.UserError):
  """A package has another version than its workarounds were written for."""


def installed(package: str) -> str:
  """Returns the version of a package, or of Python."""
  if package == _PYTHON:
    return platform.python_version()
  return importlib.import_module(package).__version__


def require(*users: str) -> None:
  """Raises unless the workarounds of some users fit the installed versions.

  Args:
    *users: `in_process`, `native`, `remote`, `models` or `pipelines`.

  Raises:
    VersionError: The message names what was expected, what was found, and what
      to do.
  """
  needed = dict.fromkeys(
    package
    for workaround in WORKAROUNDS
    if workaround.user in users
    for package in workaround.packages
  )
  wrong = []
  for package in needed:
    expected, found = _WRITTEN_FOR[package], installed(package)
    if f'{found}.'.startswith(f'{expected}.'):
      continue
    wrong.append(f'{package} {expected}, found {found}')
  if wrong:
    raise VersionError(
      f'Expected {"; ".join(wrong)}. Workarounds ({users[0]}) reach into '
      f'internals of one version: {_INSTEAD[users[0]]}.'
    )


def table() -> str:
  """Returns all workarounds as a table in Markdown, for docs/runtimes.md."""
  lines = ['| used by | where | written for | what it works around |']
  lines.append('|---|---|---|---|')
  for workaround in WORKAROUNDS:
    modules = ', '.join(f'`{module}`' for module in workaround.modules)
    lines.append(
      f'| {workaround.user} | {modules} | {workaround.written_for} | '
      f'{workaround.reason} |'
    )
  return '\n'.join(lines)
