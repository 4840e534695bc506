"""What a sweep file says: the variants and seeds of an experiment.

A sweep file is TOML:

  # Flags of every run, as launch.train takes them.
  [flags]
  flagfile = 'flags/fedsa.digits.flags'
  total_rounds = 30

  # Every combination of one value of each axis is a variant. An axis is named
  # after a flag and lists its values …
  [axes]
  algorithm = ['fedsa', 'fedproto']
  # … or has any name, and names sets of flags.
  [axes.data]
  dir01 = {alpha = 0.1}
  iid = {partition = 'iid'}

  # Variants that are listed one by one, besides those of the axes.
  [variants]
  no_anchors = {lambda_reg = 0, lambda_mcl = 0}

and, before the first table, optionally

  # Another file, relative to this one: holds what this one does not say, table
  # entry by table entry.
  base = 'others.toml'
  # Of the sweep's directory; by default, the name of the file.
  name = 'digits'
  # Each variant runs once with each; by default, [0].
  seeds = [0, 1, 2]
  # Which flags get the seed; this is the default.
  seed_flags = ['model_seed', 'sampling_seed', 'anchor_seed']
  # Combinations of the axes to leave out.
  exclude = [{algorithm = 'fedproto', data = 'iid'}]
"""

from collections.abc import Iterator, Mapping, Sequence
import difflib
import itertools
import os
import re
import tomllib
from typing import Any, NamedTuple

from tff_fedsa.runs import errors

# Repeats must not change the data: `partition_seed` is not among them.
SEED_FLAGS = ('model_seed', 'sampling_seed', 'anchor_seed')

_TABLES = ('flags', 'axes', 'variants')
_KEYS = ('base', 'name', 'seeds', 'seed_flags', 'exclude', *_TABLES)
# Set by the sweep itself.
_RESERVED = ('experiment_name', 'root_output_dir')
_NAME = re.compile(r'[A-Za-z0-9][\w.,=+-]*')


class SweepError(errors.UserError):
  """A sweep can't be run; the message says why and what to do."""


class Sweep(NamedTuple):
  """The content of a sweep file.

  Attributes:
    name: Of the sweep's directory.
    flags: Flags of every run, by name.
    variants: Flags that make a variant, by its name.
    seeds: Of the repeats of each variant.
    seed_flags: Flags that get the seed.
  """

  name: str
  flags: Mapping[str, Any]
  variants: Mapping[str, Mapping[str, Any]]
  seeds: Sequence[int]
  seed_flags: Sequence[str]


def read(path: str) -> Sweep:
  """Reads a sweep file.

  Raises:
    SweepError: If it can't be read, or is not as above.
  """
  content = _load(path, ())
  try:
    return _parse(content, os.path.splitext(os.path.basename(path))[0])
  except SweepError as error:
    raise SweepError(f'{path}: {error}') from error


def arguments(flags: Mapping[str, Any]) -> list[str]:
  """Returns flags as they are written on a command line.

  Args:
    flags: Values by name; flag files come first, so that others overrule them.
  """
  names = sorted(flags, key=lambda name: name != 'flagfile')
  return [
    f'--{name}={_text(value)}'
    for name in names
    for value in (
      flags[name]
      if name == 'flagfile' and isinstance(flags[name], list)
      else [flags[name]]
    )
  ]


def _load(path: str, seen: Sequence[str]) -> dict[str, Any]:
  """Returns what a file says, with what it takes from its base."""
  if path in seen:
    raise SweepError(f'{" -> ".join([*seen, path])}: a file is its own base.')
  try:
    with open(path, 'rb') as file:
      content = tomllib.load(file)
  except OSError as error:
    of = f', the base of {seen[-1]}' if seen else ''
    raise SweepError(f'Cannot read the sweep file{of}: {error}.') from error
  except tomllib.TOMLDecodeError as error:
    raise SweepError(f'{path}: not valid TOML: {error}.') from error
  if 'base' not in content:
    return content
  if not isinstance(content['base'], str):
    raise SweepError(
      f'{path}: base: expected the name of a file, found {content["base"]!r}.'
    )
  base = _load(
    os.path.normpath(os.path.join(os.path.dirname(path), content['base'])),
    [*seen, path],
  )
  # Each file has a directory of its own.
  base.pop('name', None)
  for table in _TABLES:
    if table in base and table in content:
      content[table] = {
        **_table(base[table], f'[{table}]'),
        **_table(content[table], f'[{table}]'),
      }
  return {**base, **content}


def _parse(content: Mapping[str, Any], default_name: str) -> Sweep:
  for key in content:
    if key not in _KEYS:
      close = difflib.get_close_matches(key, _KEYS, 1)
      hint = f'did you mean {close[0]!r}?' if close else 'is it a flag?'
      raise SweepError(
        f'unknown key {key!r} ({hint}); known: {", ".join(_KEYS)}. Flags '
        'belong into [flags].'
      )
  common = _flags(content.get('flags', {}), '[flags]')
  axes = {
    axis: _axis(axis, values)
    for axis, values in _table(content.get('axes', {}), '[axes]').items()
  }
  variants = dict(_combinations(axes, content.get('exclude', [])))
  listed = _table(content.get('variants', {}), '[variants]')
  for name, given in listed.items():
    if name in variants:
      raise SweepError(f'two variants are named {name!r}.')
    variants[name] = _flags(given, f'variant {name!r}')
  if not variants:
    if axes:
      raise SweepError('exclude leaves no variant.')
    # Nothing but repeats.
    variants[str(common.get('algorithm', 'run'))] = {}
  name = content.get('name', default_name)
  for given in (name, *variants):
    if not isinstance(given, str) or not _NAME.fullmatch(given):
      raise SweepError(
        f'{given!r} names a directory: expected letters, digits and any of '
        '_ . , = + - after the first.'
      )
  sweep = Sweep(
    name,
    common,
    variants,
    _distinct(content.get('seeds', [0]), 'seeds', int, 'integers'),
    _distinct(
      content.get('seed_flags', list(SEED_FLAGS)), 'seed_flags', str, 'flags'
    ),
  )
  _check_distinct(sweep)
  return sweep


def _check_distinct(sweep: Sweep) -> None:
  """Refuses two variants with the same flags, and seeds set twice."""
  seen: dict[tuple[str, ...], str] = {}
  for name, given in sweep.variants.items():
    key = tuple(sorted(arguments(given)))
    if key in seen:
      raise SweepError(
        f'variants {seen[key]!r} and {name!r} have the same flags.'
      )
    seen[key] = name
    for flag in {**sweep.flags, **given}:
      if flag in sweep.seed_flags:
        raise SweepError(
          f'--{flag} is set by seeds: leave it out, or give seed_flags '
          'without it.'
        )


def _axis(axis: str, values: Any) -> dict[str, tuple[Any, dict[str, Any]]]:
  """Returns value and flags by the name that each has in a variant's name."""
  if isinstance(values, dict):
    choices = {
      name: (name, _flags(given, f'axis {axis!r}, {name!r}'))
      for name, given in values.items()
    }
  elif isinstance(values, list):
    choices = {}
    for value in values:
      given = _flags({axis: value}, f'axis {axis!r}')
      # The method is what everybody looks for.
      text = _text(value)
      name = text if axis == 'algorithm' else f'{axis}={text}'
      if name in choices:
        raise SweepError(f'axis {axis!r} has {text} twice.')
      choices[name] = (value, given)
  else:
    raise SweepError(
      f'axis {axis!r}: expected a list of values of the flag --{axis}, or a '
      f'table of named sets of flags, found {values!r}.'
    )
  if not choices:
    raise SweepError(f'axis {axis!r} has no value.')
  return choices


def _combinations(
  axes: Mapping[str, Mapping[str, tuple[Any, dict[str, Any]]]], exclude: Any
) -> Iterator[tuple[str, dict[str, Any]]]:
  if not isinstance(exclude, list) or not all(
    isinstance(pattern, dict) and pattern for pattern in exclude
  ):
    raise SweepError(
      'exclude: expected a list like [{axis = value, …}], found '
      f'{exclude!r}.'
    )
  for pattern in exclude:
    for axis, value in pattern.items():
      if axis not in axes:
        raise SweepError(f'exclude: there is no axis {axis!r}.')
      if value not in [known for known, _ in axes[axis].values()]:
        raise SweepError(f'exclude: axis {axis!r} has no value {value!r}.')
  if not axes:
    return
  for names in itertools.product(*axes.values()):
    chosen = {axis: axes[axis][name] for axis, name in zip(axes, names)}
    if any(
      all(chosen[axis][0] == value for axis, value in pattern.items())
      for pattern in exclude
    ):
      continue
    flags: dict[str, Any] = {}
    for axis, (_, given) in chosen.items():
      for flag, value in given.items():
        if flag in flags:
          raise SweepError(f'two axes set --{flag}; one of them is {axis!r}.')
        flags[flag] = value
    yield ','.join(names), flags


def _flags(given: Any, where: str) -> dict[str, Any]:
  for flag, value in _table(given, where).items():
    if flag in _RESERVED:
      raise SweepError(
        f'{where} sets --{flag}, which the sweep does; `name` names its '
        'directory, --root_output_dir on the command line where that is.'
      )
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(one, bool | int | float | str) for one in values):
      raise SweepError(
        f'{where}: --{flag} is {value!r}, expected a text, a number, true, '
        'false or a list of them.'
      )
  return given


def _table(given: Any, where: str) -> dict[str, Any]:
  if not isinstance(given, dict):
    raise SweepError(f'{where}: expected a table of flags, found {given!r}.')
  return given


def _distinct(given: Any, key: str, kind: type, kinds: str) -> tuple[Any, ...]:
  if (
    not isinstance(given, list)
    or not given
    or not all(type(one) is kind for one in given)
  ):
    raise SweepError(f'{key}: expected a list of {kinds}, found {given!r}.')
  if len(set(given)) < len(given):
    raise SweepError(f'{key}: there is one twice in {given}.')
  return tuple(given)


def _text(value: Any) -> str:
  if isinstance(value, list):
    return ','.join(_text(one) for one in value)
  return str(value).lower() if isinstance(value, bool) else str(value)
