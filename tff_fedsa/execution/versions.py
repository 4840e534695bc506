"""The versions of other packages that our workarounds support.

Workarounds use private parts of packages. Another version may have moved or
fixed these parts, and would then silently compute something else. So users of
workarounds call `require` first.
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

# Versions of all workarounds. A port changes these and each workaround.
_WRITTEN_FOR: Mapping[str, str] = {
  _TENSORFLOW: '2.14',
  _KERAS: '2.14',
  _TFF: '0.87',
  _PYTHON: '3.11',
}


@dataclasses.dataclass(frozen=True)
class Workaround:
  """A workaround for a package's behaviour that uses private parts.

  Attributes:
    user: User of the workaround, a key of `_INSTEAD`.
    modules: Modules with the workaround, below `tff_fedsa`.
    packages: Packages with the private parts.
    reason: The behaviour that needs the workaround.
  """

  user: str
  modules: Sequence[str]
  packages: Sequence[str]
  reason: str

  @property
  def written_for(self) -> str:
    """The supported versions, e.g. `tensorflow 2.14, python 3.11`."""
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
    ('execution.in_process.equal_tensors',),
    (_TENSORFLOW,),
    'A stack of one tensor may be computed from another tensor.',
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
    'in_process',
    ('execution.joint_calls', 'execution.in_process.joint_functions'),
    (_TFF, _TENSORFLOW),
    'TFF maps a function over one client at a time: the call that several '
    'clients can make together is marked in its graph, which is cut there.',
  ),
  Workaround(
    'in_process',
    ('execution.training_steps', 'execution.in_process.xla_steps'),
    (_TENSORFLOW, _TFF),
    'TFF has no setting for XLA: training steps are marked in its graphs, and '
    'an attribute of TensorFlow makes XLA compile them.',
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
      'execution.functions',
      'execution.parcels',
    ),
    (_TFF,),
    "Requests are made to the worker's service, whose protocol is private.",
  ),
  Workaround(
    'ray',
    ('execution.ray.messages', 'execution.ray.worker'),
    (_TFF,),
    "Values and functions travel in TFF's own messages, which are private.",
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
    ('models.stacking',),
    (_TENSORFLOW,),
    "TensorFlow's `vectorized_map` has no form of convolutions whose kernels "
    'differ.',
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
  'ray': 'use --runtime=native (native.set_native_context())',
  'native': 'use tff.backends.native.set_sync_local_cpp_execution_context()',
  'models': 'install the versions of requirements.lock',
  'pipelines': 'install the versions of requirements.lock',
}


class VersionError(errors.UserError):
  """A package has a version that our workarounds do not support."""


def installed(package: str) -> str:
  """Returns the version of a package, or of Python."""
  if package == _PYTHON:
    return platform.python_version()
  return importlib.import_module(package).__version__


def require(*users: str) -> None:
  """Checks that the workarounds of some users support the installed versions.

  Args:
    *users: `in_process`, `ray`, `native`, `remote`, `models` or
        `pipelines`.

  Raises:
    VersionError: If a version differs. The message names the expected and the
      found version, and a remedy.
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
