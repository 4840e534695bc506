"""Finds runs in directories, finished or not.

A run is a directory with `hparams.csv` (its flags), `metrics.csv`,
`per_client.csv`, `partition.npz` and, once finished, `summary.json`. The
`sweep.json` of a sweep lists the planned runs and their results.
"""

from collections.abc import Iterator, Mapping, Sequence
import hashlib
import os
from typing import Any, NamedTuple, Optional

import numpy as np
import pandas

from tff_fedsa import files
from tff_fedsa.runs import directory as directory_lib
from tff_fedsa.runs import errors
from tff_fedsa.runs import recorders
from tff_fedsa.sweeps import record

FINISHED = directory_lib.FINISHED


class ReportError(errors.UserError):
  """Runs cannot be compared. The message gives reason and remedy."""


class Run(NamedTuple):
  """A run, finished or not.

  Attributes:
    path: Path of its directory.
    name: Name of its variant or experiment.
    seed: Seed that distinguishes it from the repeats of its configuration.
    flags: By name; empty if it has never started.
    history: Rows of `metrics.csv`.
    per_client: Rows of `per_client.csv`; None if there is none.
    partition: Digest of its partition; None if there is none.
    status: `finished`, `failed`, `incomplete` or `not started`.
    detail: More about a status other than `finished`.
    test_examples: Number of examples behind an accuracy. If it is a mean over
      several test sets, the number of one test set with the same binomial
      error. None if nothing was tested.
  """

  path: str
  name: str
  seed: str
  flags: Mapping[str, str]
  history: Sequence[Mapping[str, Any]]
  per_client: Optional[pandas.DataFrame]
  partition: Optional[str]
  status: str
  detail: str = ''
  test_examples: Optional[float] = None

  @property
  def partition_seed(self) -> str:
    """Seed of its partition; empty if it has never started."""
    return self.flags.get('partition_seed', '')

  @property
  def diverged(self) -> int:
    """Number of trainings (clients', the server's) that diverged."""
    return sum(
      row.get(column) or 0
      for row in self.history
      for column in ('clients_nonfinite', 'server_nonfinite')
    )


def find(directories: Sequence[str], defaults: Mapping[str, str]) -> list[Run]:
  """Returns all runs in directories, and those a sweep planned there, in order.

  Args:
    directories: Searched with all that is below them.
    defaults: Flags by name, for runs that are older than a flag.

  Raises:
    ReportError: If a directory is missing, or there is no run at all.
  """
  paths: dict[str, Mapping[str, Any]] = {}
  for directory in directories:
    if not os.path.isdir(directory):
      raise ReportError(f'There is no directory {directory!r}.')
    top = os.path.abspath(directory)
    for path, planned in _planned(top):
      if os.path.commonpath([top, path]) == top:
        paths.setdefault(path, planned)
    for path, _, names in sorted(os.walk(top)):
      if 'hparams.csv' in names:
        paths.setdefault(path, {})
  if not paths:
    raise ReportError(
      f'There is no run in {", ".join(directories)}: expected directories of '
      '`tff-fedsa train` or `tff-fedsa sweep`, with hparams.csv.'
    )
  return [_read(path, paths[path], defaults) for path in paths]


def _planned(top: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
  """Yields path and record of each run of sweeps below or around `top`."""
  parent = os.path.dirname(top)
  around = [parent, os.path.dirname(parent)]
  for root in [*around, *(folder for folder, _, _ in os.walk(top))]:
    for relative, planned in record.read(root).items():
      yield os.path.join(root, relative), planned


def _read(
  path: str, planned: Mapping[str, Any], defaults: Mapping[str, str]
) -> Run:
  folder, base = os.path.split(path)
  is_repeat = base.startswith('seed_')
  name = os.path.basename(folder) if is_repeat else base
  name = planned.get('variant', name)
  run = directory_lib.RunDirectory(path)
  if not os.path.exists(run.hparams_csv):
    status, detail = directory_lib.NOT_STARTED, ''
    if planned.get('status') == directory_lib.FAILED:
      status, detail = directory_lib.FAILED, _failure(run, planned)
    return Run(
      path, name, str(planned['seed']), {}, [], None, None, status, detail
    )
  table = pandas.read_csv(
    run.hparams_csv, index_col=0, dtype=str, keep_default_na=False
  )
  flags = {**defaults, **table['0']}
  history: Sequence[Mapping[str, Any]] = []
  if os.path.exists(run.metrics_csv):
    history = recorders.read_csv(run.metrics_csv)
  per_client = None
  if os.path.exists(run.per_client_csv):
    per_client = pandas.read_csv(run.per_client_csv)
  status, detail = _status(run, planned, flags, history)
  return Run(
    path,
    name,
    str(planned['seed']) if planned else _seed(flags),
    flags,
    history,
    per_client,
    _partition_digest(run.partition_npz),
    status,
    detail,
    _test_examples(run, per_client),
  )


def _test_examples(
  run: directory_lib.RunDirectory, per_client: Optional[pandas.DataFrame]
) -> Optional[float]:
  if per_client is not None:
    return float(per_client['num_examples'].sum())
  if not os.path.exists(run.per_test_set_csv):
    return None
  sizes = pandas.read_csv(run.per_test_set_csv)['num_examples']
  return float(len(sizes) ** 2 / (1 / sizes).sum())


def _status(
  run: directory_lib.RunDirectory,
  planned: Mapping[str, Any],
  flags: Mapping[str, str],
  history: Sequence[Mapping[str, Any]],
) -> tuple[str, str]:
  done, total = 0, int(flags['total_rounds'])
  if history:
    done = history[-1]['round']
  patience = int(flags['patience']) if 'patience' in flags else None
  status = directory_lib.read_status(run)
  if status.fulfils(total, patience):
    return FINISHED, ''
  if planned.get('status') == directory_lib.FAILED:
    return (
      directory_lib.FAILED,
      f'{_failure(run, planned)} (round {done} of {total})',
    )
  if status.state == directory_lib.FAILED:
    return directory_lib.FAILED, f'{status.detail} (round {done} of {total})'
  return 'incomplete', f'round {done} of {total}'


def _failure(
  run: directory_lib.RunDirectory, planned: Mapping[str, Any]
) -> str:
  """Returns how a program ended, and the last that it said."""
  text = f'status {planned["exit_code"]}'
  if os.path.exists(run.log):
    with open(run.log, encoding='utf-8', errors='replace') as file:
      lines = file.read().split('\n')
    said = [line.strip() for line in lines if line.strip()]
    if said:
      text += f': {said[-1]}'
  return text


def _seed(flags: Mapping[str, str]) -> str:
  seeds = [flags[name] for name in ('model_seed', 'sampling_seed')]
  return seeds[0] if len(set(seeds)) == 1 else '/'.join(seeds)


def _partition_digest(path: str) -> Optional[str]:
  if not os.path.exists(path):
    return None
  digest = hashlib.sha256()
  for name, array in sorted(files.read_npz(path).items()):
    digest.update(name.encode())
    digest.update(np.ascontiguousarray(array).tobytes())
  return digest.hexdigest()
