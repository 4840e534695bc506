"""The directory of a run: its name, files, flags, owner and status.

Launchers, sweeps, reports and `tff_fedsa.load_run` read and write run
directories through this module. It imports no TensorFlow.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
import contextlib
import csv
import dataclasses
import fcntl
import io
import json
import os
import socket
import time
from typing import Annotated, Any, NamedTuple, Optional

from tff_fedsa import files
from tff_fedsa import settings
from tff_fedsa.runs import errors
from tff_fedsa.runs import trackers

# Places of the parts of a run. `run`: {root}/{name}/checkpoints, …; `by_kind`:
# {root}/checkpoints/{name}, {root}/results/{name}, {root}/logdir/{name}, as in
# google-research/federated.
LAYOUTS = ('run', 'by_kind')

NOT_STARTED = 'not started'
RUNNING = 'running'
FINISHED = 'finished'
STOPPED_EARLY = 'stopped early'
FAILED = 'failed'
INTERRUPTED = 'interrupted'

_LAYOUT = 'directory_layout'
_SECONDS_TO_WAIT = 0.5
_MOST_DETAIL = 500
# File systems allow 255 bytes. Temporary names are longer than final ones.
_LONGEST_NAME = 200


class RunDirectoryError(errors.UserError):
  """A run's directory cannot be used. The message gives reason and remedy."""


def name_trouble(name: str) -> str:
  """Returns the reason why a run cannot have a name, or ''.

  The name becomes the name of a directory, on any file system, and a part of
  messages and tables.

  Args:
    name: Name of the run, without the root.
  """
  if not name or name in (os.curdir, os.pardir) or set(name) & {'/', '\\'}:
    return 'it must be the name of a directory, without a separator'
  if not name.isprintable():
    return 'it must have no line breaks, tabs or other control characters'
  if len(name.encode(errors='replace')) > _LONGEST_NAME:
    return f'it must have no more than {_LONGEST_NAME} bytes'
  return ''


class RunDirectory:
  """Paths of the parts of a run.

  Attributes:
    path: The run's directory. With the layout `by_kind`, the directory of its
      results.
  """

  def __init__(self, path: str, layout: str = 'run'):
    """Initializes `RunDirectory`.

    Args:
      path: See `RunDirectory`.
      layout: One of `LAYOUTS`.
    """
    self.path = path
    self.flags_file = os.path.join(path, 'flags.txt')
    self.hparams_csv = os.path.join(path, 'hparams.csv')
    self.metrics_csv = os.path.join(path, 'metrics.csv')
    self.per_client_csv = os.path.join(path, 'per_client.csv')
    self.per_test_set_csv = os.path.join(path, 'per_test_set.csv')
    self.statistics_npz = os.path.join(path, 'statistics.npz')
    self.partition_npz = os.path.join(path, 'partition.npz')
    self.selection_json = os.path.join(path, 'selection.json')
    self.privacy_json = os.path.join(path, 'privacy.json')
    self.data_json = os.path.join(path, 'data.json')
    self.anchors_npy = os.path.join(path, 'initial_anchors.npy')
    self.summary_json = os.path.join(path, 'summary.json')
    self.status_json = os.path.join(path, 'status.json')
    self.lock = os.path.join(path, 'run.lock')
    self.log = os.path.join(path, 'train.log')
    self.figures = os.path.join(path, 'figures')
    if layout == 'by_kind':
      results, name = os.path.split(os.path.abspath(path))
      root = os.path.dirname(results)
      self.checkpoints = os.path.join(root, 'checkpoints', name)
      self.client_states = os.path.join(root, 'client_states', name)
      self.tensorboard = os.path.join(root, 'logdir', name)
    else:
      self.checkpoints = os.path.join(path, 'checkpoints')
      self.client_states = os.path.join(path, 'client_states')
      self.tensorboard = os.path.join(path, 'tensorboard')


@dataclasses.dataclass(frozen=True)
class RunConfig(settings.Settings):
  """Directory and display of a run.

  Attributes:
    experiment_name: Name of the run, and of its directory under
      `root_output_dir`. An existing run of this name is resumed. Default: the
      name of the algorithm.
    root_output_dir: Directory of all runs.
    directory_layout: Layout of the directory. run: all files in
      {root_output_dir}/{experiment_name}. by_kind:
      {root_output_dir}/checkpoints, /results and /logdir, each with a directory
      {experiment_name}, as in google-research/federated.
    progress: Whether to show a progress bar.
    tracker: Tracker that gets settings and rows, too: MLflow, or Weights &
      Biases (docs/metrics.md).
  """

  experiment_name: Annotated[Optional[str], settings.Free()] = None
  root_output_dir: Annotated[str, settings.Free()] = 'runs'
  directory_layout: Annotated[str, settings.OneOf(LAYOUTS), settings.Free()] = (
    'run'
  )
  progress: Annotated[bool, settings.Free()] = True
  tracker: Annotated[str, settings.OneOf(trackers.NAMES), settings.Free()] = (
    'none'
  )

  def __post_init__(self):
    super().__post_init__()
    name = self.experiment_name
    trouble = '' if name is None else name_trouble(name)
    if trouble:
      raise settings.SettingsError(f'`experiment_name`={name!r}: {trouble}.')

  def directory(self, algorithm: str) -> RunDirectory:
    """Returns the run's directory.

    Args:
      algorithm: Name of the run if `experiment_name` is not set.
    """
    name = self.experiment_name or algorithm
    path = os.path.join(self.root_output_dir, name)
    if self.directory_layout == 'by_kind':
      path = os.path.join(self.root_output_dir, 'results', name)
    return RunDirectory(path, self.directory_layout)


def names_of(path: str, layout: str = 'run') -> dict[str, str]:
  """Returns the fields of a `RunConfig` for a run with a given path.

  Args:
    path: See `RunDirectory`.
    layout: See `RunDirectory`.

  Raises:
    RunDirectoryError: If the path does not fit the layout.
  """
  path = os.path.normpath(path)
  if os.path.basename(path) in (os.curdir, os.pardir):
    path = os.path.abspath(path)
  root, name = os.path.split(path)
  if layout == 'by_kind':
    root, results = os.path.split(root)
    if results != 'results':
      raise RunDirectoryError(
        'Expected the directory of a run with directory_layout=by_kind to be '
        f'…/results/<name>, found {path!r}.'
      )
  return {
    'root_output_dir': root or os.curdir,
    'experiment_name': name,
    'directory_layout': layout,
  }


class Status(NamedTuple):
  """Progress of a run.

  Attributes:
    state: `NOT_STARTED`, `RUNNING`, `FINISHED`, `STOPPED_EARLY`, `FAILED` or
      `INTERRUPTED`.
    round_num: Rounds done when the status was recorded.
    total_rounds: Planned rounds, or None if unknown.
    patience: Rounds without a new best accuracy after which the run stops.
    detail: The process that trains the run, or the reason of a failure.
  """

  state: str
  round_num: int = 0
  total_rounds: Optional[int] = None
  patience: Optional[int] = None
  detail: str = ''

  @property
  def is_over(self) -> bool:
    """True if the run has finished or stopped early."""
    return self.state in (FINISHED, STOPPED_EARLY)

  def fulfils(self, total_rounds: int, patience: Optional[int]) -> bool:
    """Returns whether the run has reached a goal.

    Args:
      total_rounds: Rounds that are wanted.
      patience: Rounds without a new best accuracy after which the run may stop.
        A run that stopped early continues if this is larger than before.
    """
    if not self.is_over:
      return False
    if self.round_num == total_rounds:
      return True
    return (
      self.state == STOPPED_EARLY
      and self.round_num < total_rounds
      and patience is not None
      and self.patience is not None
      and patience <= self.patience
    )


class Owner:
  """The only program that may write to a run's directory; see `owned`."""

  def __init__(self, run: RunDirectory):
    self.run = run
    self._status = _recorded_status(run)

  def start(self, total_rounds: int, patience: Optional[int] = None) -> None:
    """Records the start of training, if any rounds are left.

    Args:
      total_rounds: Rounds that are wanted.
      patience: See `Status`.
    """
    if not self._status.fulfils(total_rounds, patience):
      done = self._status.round_num
      self._set(Status(RUNNING, done, total_rounds, patience))

  def finish(self, round_num: int, *, stopped_early: bool = False) -> None:
    """Records that the run is over.

    Args:
      round_num: Rounds done.
      stopped_early: Whether patience ended the run.
    """
    state = STOPPED_EARLY if stopped_early else FINISHED
    self._set(self._status._replace(state=state, round_num=round_num))

  def fail(self, error: BaseException, *, interrupted: bool = False) -> None:
    """Records how training ended, if it had started.

    Args:
      error: The exception that ended it. Ctrl-C counts as an interruption.
      interrupted: Whether a signal caused the exception. TensorFlow turns a
        KeyboardInterrupt within its C++ into other exceptions.
    """
    if self._status.state != RUNNING:
      return
    status = self._status._replace(state=INTERRUPTED)
    if isinstance(error, Exception) and not interrupted:
      detail = f'{type(error).__name__}: {error}'[:_MOST_DETAIL]
      status = status._replace(state=FAILED, detail=detail)
    # A full disk may be the reason of the failure. Without a record, the run
    # counts as interrupted.
    with contextlib.suppress(OSError):
      self._set(status)

  def _set(self, status: Status) -> None:
    self._status = status
    files.write_json(self.run.status_json, status._asdict())


@contextlib.contextmanager
def owned(
  run: RunDirectory, *, interrupted: Callable[[], bool] = lambda: False
) -> Iterator[Owner]:
  """Owns a run's directory within a `with` statement.

  The operating system's lock ends with the program, however the program ends.
  Readers need no lock.

  Args:
    run: Its directory is created if missing.
    interrupted: Tells if a signal has asked the program to end. Its exceptions
      are interruptions then, not failures.

  Raises:
    RunDirectoryError: If another program owns the directory (the message names
      it), or the directory cannot be written.
  """
  with _reported(run.path):
    os.makedirs(run.path, exist_ok=True)
    # Do not truncate the file: it may hold the name of another owner.
    lock = open(run.lock, 'a+', encoding='utf-8')
  with lock:
    deadline = time.monotonic() + _SECONDS_TO_WAIT
    # A reader that looks for an owner holds the lock for a moment.
    while not _try_lock(lock, fcntl.LOCK_EX):
      if time.monotonic() > deadline:
        raise RunDirectoryError(_said_of_owner(run))
      time.sleep(0.02)
    with _reported(run.path):
      lock.truncate(0)
      json.dump(
        {
          'pid': os.getpid(),
          'host': socket.gethostname(),
          'since': time.strftime('%Y-%m-%d %H:%M:%S'),
        },
        lock,
      )
      lock.flush()
    owner = Owner(run)
    try:
      yield owner
    except BaseException as error:
      owner.fail(error, interrupted=interrupted())
      raise


def refuse_owned(run: RunDirectory) -> None:
  """Refuses a run's directory that a program owns now.

  Raises:
    RunDirectoryError: If a program owns it. The message names the program.
  """
  if _is_owned(run):
    raise RunDirectoryError(_said_of_owner(run))


def read_status(run: RunDirectory) -> Status:
  """Returns the status of a run.

  A recorded `RUNNING` counts only while a program owns the directory. A run of
  an old version, without a record, is judged by its summary.
  """
  status = _recorded_status(run)
  if _is_owned(run):
    return status._replace(state=RUNNING, detail=_owner(run))
  if status.state == RUNNING:
    return status._replace(state=INTERRUPTED)
  return status


def open_existing(path: str) -> RunDirectory:
  """Opens the directory of an existing run.

  Raises:
    RunDirectoryError: If there is no run.
  """
  run = RunDirectory(path)
  if not os.path.exists(run.flags_file):
    raise RunDirectoryError(
      f'There is no run at {path!r}: {os.path.basename(run.flags_file)} is '
      'missing. Give the directory that `tff-fedsa train` printed.'
    )
  return RunDirectory(path, read_flags(run).get(_LAYOUT, 'run'))


def keep_flags(
  run: RunDirectory,
  values: Mapping[str, Any],
  *,
  defaults: Mapping[str, Any],
  free: Collection[str],
) -> None:
  """Records the flags of a run, and creates its directories.

  Args:
    run: The run. Its directory exists.
    values: Flags by name. If the directory already holds a run, they must equal
      the recorded flags (see `differing`).
    defaults: See `differing`.
    free: See `differing`.

  Raises:
    RunDirectoryError: If the directory cannot be written, or holds a run with
      other flags. The message names them.
  """
  with _reported(run.path):
    os.makedirs(run.figures, exist_ok=True)
    if os.path.exists(run.flags_file):
      different = differing(
        read_flags(run), values, defaults=defaults, free=free
      )
      if different:
        raise RunDirectoryError(
          f'{run.path!r} holds a run with other flags:\n  '
          + '\n  '.join(different)
          + '\nGive the same flags to resume it, or another --experiment_name '
          'to start a new run (with --init_from, it begins with the models of '
          'this one).'
        )
    lines = [
      f'--{name}={text(v)}' for name, v in values.items() if v is not None
    ]
    header = '# Repeat this run: tff-fedsa train --flagfile=<this file>'
    files.write_bytes(run.flags_file, '\n'.join([header, *lines, '']).encode())
    _write_hparams(run.hparams_csv, values)


def read_flags(run: RunDirectory) -> dict[str, str]:
  """Reads a run's flags by name, as texts."""
  with open(run.flags_file, encoding='utf-8') as file:
    lines = [line.strip() for line in file]
  pairs = (line[2:].partition('=') for line in lines if line.startswith('--'))
  return {name: value for name, _, value in pairs}


def differing(
  recorded: Mapping[str, str],
  values: Mapping[str, Any],
  *,
  defaults: Mapping[str, Any],
  free: Collection[str],
) -> list[str]:
  """Returns the differences between flags, one line each.

  Args:
    recorded: Result of `read_flags`.
    values: Flags by name.
    defaults: Default values by flag. A flag without a record may have its
      default, because the run may be older than the flag.
    free: Flags that may differ, because rounds do not depend on them.
  """
  lines = []
  for name, value in values.items():
    if name in free:
      continue
    now = None if value is None else text(value)
    before = recorded.get(name)
    known = before is not None or name not in defaults
    if now != before and (known or value != defaults[name]):
      lines.append(f'--{name}: {before} there, {now} now')
  return lines


def read_summary(run: RunDirectory) -> dict[str, Any]:
  """Returns a run's summary, or an empty dict if there is none."""
  try:
    return files.read_json(run.summary_json)
  except FileNotFoundError:
    return {}


def text(value: Any) -> str:
  """Returns the value of a flag as text, as in run directories."""
  if isinstance(value, list):
    return ','.join(value)
  return str(value).lower() if isinstance(value, bool) else str(value)


def _write_hparams(path: str, values: Mapping[str, Any]) -> None:
  """Writes flags as a table that `pandas.read_csv(path, index_col=0)` reads.

  This is google-research/federated's format, a series with its index.
  """
  table = io.StringIO(newline='')
  writer = csv.writer(table, lineterminator='\n')
  writer.writerow(['', '0'])
  writer.writerows((n, text(v)) for n, v in values.items() if v is not None)
  files.write_bytes(path, table.getvalue().encode())


def _recorded_status(run: RunDirectory) -> Status:
  """Returns the recorded status, or that of an older run from its files."""
  if not os.path.exists(run.flags_file):
    return Status(NOT_STARTED)
  if os.path.exists(run.status_json):
    try:
      return Status(**files.read_json(run.status_json))
    except (TypeError, ValueError) as error:
      raise RunDirectoryError(
        f'{run.status_json!r} is damaged: {error}. Remove it: the status then '
        "follows from the run's other files."
      ) from error
  recorded = read_flags(run)
  total_rounds = int(recorded.get('total_rounds', 0)) or None
  patience = int(recorded.get('patience', 0)) or None
  done = read_summary(run).get('rounds', 0)
  state = INTERRUPTED
  if done and done == total_rounds:
    state = FINISHED
  elif done and patience is not None and done == _last_round(run):
    state = STOPPED_EARLY
  return Status(state, done, total_rounds, patience)


def _last_round(run: RunDirectory) -> Optional[int]:
  """Returns the round of the last row of `metrics.csv`."""
  try:
    with open(run.metrics_csv, newline='', encoding='utf-8') as file:
      rounds = [row['round'] for row in csv.DictReader(file)]
  except FileNotFoundError:
    return None
  return int(rounds[-1]) if rounds else None


def _try_lock(file: Any, kind: int) -> bool:
  try:
    fcntl.flock(file, kind | fcntl.LOCK_NB)
  except BlockingIOError:
    return False
  return True


def _is_owned(run: RunDirectory) -> bool:
  try:
    with open(run.lock, 'rb') as file:
      return not _try_lock(file, fcntl.LOCK_SH)
  except (FileNotFoundError, PermissionError):
    return False


def _owner(run: RunDirectory) -> str:
  try:
    owner = files.read_json(run.lock)
    return f'process {owner["pid"]} on {owner["host"]} since {owner["since"]}'
  except (OSError, ValueError, KeyError):
    return 'another program'  # The owner has not written its name yet.


def _said_of_owner(run: RunDirectory) -> str:
  return (
    f'The run at {run.path!r} is being trained by {_owner(run)}. Wait for it, '
    'stop it, or use another --experiment_name.'
  )


@contextlib.contextmanager
def _reported(path: str) -> Iterator[None]:
  try:
    yield
  except OSError as error:
    raise RunDirectoryError(
      f'Cannot write to {path!r}: {error}. Choose another --root_output_dir.'
    ) from error
