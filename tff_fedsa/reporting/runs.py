"""Runs found in directories, grouped by configuration, ready to compare.

A run is a directory with `hparams.csv` (its flags), `metrics.csv`,
`per_client.csv`, `partition.npz` and, once finished, `summary.json`. A sweep's
`sweep.json` says which runs there should be, and how they ended.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
import hashlib
import os
from typing import Any, NamedTuple, Optional

import numpy as np
import pandas

from tff_fedsa import files
from tff_fedsa.runs import directory as directory_lib
from tff_fedsa.runs import recorders
from tff_fedsa.sweeps import record

FINISHED = directory_lib.FINISHED

_SEED_FLAGS = ('model_seed', 'sampling_seed', 'anchor_seed')


class ReportError(ValueError):
  """Runs can't be compared; the message says why and what to do."""


class Run(NamedTuple):
  """A run, as far as it got.

  Attributes:
    path: Of its directory.
    name: Of its variant or experiment.
    seed: What distinguishes it from the repeats of its configuration.
    flags: By name; empty if it has never started.
    history: Rows of `metrics.csv`.
    per_client: Rows of `per_client.csv`; None if there is none.
    partition: Digest of its partition; None if there is none.
    status: `finished`, `failed`, `incomplete` or `not started`.
    detail: More about a status other than `finished`.
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

  @property
  def diverged(self) -> int:
    """How many times training (clients', the server's) was left out for it."""
    return sum(
      row.get(column) or 0
      for row in self.history
      for column in ('clients_nonfinite', 'server_nonfinite')
    )


class Group(NamedTuple):
  """Runs that differ in their seed only.

  Attributes:
    name: What tells it from the other groups.
    algorithm: The method; empty if none of its runs has started.
    runs: Ordered by seed.
  """

  name: str
  algorithm: str
  runs: Sequence[Run]

  @property
  def finished(self) -> list[Run]:
    return [run for run in self.runs if run.status == FINISHED]


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
      'launch.train or launch.sweep, with hparams.csv.'
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
  )


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


def _with_anchor_seeds(runs: Sequence[Run]) -> list[Run]:
  """Tells runs apart that differ in the seed of their anchors only."""
  seeds = [run.seed for run in runs]
  return [
    run._replace(seed=f'{run.seed}/{run.flags["anchor_seed"]}')
    if seeds.count(run.seed) > 1 and 'anchor_seed' in run.flags
    else run
    for run in runs
  ]


def _partition_digest(path: str) -> Optional[str]:
  if not os.path.exists(path):
    return None
  digest = hashlib.sha256()
  for name, array in sorted(files.read_npz(path).items()):
    digest.update(name.encode())
    digest.update(np.ascontiguousarray(array).tobytes())
  return digest.hexdigest()


def group(runs: Sequence[Run], *, ignored: Collection[str] = ()) -> list[Group]:
  """Returns groups of runs with the same configuration up to the seed.

  Args:
    runs: Of `find`.
    ignored: Flags that make no difference to results.

  Raises:
    ReportError: If two runs have the same configuration and seed.
  """
  by_flags: dict[Any, list[Run]] = {}
  started = [run for run in runs if run.flags]
  for run in started:
    key = frozenset(
      (name, value)
      for name, value in run.flags.items()
      if name not in ignored
      # A partition of its own per seed is still a repeat.
      and name not in (*_SEED_FLAGS, 'partition_seed')
    )
    by_flags.setdefault(key, []).append(run)
  groups = list(by_flags.values())
  # What never started has no flags, but the name of a variant.
  for run in runs:
    if not run.flags:
      own = [
        members
        for members in groups
        if members[0].name == run.name and _same_sweep(members[0], run)
      ]
      if own:
        own[0].append(run)
      else:
        groups.append([run])
  named = _names(groups, ignored)
  result = []
  for name, members in zip(named, groups):
    members = _with_anchor_seeds(members)
    seen: dict[str, Run] = {}
    for run in members:
      if run.seed in seen:
        raise ReportError(
          f'{seen[run.seed].path!r} and {run.path!r} have the same flags and '
          f'the same seed, {run.seed}: give the directory of one of them.'
        )
      seen[run.seed] = run
    members = sorted(members, key=lambda run: _numeric(run.seed))
    algorithms = [run.flags.get('algorithm', '') for run in members]
    result.append(Group(name, max(algorithms), members))
  order = {run.path: index for index, run in enumerate(runs)}
  return sorted(result, key=lambda g: min(order[run.path] for run in g.runs))


def _same_sweep(one: Run, other: Run) -> bool:
  return os.path.dirname(one.path) == os.path.dirname(other.path)


def _numeric(seed: str) -> tuple[int, str]:
  return (int(seed), seed) if seed.lstrip('-').isdigit() else (0, seed)


def _names(
  groups: Sequence[Sequence[Run]], ignored: Collection[str]
) -> list[str]:
  names = []
  for members in groups:
    own = {run.name for run in members}
    names.append(
      own.pop() if len(own) == 1 else members[0].flags.get('algorithm', 'run')
    )
  for name in {name for name in names if names.count(name) > 1}:
    same = [i for i, other in enumerate(names) if other == name]
    for index in same:
      first = groups[index][0]
      if not first.flags:
        names[index] = f'{name} ({first.path})'
        continue
      differing = [
        flag
        for flag, value in sorted(first.flags.items())
        if flag not in ignored
        and flag not in (*_SEED_FLAGS, 'partition_seed')
        and any(
          groups[other][0].flags.get(flag) != value
          for other in same
          if groups[other][0].flags
        )
      ]
      names[index] = ','.join(
        [name, *(f'{flag}={first.flags[flag]}' for flag in differing)]
      )
  return names


def check_comparable(groups: Sequence[Group], names: Collection[str]) -> None:
  """Refuses to compare what was not measured in the same way.

  Args:
    groups: Of `group`.
    names: Flags that must be equal: those of the data and of the protocol.

  Raises:
    ReportError: Naming what differs, and in which groups.
  """
  lines = []
  for name in sorted(names):
    values: dict[str, list[str]] = {}
    for one in groups:
      for run in one.runs:
        if run.flags:
          value = run.flags.get(name, 'unset')
          members = values.setdefault(value, [])
          if one.name not in members:
            members.append(one.name)
    if len(values) > 1:
      lines.append(f'--{name}: {_said(values)}')
  by_seed: dict[str, dict[str, list[str]]] = {}
  for one in groups:
    for run in one.runs:
      if run.partition is not None:
        by_digest = by_seed.setdefault(run.seed, {})
        by_digest.setdefault(run.partition[:8], []).append(one.name)
  for seed, digests in by_seed.items():
    if len(digests) > 1:
      lines.append(f'partition.npz, seed {seed}: {_said(digests)}')
  if lines:
    raise ReportError(
      'These runs were not measured in the same way:\n  '
      + '\n  '.join(lines)
      + '\nReport them one at a time: give the directories of those that '
      'belong together.'
    )


def _said(members: Mapping[str, Sequence[str]]) -> str:
  parts = []
  for value, names in members.items():
    more = f' and {len(names) - 3} more' if len(names) > 3 else ''
    parts.append(f'{value} ({", ".join(names[:3])}{more})')
  return '; '.join(parts)


def missing_seeds(groups: Sequence[Group]) -> dict[str, list[str]]:
  """Returns, by group, which seeds of the others have no finished run in it."""
  seeds = {run.seed for one in groups for run in one.runs}
  missing = {}
  for one in groups:
    found = {run.seed for run in one.finished}
    if found != seeds:
      missing[one.name] = sorted(seeds - found, key=_numeric)
  return missing
