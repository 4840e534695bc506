"""Injects faults of the disk at every call of the file system.

  python -m benchmarks.faults

prints the table of docs/limits.md. What runs write (checkpoints, client states,
metrics, status), sweeps and reports is tried once for each of its calls of the
file system, with a fault injected there; then the same command is given again.
A process that is made up here does the training, so no TensorFlow is needed.
"""

import builtins
from collections.abc import Callable, Iterator, Sequence
import contextlib
import errno
import hashlib
import os
import shutil
import sys
import tempfile
import threading
import types
from typing import Any, NamedTuple, Optional

from absl import app
from absl import flags
from absl import logging
import numpy as np

from launch import errors as launch_errors
from tff_fedsa import files
from tff_fedsa import simulation
from tff_fedsa.client import client_state
from tff_fedsa.client import client_store
from tff_fedsa.runs import checkpoints
from tff_fedsa.runs import directory as directory_lib
from tff_fedsa.runs import errors
from tff_fedsa.runs import metrics
from tff_fedsa.runs import recorders
from tff_fedsa.sweeps import record

_EVERY = flags.DEFINE_integer(
  'every', 1, 'Tries every so many calls only.', lower_bound=1
)

_NUM_CLIENTS = 4
_OPTIONS: dict[str, Any] = {
  'total_rounds': 5,
  'clients_per_round': 2,
  'rounds_per_evaluation': 2,
  'rounds_per_checkpoint': 2,
}


class Killed(BaseException):
  """The process was killed: none of its later calls reaches the disk."""


class Fault(NamedTuple):
  """A fault of the file system from some call on.

  Attributes:
    said: How the table names it.
    number: The error it raises; None for none.
    kinds: The kinds of calls that fail.
    once: Whether only one call fails.
  """

  said: str
  number: Optional[int] = None
  kinds: tuple[str, ...] = ('create', 'write', 'sync', 'rename', 'remove')
  once: bool = False


_GROWS = ('create', 'write', 'sync')

FAULTS = {
  'killed': Fault('kill -9, with half of a write done'),
  'interrupted': Fault('Ctrl-C', once=True),
  'full': Fault('the disk is full from then on', errno.ENOSPC, _GROWS),
  'quota': Fault('the quota is used up from then on', errno.EDQUOT, _GROWS),
  'read-only': Fault('the disk is read-only from then on', errno.EROFS),
  'once': Fault('one call fails (EIO)', errno.EIO, once=True),
  'deleted': Fault('the directory is deleted', once=True),
}


class FaultyDisk:
  """Counts calls that change the disk, and injects a fault at one of them."""

  def __init__(self, directory: str, fault: str = '', at: Optional[int] = None):
    """Initializes `FaultyDisk`.

    Args:
      directory: Calls for files outside of it do not count.
      fault: One of `FAULTS`.
      at: The call, from 0, at which it happens; None never.
    """
    self.calls = 0
    self._directory = directory
    self._name = fault
    self._fault = FAULTS.get(fault)
    self._at = at
    self._lock = threading.Lock()
    self._happened = False

  @contextlib.contextmanager
  def installed(self) -> Iterator[None]:
    """Replaces Python's calls of the file system within a `with` statement."""
    kinds = {
      'replace': 'rename',
      'rename': 'rename',
      'remove': 'remove',
      'unlink': 'remove',
      'rmdir': 'remove',
      'mkdir': 'create',
      'truncate': 'write',
      'fsync': 'sync',
    }
    before = {name: getattr(os, name) for name in kinds}
    before_open = builtins.open
    try:
      for name, kind in kinds.items():
        setattr(os, name, self._guarded(before[name], kind))
      # Only the order matters, so there is no need to wait for the disk.
      os.fsync = self._guarded(lambda *_: None, 'sync')
      builtins.open = self._guarded_open(before_open)
      yield
    finally:
      builtins.open = before_open
      for name, function in before.items():
        setattr(os, name, function)

  def _guarded(self, function: Callable[..., Any], kind: str) -> Any:
    def guarded(*arguments, **options):
      path = arguments[0] if arguments else None
      if isinstance(path, int) or 'dir_fd' in options or self._is_mine(path):
        self.tick(kind, path)
      return function(*arguments, **options)

    return guarded

  def _guarded_open(self, function: Callable[..., Any]) -> Any:
    def guarded(path, mode='r', *arguments, **options):
      if not set(mode) & set('wax+') or not self._is_mine(path):
        return function(path, mode, *arguments, **options)
      self.tick('create', path)
      if 'b' in mode:
        # Unbuffered, so that half a write is exactly half.
        return _File(function(path, mode, buffering=0), self)
      return function(path, mode, *arguments, **options)

    return guarded

  def _is_mine(self, path: Any) -> bool:
    return isinstance(path, str) and path.startswith(self._directory)

  def tick(
    self,
    kind: str,
    path: Any,
    write_half: Callable[[], Any] = lambda: None,
  ) -> None:
    """Counts a call, and raises the error of its fault.

    Args:
      kind: Kind of the call, see `Fault.kinds`.
      path: Its argument, None if it knows none.
      write_half: Does half of what a write was asked for.
    """
    with self._lock:
      call, self.calls = self.calls, self.calls + 1
      starts = call == self._at
      if self._at is None or call < self._at:
        return
      fault = self._fault
      if fault is not None and fault.once and self._happened:
        return
      if self._name == 'killed':
        if starts:
          write_half()
        raise Killed
      assert fault is not None, self._name
      if kind not in fault.kinds:
        return
      self._happened = True
      if self._name == 'interrupted':
        raise KeyboardInterrupt
      if self._name == 'deleted':
        _remove_all(self._directory)
        return
      write_half()
    number = fault.number
    assert number is not None, self._name
    # Like the system's errors of `write`, which have no path.
    where = (path,) if isinstance(path, str) else ()
    raise OSError(number, os.strerror(number), *where)


class _File:
  """A file with counted writes."""

  def __init__(self, file: Any, disk: FaultyDisk):
    self._file = file
    self._disk = disk

  def write(self, content: bytes) -> int:
    self._disk.tick(
      'write', None, lambda: self._file.write(content[: len(content) // 2])
    )
    return self._file.write(content)

  def __enter__(self) -> '_File':
    return self

  def __exit__(self, *unused_error: Any) -> None:
    self._file.close()

  def __getattr__(self, name: str) -> Any:
    return getattr(self._file, name)


def _remove_all(directory: str) -> None:
  """Removes a directory like another program: the calls do not count."""
  os.system(f'rm -rf {directory}')


class Scenario(NamedTuple):
  """A program that writes files, and can be started again.

  Attributes:
    name: In the table.
    run: Does all of it in a directory, or what is left of it; returns what
      must be the same in the end.
    check: Says what is wrong in a directory after a fault, or ''.
  """

  name: str
  run: Callable[[str, list[int]], Any]
  check: Callable[[str, list[int]], str]


class Outcome(NamedTuple):
  """Result of a scenario with one kind of fault.

  Attributes:
    calls: How many calls were tried.
    wrong: One line for each expectation that failed; it names the place.
  """

  calls: int
  wrong: list[str]


def try_all(scenario: Scenario, fault: str, every: int = 1) -> Outcome:
  """Injects a fault at every call of a scenario, then starts it again.

  Right is: an error that launchers say in one line, with a path (none if
  `killed`); nothing that was saved is lost; started again, the result is that
  of an undisturbed one.

  Args:
    scenario: See `SCENARIOS`.
    fault: One of `FAULTS`.
    every: Tries every so many calls only.
  """
  with tempfile.TemporaryDirectory() as root:
    undisturbed = os.path.join(root, 'undisturbed')
    disk = FaultyDisk(undisturbed)
    with disk.installed():
      expected = scenario.run(undisturbed, [])
    wrong = []
    tried = range(0, disk.calls, every)
    for call in tried:
      path = os.path.join(root, f'run_{call}')
      found = _try_one(scenario, fault, call, path, expected)
      if found:
        wrong.append(f'{scenario.name}, {fault} at call {call}: {found}')
      shutil.rmtree(path, ignore_errors=True)
  return Outcome(len(tried), wrong)


def _try_one(
  scenario: Scenario, fault: str, call: int, path: str, expected: Any
) -> str:
  """Returns the mistake of the program, or ''."""
  # The rounds that were saved before the fault.
  saved: list[int] = []
  try:
    with FaultyDisk(path, fault, call).installed():
      result = scenario.run(path, saved)
  except Killed:
    pass
  except BaseException as error:
    said = _judge(error, fault, path)
    if said:
      return said
  else:
    # A fault may have no effect, e.g. while old files are removed.
    if fault in ('killed', 'interrupted') or result != expected:
      return 'it went on as if nothing had been'
    if fault == 'deleted':
      return ''
  if fault == 'deleted':
    saved.clear()
  lost = scenario.check(path, saved)
  if lost:
    return lost
  try:
    with FaultyDisk(path).installed():
      again = scenario.run(path, [])
  except BaseException as error:
    return f'started again: {type(error).__name__}: {error}'
  return '' if again == expected else 'started again, the result differs'


def _judge(error: BaseException, fault: str, path: str) -> str:
  """Returns the mistake in an error, or ''."""
  if fault == 'interrupted' and isinstance(error, KeyboardInterrupt):
    return ''
  if not isinstance(error, errors.UserError | OSError):
    return f'a trace: {type(error).__name__}: {error}'
  said = launch_errors.describe(error)
  if path not in said:
    return f'the message names no path: {said}'
  return ''


class _Server(NamedTuple):
  round_num: Any
  model: Any


class _Process:
  """An artificial process: states depend on states, server and data."""

  averages_weights = False
  broadcast_type = update_type = None

  def initialize(self) -> _Server:
    return _Server(np.int32(0), np.ones([3], np.float32))

  def next(self, server, states, examples):
    new = [
      state._replace(weights=state.weights * 0.5 + server.model + example)
      for state, example in zip(states, examples)
    ]
    mean = np.mean([state.weights for state in new], axis=0)
    return types.SimpleNamespace(
      state=_Server(np.int32(server.round_num + 1), server.model * 0.9 + mean),
      result=new,
      measurements={
        'client_work': {
          'loss': float(mean.sum()),
          'clients_trained': len(new),
          'clients_nonfinite': 0,
          'bytes_down_per_client': 12,
          'bytes_up_per_client': 12,
        }
      },
    )


class _Task:
  num_clients = _NUM_CLIENTS
  clients = tuple(
    types.SimpleNamespace(train=np.float32(i), test=np.float32(i))
    for i in range(_NUM_CLIENTS)
  )
  validation_fns = ()


def _evaluate(unused_model, states, unused_examples):
  return [
    {'num_examples': 100, 'head': int(abs(state.weights[0])) % 100}
    for state in states
  ]


def _initial_state(client_id: int) -> client_state.ClientState:
  return client_state.ClientState(
    architecture=np.int32(0),
    weights=np.full([3], client_id, np.float32),
    optimizer=np.zeros([0], np.float32),
    prototypes=np.zeros([2, 3], np.float32),
    counts=np.zeros([2], np.float32),
    seed=np.array([0, client_id], np.int32),
  )


class _Manager(checkpoints.CheckpointManager):
  """Notes which rounds were saved."""

  def __init__(self, path: str, saved: list[int]):
    super().__init__(path)
    self._noted = saved

  def save(self, round_num, *arguments):
    super().save(round_num, *arguments)
    self._noted.append(round_num)


def _store(
  run: directory_lib.RunDirectory, where: str
) -> client_store.ClientStateStore:
  if where == 'memory':
    return client_store.MemoryStore(_initial_state)
  return client_store.DiskStore(_initial_state, run.client_states)


def _train(path: str, saved: list[int], where: str) -> Any:
  run = directory_lib.RunDirectory(path)
  with directory_lib.owned(run) as owner:
    directory_lib.keep_flags(
      run, {'total_rounds': 5}, defaults={}, free=('total_rounds',)
    )
    store = _store(run, where)
    owner.start(_OPTIONS['total_rounds'])
    # The parts of a process and a task that the round loop uses, without
    # TensorFlow.
    process: Any = _Process()
    task: Any = _Task()
    result = simulation.run(
      process,
      _evaluate,
      task,
      store,
      simulation.SimulationConfig(**_OPTIONS),
      checkpoint_manager=_Manager(run.checkpoints, saved),
      recorders=[recorders.CsvRecorder(run.metrics_csv, metrics.COLUMNS)],
    )
    owner.finish(_OPTIONS['total_rounds'])
  rows = [
    {k: v for k, v in row.items() if k not in metrics.VOLATILE_COLUMNS}
    for row in recorders.read_csv(run.metrics_csv)
  ]
  states = [store.get(i).weights.tolist() for i in range(_NUM_CLIENTS)]
  return (
    result.server_state.model.tolist(),
    states,
    rows,
    directory_lib.read_status(run).state,
  )


def _check_run(path: str, saved: list[int]) -> str:
  if not saved:
    return ''
  run = directory_lib.RunDirectory(path)
  restored = checkpoints.CheckpointManager(run.checkpoints).restore(
    _Process().initialize(), client_store.MemoryStore(_initial_state)
  )
  if restored is None or restored.round_num < saved[-1]:
    return f'round {saved[-1]} was saved and is lost'
  return ''


def _sweep(path: str, unused_saved: list[int]) -> Any:
  os.makedirs(path, exist_ok=True)
  runs = [
    record.Run('base', seed, os.path.join(path, f'seed_{seed}'), (), 'waiting')
    for seed in range(3)
  ]
  with record.alone(path):
    kept = record.Record(path, runs)
    for run in runs:
      kept.set(run, directory_lib.RUNNING)
      kept.set(run, directory_lib.FINISHED, 0)
  return record.read(path)


def _check_sweep(path: str, unused_saved: list[int]) -> str:
  try:
    record.read(path)
  except ValueError as error:
    return f'sweep.json is damaged: {error}'
  return ''


def _report(path: str, unused_saved: list[int]) -> Any:
  from tff_fedsa.reporting import figures
  from tff_fedsa.reporting import style

  os.makedirs(path, exist_ok=True)
  for name in ('report.md', 'report.csv'):
    files.write_bytes(os.path.join(path, name), f'{name}\n'.encode() * 50)
  figure = style.new_figure(1.0, 1.0)
  figure.subplots().plot([0, 1])
  figures.save(figure, os.path.join(path, 'figure.png'))
  return _contents(path)


def _contents(path: str) -> dict[str, str]:
  contents = {}
  for name in sorted(os.listdir(path)):
    if '.tmp-' not in name:
      with open(os.path.join(path, name), 'rb') as file:
        contents[name] = hashlib.file_digest(file, 'sha256').hexdigest()
  return contents


def _check_report(path: str, unused_saved: list[int]) -> str:
  if not os.path.isdir(path):
    return ''
  with tempfile.TemporaryDirectory() as other:
    whole = _report(other, [])
  half = [n for n, d in _contents(path).items() if whole.get(n) != d]
  return f'half written: {half}' if half else ''


SCENARIOS = (
  Scenario(
    'a run, client states in memory',
    lambda path, saved: _train(path, saved, 'memory'),
    _check_run,
  ),
  Scenario(
    'a run, client states on disk',
    lambda path, saved: _train(path, saved, 'disk'),
    _check_run,
  ),
  Scenario("a sweep's record", _sweep, _check_sweep),
  Scenario('a report', _report, _check_report),
)


def main(argv: Sequence[str]) -> None:
  """Prints the table."""
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected arguments: {argv[1:]}')
  logging.set_verbosity(logging.ERROR)
  print('| fault | ' + ' | '.join(one.name for one in SCENARIOS) + ' |')
  print('|---|' + '---|' * len(SCENARIOS))
  wrong = []
  for name, fault in FAULTS.items():
    cells = []
    for scenario in SCENARIOS:
      outcome = try_all(scenario, name, _EVERY.value)
      wrong += outcome.wrong
      right = outcome.calls - len(outcome.wrong)
      cells.append(f'{right} of {outcome.calls}')
    print(f'| {fault.said} | ' + ' | '.join(cells) + ' |', flush=True)
  for one in wrong:
    print(one, file=sys.stderr)
  sys.exit(1 if wrong else 0)


if __name__ == '__main__':
  app.run(main)
