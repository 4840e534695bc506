"""Groups runs by configuration, and checks whether groups are comparable."""

import collections
from collections.abc import Collection, Mapping, Sequence
import os
from typing import Any, NamedTuple

from tff_fedsa.reporting import arrangement
from tff_fedsa.reporting import runs as runs_lib

_SEED_FLAGS = (
  'model_seed',
  'sampling_seed',
  'anchor_seed',
  'attack_seed',
  'dp_seed',
)
# Runs with different partitions are still repeats.
_REPEATED = (*_SEED_FLAGS, 'partition_seed')
# Flags that every table shows, whatever its runs are called, and the values
# that go without saying.
_PROTECTION = {
  'attack': '',
  'aggregator': 'mean',
  'dp': 'none',
  'dp_epsilon': '',
  'dp_delta': '1e-05',
  'dp_noise_multiplier': '',
  'dp_cohort': '',
  'dp_population': '',
  'dp_clip_quantile': '',
  'dp_bits': '24',
  'secure': 'false',
  'secure_bound': '1000.0',
}


class Group(NamedTuple):
  """Runs that differ only in their seed.

  Attributes:
    name: Unique name of the group.
    algorithm: The method, or an empty text if no run has started.
    runs: Runs in the order of seeds.
    place: Its row and column in a table of methods and settings.
  """

  name: str
  algorithm: str
  runs: Sequence[runs_lib.Run]
  place: arrangement.Place = arrangement.Place('')

  @property
  def setting(self) -> str:
    """The column's name; empty if there is one column."""
    return ', '.join(self.place.setting)

  @property
  def finished(self) -> list[runs_lib.Run]:
    return [run for run in self.runs if run.status == runs_lib.FINISHED]


def group(
  runs: Sequence[runs_lib.Run],
  *,
  ignored: Collection[str] = (),
  measurement: Collection[str] = (),
) -> list[Group]:
  """Returns groups of runs with the same configuration up to the seed.

  Args:
    runs: Result of `runs.find`.
    ignored: Flags that make no difference to results.
    measurement: Flags of data and protocol. Where they differ, groups are in
      different settings.

  Raises:
    ReportError: If two runs have the same configuration and seed.
  """
  by_flags: dict[Any, list[runs_lib.Run]] = {}
  started = [run for run in runs if run.flags]
  for run in started:
    key = frozenset(
      (name, value)
      for name, value in run.flags.items()
      if name not in ignored and name not in _REPEATED
    )
    by_flags.setdefault(key, []).append(run)
  groups = list(by_flags.values())
  # A run that never started has no flags, only the name of its variant.
  for run in runs:
    if not run.flags:
      own = [
        members
        for members in groups
        if any(
          member.name == run.name and _same_sweep(member, run)
          for member in members
        )
      ]
      if own:
        own[0].append(run)
      else:
        groups.append([run])
  named = _names(groups, ignored)
  result = []
  for name, members in zip(named, groups):
    members = _with_seeds_of(members, 'partition_seed', ', partition ')
    for flag in ('anchor_seed', 'attack_seed', 'dp_seed'):
      members = _with_seeds_of(members, flag, '/')
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
  result.sort(key=lambda g: min(order[run.path] for run in g.runs))
  return arranged(result, ignored=ignored, measurement=measurement)


def arranged(
  groups: Sequence[Group],
  *,
  ignored: Collection[str] = (),
  measurement: Collection[str] = (),
) -> list[Group]:
  """Returns the groups, with their places in a table of all of them.

  Args:
    groups: Any groups with names of their own.
    ignored: See `group`.
    measurement: See `group`.
  """
  places = arrangement.places(
    [
      arrangement.Configuration(one.name, one.algorithm, flags_of(one, ignored))
      for one in groups
    ],
    measurement,
  )
  return [one._replace(place=place) for one, place in zip(groups, places)]


def flags_of(one: Group, ignored: Collection[str] = ()) -> dict[str, str]:
  """Returns the flags that the runs of a group share; empty if none started.

  Args:
    one: The group.
    ignored: Flags to leave out, besides seeds.
  """
  flags = next((run.flags for run in one.runs if run.flags), {})
  return {
    name: value
    for name, value in flags.items()
    if name not in ignored and name not in _REPEATED
  }


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
        and flag not in _REPEATED
        and any(
          groups[other][0].flags.get(flag) != value
          for other in same
          if groups[other][0].flags
        )
      ]
      names[index] = ','.join(
        [name, *(f'{flag}={first.flags[flag]}' for flag in differing)]
      )
  return [_protected(name, of[0].flags) for name, of in zip(names, groups)]


def _protected(name: str, flags: Mapping[str, str]) -> str:
  """Returns a name that says the attack and the aggregator of its runs."""
  parts = [name]
  for flag, default in _PROTECTION.items():
    part = f'{flag}={flags.get(flag) or default}'
    if part != f'{flag}={default}' and part not in name.split(','):
      parts.append(part)
  return ','.join(parts)


def check_comparable(groups: Sequence[Group], names: Collection[str]) -> None:
  """Refuses to compare runs with different measurements.

  Groups in different settings (see `group`) are not compared with each other.

  Args:
    groups: Result of `group`.
    names: Flags that must be equal: those of the data and of the protocol.

  Raises:
    ReportError: If something differs within a setting, or no setting has two
      methods, so that no two methods were measured alike. The message names
      what differs, and the groups.
  """
  by_measurement = _by_measurement(groups)
  lines = []
  for members in by_measurement:
    lines += _different_flags(members, names) + _different_partitions(members)
  rows = {one.place.row for one in groups}
  if len(by_measurement) > 1 and len(rows) > 1:
    most = max(len({g.place.row for g in part}) for part in by_measurement)
    if most < 2:
      lines += _different_flags(groups, names)
  if lines:
    raise runs_lib.ReportError(
      'These runs were not measured in the same way:\n  '
      + '\n  '.join(lines)
      + '\nReport them one at a time: give the directories of those that '
      'belong together.'
    )


def _by_measurement(groups: Sequence[Group]) -> list[list[Group]]:
  """Returns groups whose numbers are comparable together."""
  parts: dict[Any, list[Group]] = collections.defaultdict(list)
  for one in groups:
    parts[one.place.measured].append(one)
  return list(parts.values())


def _different_flags(
  groups: Sequence[Group], names: Collection[str]
) -> list[str]:
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
  return lines


def _different_partitions(groups: Sequence[Group]) -> list[str]:
  by_seed: dict[str, dict[str, list[str]]] = {}
  for one in groups:
    for run in one.runs:
      if run.partition is not None:
        by_digest = by_seed.setdefault(run.seed, {})
        by_digest.setdefault(run.partition[:8], []).append(one.name)
  return [
    f'partition.npz, seed {seed}: {_said(digests)}'
    for seed, digests in by_seed.items()
    if len(digests) > 1
  ]


def _said(members: Mapping[str, Sequence[str]]) -> str:
  parts = []
  for value, names in members.items():
    more = f' and {len(names) - 3} more' if len(names) > 3 else ''
    parts.append(f'{value} ({", ".join(names[:3])}{more})')
  return '; '.join(parts)


def missing_seeds(groups: Sequence[Group]) -> dict[str, list[str]]:
  """Returns, by group, seeds of others in its setting that it lacks."""
  missing = {}
  for members in _by_measurement(groups):
    seeds = {run.seed for one in members for run in one.runs}
    for one in members:
      found = {run.seed for run in one.finished}
      if found != seeds:
        missing[one.name] = sorted(seeds - found, key=_numeric)
  return missing


def _with_seeds_of(
  runs: Sequence[runs_lib.Run], flag: str, separator: str
) -> list[runs_lib.Run]:
  """Distinguishes runs that differ only in one more seed."""
  seeds = [run.seed for run in runs]
  several = {
    seed
    for seed in seeds
    if len({r.flags.get(flag) for r in runs if r.seed == seed}) > 1
  }
  if not several:
    return list(runs)
  return [
    run._replace(seed=f'{run.seed}{separator}{run.flags[flag]}')
    if flag in run.flags
    else run
    for run in runs
  ]
