"""The runs of a sweep, and the file that records their results."""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import fcntl
import os
from typing import Any, NamedTuple, Optional

from tff_fedsa import files
from tff_fedsa.runs import directory
from tff_fedsa.sweeps import values

WAITING = 'waiting'

_FILE = 'sweep.json'
_LOCK = 'sweep.lock'


class Run(NamedTuple):
  """A run of a sweep.

  Attributes:
    variant: Name of its variant.
    seed: Its seed.
    path: Path of its directory.
    arguments: Arguments of `tff-fedsa train`.
    status: `WAITING`, or finished, running or interrupted, as in `directory`.
  """

  variant: str
  seed: int
  path: str
  arguments: Sequence[str]
  status: str

  @property
  def log(self) -> str:
    return directory.RunDirectory(self.path).log


class Record:
  """Keeps sweep.json, which tells reports the planned runs."""

  def __init__(self, root: str, runs: Sequence[Run]):
    """Initializes `Record`, and writes the file.

    Args:
      root: Directory of the sweep.
      runs: The runs of this call, which may be a part of the sweep.
    """
    self._root = root
    known = read(root)
    keys = [self._key(run) for run in runs]
    # Reports keep this order. It is the order of the file if these are all
    # runs.
    order = keys if set(known) <= set(keys) else [*known, *keys]
    self._runs = {key: known.get(key, {}) for key in order}
    for run in runs:
      if run.status == directory.FINISHED or not self._runs[self._key(run)]:
        self._set(run, run.status)
    self._write()

  def set(self, run: Run, status: str, exit_code: Optional[int] = None) -> None:
    """Records the result of a run."""
    self._set(run, status, exit_code)
    self._write()

  def _set(
    self, run: Run, status: str, exit_code: Optional[int] = None
  ) -> None:
    self._runs[self._key(run)] = {
      'variant': run.variant,
      'seed': run.seed,
      'status': status,
      'exit_code': exit_code,
    }

  def _key(self, run: Run) -> str:
    return os.path.relpath(run.path, self._root)

  def _write(self) -> None:
    files.write_json(os.path.join(self._root, _FILE), {'runs': self._runs})


def read(root: str) -> dict[str, Mapping[str, Any]]:
  """Returns the record of a directory: runs by their relative paths.

  Each run has `variant`, `seed`, `status` and `exit_code` (None until it ends).
  The record is empty for a directory without a sweep.

  Args:
    root: Directory of the sweep.
  """
  path = os.path.join(root, _FILE)
  return files.read_json(path)['runs'] if os.path.exists(path) else {}


@contextlib.contextmanager
def alone(root: str) -> Iterator[None]:
  """Keeps a second sweep out of a directory.

  Args:
    root: Directory of the sweep. It exists.

  Raises:
    SweepError: If another sweep is running in the directory.
  """
  with open(os.path.join(root, _LOCK), 'w') as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      raise values.SweepError(
        f'Another `tff-fedsa sweep` is running in {root!r}: wait for it, or '
        'stop it.'
      ) from error
    yield
