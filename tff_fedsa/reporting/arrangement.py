"""Arranges configurations as a table: methods are rows, settings are columns.

A setting is what all methods of a column have in common and other columns have
not: flags of the measurement that differ (alpha, the partition, the data set),
and axes of a sweep over several methods (`feature_dim=8`).
"""

import collections
from collections.abc import Collection, Mapping, Sequence
import itertools
from typing import Any, NamedTuple

from tff_fedsa.algorithms import registry
from tff_fedsa.reporting import names

_UNSET = 'unset'


class Configuration(NamedTuple):
  """What distinguishes a configuration from others.

  Attributes:
    name: Unique name.
    algorithm: The method; empty if no run has started.
    flags: Flags that matter, without seeds; empty if no run has started.
  """

  name: str
  algorithm: str
  flags: Mapping[str, str]


class Place(NamedTuple):
  """The cell of a configuration.

  Attributes:
    row: Name of the row: the method or its variant, or the configuration
      without its setting.
    setting: Parts of the column's name; empty if there is one column.
    measured: Values of the flags of the measurement that differ. Numbers of
      two configurations are comparable only if these are equal.
  """

  row: str
  setting: tuple[str, ...] = ()
  measured: tuple[str, ...] = ()


def places(
  configurations: Sequence[Configuration], measurement: Collection[str]
) -> list[Place]:
  """Returns the place of each configuration.

  Args:
    configurations: Any configurations with names of their own.
    measurement: Flags of the measurement: those of data and protocol.
  """
  known = [one for one in configurations if one.flags]
  differing = [
    flag
    for flag in sorted(measurement)
    if len({one.flags.get(flag, _UNSET) for one in known}) > 1
  ]
  sets = _sets(known, measurement)
  heads = [_head(one, sets) for one in configurations]
  parts = [names.setting(one.name, h) for one, h in zip(configurations, heads)]
  explained = _explained(configurations, parts, differing) | sets
  # An axis is a setting if more than one row has it. Else its values are
  # variants of the method.
  is_setting = len({*heads}) > 1
  found = []
  for one, axes in zip(configurations, parts):
    measured = {flag: one.flags.get(flag, _UNSET) for flag in differing}
    if not one.flags:
      measured = _from_parts(axes or (), explained)
    others = tuple(part for part in axes or () if part not in explained)
    found.append((measured, others, axes))
  labels = _labels(found, explained, is_setting)
  rows = _rows(configurations, heads, found, differing, is_setting)
  return [
    Place(
      row,
      labels[_column(measured, others, is_setting)],
      tuple(f'{flag}={value}' for flag, value in measured.items()),
    )
    for row, (measured, others, _) in zip(rows, found)
  ]


def _method(one: Configuration) -> str:
  if one.algorithm:
    return one.algorithm
  parts = one.name.split(',')
  return next((part for part in parts if part in registry.NAMES), one.name)


def _sets(
  configurations: Sequence[Configuration], measurement: Collection[str]
) -> dict[str, dict[str, str]]:
  """Returns sets of flags of the measurement that an axis names.

  In `rotated,fedsa` and `plain,fedsa` the first part is a value of such an axis
  if configurations that agree in all other parts differ in flags of the
  measurement only.

  Args:
    configurations: Those with flags.
    measurement: Flags of the measurement.

  Returns:
    The values of the flags in which the axis differs, by part of a name.
  """
  split = [(one.name.split(','), one.flags) for one in configurations]
  found: dict[str, dict[str, str]] = {}
  if len({len(parts) for parts, _ in split}) != 1:
    return found
  for place in range(len(split[0][0])):
    values = {parts[place] for parts, _ in split}
    if len(values) < 2 or any('=' in value for value in values):
      continue
    alike: dict[Any, list[Mapping[str, str]]] = collections.defaultdict(list)
    for parts, flags in split:
      alike[(*parts[:place], *parts[place + 1 :])].append(flags)
    varied = {
      flag
      for members in alike.values()
      for flag in {*itertools.chain(*members)}
      if len({flags.get(flag, _UNSET) for flags in members}) > 1
    }
    if varied and varied <= {*measurement}:
      for parts, flags in split:
        found[parts[place]] = {
          flag: flags.get(flag, _UNSET) for flag in sorted(varied)
        }
  return found


def _head(one: Configuration, sets: Collection[str]) -> str:
  """Returns the part of the name that is no axis: a method or a variant.

  Args:
    one: A configuration.
    sets: Parts that name settings, see `_sets`.
  """
  method, parts = _method(one), one.name.split(',')
  bare = [part for part in parts if '=' not in part and part not in sets]
  if method not in parts and len(parts) > 1 and len(bare) == 1:
    return bare[0]
  return method


def _explained(
  configurations: Sequence[Configuration],
  parts: Sequence[tuple[str, ...] | None],
  differing: Sequence[str],
) -> dict[str, dict[str, str]]:
  """Returns flags of the measurement with their values, by part of a name.

  `alpha=0.1` stands for the flag, and so does the value `dir01` of an axis
  `data`, if it alone has this alpha.
  """
  known = [
    (one.flags, axes)
    for one, axes in zip(configurations, parts)
    if one.flags and axes is not None
  ]
  explained = {}
  for part in dict.fromkeys(part for _, axes in known for part in axes):
    having = [flags for flags, axes in known if part in axes]
    others = [flags for flags, axes in known if part not in axes]
    of_part = {}
    for flag in differing:
      values = {flags.get(flag, _UNSET) for flags in having}
      # Others may have the value without saying it.
      is_said = {f'{flag}={value}' for value in values} == {part}
      if is_said or (
        len(values) == 1
        and not any(flags.get(flag, _UNSET) in values for flags in others)
      ):
        of_part[flag] = values.pop()
    if of_part:
      explained[part] = of_part
  return explained


def _from_parts(
  axes: Sequence[str], explained: Mapping[str, Mapping[str, str]]
) -> dict[str, str]:
  values: dict[str, str] = {}
  for part in axes:
    values |= explained.get(part, {})
  return dict(sorted(values.items()))


_Found = tuple[dict[str, str], tuple[str, ...], tuple[str, ...] | None]
_Column = tuple[tuple[tuple[str, str], ...], tuple[str, ...]]


def _column(
  measured: Mapping[str, str], others: tuple[str, ...], is_setting: bool
) -> _Column:
  return tuple(measured.items()), others if is_setting else ()


def _labels(
  found: Sequence[_Found],
  explained: Mapping[str, Mapping[str, str]],
  is_setting: bool,
) -> dict[_Column, tuple[str, ...]]:
  """Returns the name of each column, as the sweep names it if it does."""
  labels: dict[_Column, tuple[str, ...]] = {}
  for measured, others, axes in sorted(found, key=lambda f: f[2] is None):
    column = _column(measured, others, is_setting)
    named = [
      part for part in axes or () if part in explained or part in column[1]
    ]
    covered = _from_parts(named, explained)
    named += [f'{f}={v}' for f, v in measured.items() if f not in covered]
    labels.setdefault(column, tuple(named))
  return labels


def _rows(
  configurations: Sequence[Configuration],
  heads: Sequence[str],
  found: Sequence[_Found],
  differing: Sequence[str],
  is_setting: bool,
) -> list[str]:
  rows: list[str] = []
  own: dict[frozenset[tuple[str, str]], list[int]] = collections.defaultdict(
    list
  )
  for index, (one, head, (_, others, axes)) in enumerate(
    zip(configurations, heads, found)
  ):
    if axes is not None:
      rows.append(','.join([head, *(() if is_setting else others)]))
      continue
    rows.append(one.name)
    if one.flags:
      own[
        frozenset(
          item for item in one.flags.items() if item[0] not in differing
        )
      ].append(index)
  # A configuration that runs under several names, one for each setting.
  for indices in own.values():
    if len(indices) > 1:
      method = _method(configurations[indices[0]])
      row = method if method not in rows else configurations[indices[0]].name
      for index in indices:
        rows[index] = row
  return rows
