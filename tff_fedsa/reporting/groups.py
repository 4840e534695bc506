"""Groups runs by configuration, and checks whether groups are comparable."""

from collections.abc import Collection, Mapping, Sequence
import os
from typing import Any, NamedTuple

from tff_fedsa.reporting import runs as runs_lib

_SEED_FLAGS = ('model_seed', 'sampling_seed', 'anchor_seed')


class Group(NamedTuple):
  """Runs that differ only in their seed.

  Attributes:
    name: Unique name of the group.
    algorithm: The method, or an empty text if no run has started.
    runs: Runs in the order of seeds.
  """

  name: str
  algorithm: str
  runs: Sequence[runs_lib.Run]

  @property
  def finished(self) -> list[runs_lib.Run]:
    return [run for run in self.runs if run.status == runs_lib.FINISHED]


def group(
  runs: Sequence[runs_lib.Run], *, ignored: Collection[str] = ()
) -> list[Group]:
  """Returns groups of runs with the same configuration up to the seed.

  Args:
    runs: Result of `runs.find`.
    ignored: Flags that make no difference to results.

  Raises:
    ReportError: If two runs have the same configuration and seed.
  """
  by_flags: dict[Any, list[runs_lib.Run]] = {}
  started = [run for run in runs if run.flags]
  for run in started:
    key = frozenset(
      (name, value)
      for name, value in run.flags.items()
      if name not in ignored
      # Runs with different partitions per seed are still repeats.
      and name not in (*_SEED_FLAGS, 'partition_seed')
    )
    by_flags.setdefault(key, []).append(run)
  groups = list(by_flags.values())
  # A run that never started has no flags, only the name of its variant.
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
    seen: dict[str, runs_lib.Run] = {}
    for run in members:
      if run.seed in seen:
        raise runs_lib.ReportError(
          f'{seen[run.seed].path!r} and {run.path!r} have the same flags and '
          f'the same seed, {run.seed}: give the directory of one of them.'
        )
      seen[run.seed] = run
    members = sorted(members, key=lambda run: _numeric(run.seed))
    algorithms = [run.flags.get('algorithm', '') for run in members]
    result.append(Group(name, max(algorithms), members))
  order = {run.path: index for index, run in enumerate(runs)}
  return sorted(result, key=lambda g: min(order[run.path] for run in g.runs))


def _same_sweep(one: runs_lib.Run, other: runs_lib.Run) -> bool:
  return os.path.dirname(one.path) == os.path.dirname(other.path)


def _numeric(seed: str) -> tuple[int, str]:
  return (int(seed), seed) if seed.lstrip('-').isdigit() else (0, seed)


def _names(
  groups: Sequence[Sequence[runs_lib.Run]], ignored: Collection[str]
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
  """Refuses to compare runs with different measurements.

  Args:
    groups: Result of `group`.
    names: Flags that must be equal: those of the data and of the protocol.

  Raises:
    ReportError: If something differs. The message names it and the groups.
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
    raise runs_lib.ReportError(
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
  """Returns, by group, the seeds of other groups without a finished run."""
  seeds = {run.seed for one in groups for run in one.runs}
  missing = {}
  for one in groups:
    found = {run.seed for run in one.finished}
    if found != seeds:
      missing[one.name] = sorted(seeds - found, key=_numeric)
  return missing


def _with_anchor_seeds(runs: Sequence[runs_lib.Run]) -> list[runs_lib.Run]:
  """Distinguishes runs that differ only in the seed of their anchors."""
  seeds = [run.seed for run in runs]
  return [
    run._replace(seed=f'{run.seed}/{run.flags["anchor_seed"]}')
    if seeds.count(run.seed) > 1 and 'anchor_seed' in run.flags
    else run
    for run in runs
  ]
