"""Content of a sweep file: the variants and seeds of an experiment.

A sweep file is TOML:

  # Flags of every run, as for `tff-fedsa train`.
  [flags]
  flagfile = 'fedsa.digits'
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

  # Settings to draw: each variant becomes `trials` variants, the same number
  # for every method. A list of values, or a range; whole numbers stay whole.
  [search]
  client_learning_rate = {min = 0.005, max = 0.2, log = true}
  standardize_features = [false, true]
  # Only for the variants of this method.
  [search.fedsa]
  lambda_reg = {min = 0.1, max = 10.0, log = true}

and, before the first table, optionally

  # Another file, relative to this one: holds what this one does not say, table
  # entry by table entry.
  base = 'others.toml'
  # Name of the sweep's directory; by default, the name of the file.
  name = 'digits'
  # Each variant runs once with each; by default, [0].
  seeds = [0, 1, 2]
  # Which flags get the seed; this is the default.
  seed_flags = ['model_seed', 'sampling_seed', 'anchor_seed']
  # Combinations of the axes to leave out.
  exclude = [{algorithm = 'fedproto', data = 'iid'}]
  # With [search]: draws for each variant, and their seed (default: 0).
  trials = 10
  search_seed = 0
"""

from collections.abc import Mapping, Sequence
import difflib
import fnmatch
import os
import re
import tomllib
from typing import Any, NamedTuple

from tff_fedsa.sweeps import axes as axes_lib
from tff_fedsa.sweeps import search as search_lib
from tff_fedsa.sweeps import values as values_lib

# Repeats must not change the data, so `partition_seed` is not in the list.
SEED_FLAGS = ('model_seed', 'sampling_seed', 'anchor_seed')

_TABLES = ('flags', 'axes', 'variants', 'search')
_KEYS = (
  'base',
  'name',
  'seeds',
  'seed_flags',
  'exclude',
  'trials',
  'search_seed',
  *_TABLES,
)
# Variants that a message lists.
_MOST_NAMES = 12
_NAME = re.compile(r'[A-Za-z0-9][\w.,=+-]*')


class Sweep(NamedTuple):
  """The content of a sweep file.

  Attributes:
    name: Name of the sweep's directory.
    flags: Flags of every run, by name.
    variants: Flags of each variant, by its name.
    seeds: Seeds of the repeats of each variant.
    seed_flags: Flags that get the seed.
    searched: Flags that differ between the trials of a variant.
  """

  name: str
  flags: Mapping[str, Any]
  variants: Mapping[str, Mapping[str, Any]]
  seeds: Sequence[int]
  seed_flags: Sequence[str]
  searched: Sequence[str] = ()


def read(path: str) -> Sweep:
  """Reads a sweep file.

  Raises:
    SweepError: If the file cannot be read, or is malformed.
  """
  content = _load(path, ())
  try:
    return _parse(content, os.path.splitext(os.path.basename(path))[0])
  except values_lib.SweepError as error:
    raise values_lib.SweepError(f'{path}: {error}') from error


def choose(
  sweep: Sweep, seeds: Sequence[str] = (), only: Sequence[str] = ()
) -> Sweep:
  """Returns a part of a sweep.

  Args:
    sweep: The whole sweep.
    seeds: Integers that replace the seeds of the file. Empty: no change.
    only: Patterns of names of variants to keep, with `*` and `?`. Empty: all.

  Raises:
    SweepError: If a seed is not an integer, or a pattern fits no variant.
  """
  if seeds:
    try:
      sweep = sweep._replace(seeds=tuple(dict.fromkeys(map(int, seeds))))
    except ValueError as error:
      raise values_lib.SweepError(
        f'--seeds: expected integers, found {",".join(seeds)}.'
      ) from error
  for pattern in only:
    if not fnmatch.filter(sweep.variants, pattern):
      names = [*sweep.variants]
      more = len(names) - _MOST_NAMES
      hint = ''
      if any(',' in name for name in names):
        hint = (
          ' Commas separate patterns: put ? for the commas of a name, e.g. '
          f'--only={names[0].replace(",", "?")}.'
        )
      raise values_lib.SweepError(
        f'--only: there is no variant {pattern!r}; there are '
        f'{"; ".join(names[:_MOST_NAMES])}'
        f'{f"; and {more} more" if more > 0 else ""}.{hint}'
      )
  if not only:
    return sweep
  variants = {
    name: own
    for name, own in sweep.variants.items()
    if any(fnmatch.fnmatch(name, pattern) for pattern in only)
  }
  return sweep._replace(variants=variants)


def _load(path: str, seen: Sequence[str]) -> dict[str, Any]:
  """Returns the content of a file, merged with its base."""
  if path in seen:
    raise values_lib.SweepError(
      f'{" -> ".join([*seen, path])}: a file is its own base.'
    )
  try:
    with open(path, 'rb') as file:
      content = tomllib.load(file)
  except OSError as error:
    of = f', the base of {seen[-1]}' if seen else ''
    raise values_lib.SweepError(
      f'Cannot read the sweep file{of}: {error}.'
    ) from error
  except tomllib.TOMLDecodeError as error:
    raise values_lib.SweepError(f'{path}: not valid TOML: {error}.') from error
  if 'base' not in content:
    return content
  if not isinstance(content['base'], str):
    raise values_lib.SweepError(
      f'{path}: base: expected the name of a file, found {content["base"]!r}.'
    )
  base = _load(
    os.path.normpath(os.path.join(os.path.dirname(path), content['base'])),
    [*seen, path],
  )
  # Paths are relative to each file's own directory.
  base.pop('name', None)
  for table in _TABLES:
    if table in base and table in content:
      content[table] = {
        **values_lib.table(base[table], f'[{table}]'),
        **values_lib.table(content[table], f'[{table}]'),
      }
  return {**base, **content}


def _parse(content: Mapping[str, Any], default_name: str) -> Sweep:
  for key in content:
    if key not in _KEYS:
      close = difflib.get_close_matches(key, _KEYS, 1)
      hint = f'did you mean {close[0]!r}?' if close else 'is it a flag?'
      raise values_lib.SweepError(
        f'unknown key {key!r} ({hint}); known: {", ".join(_KEYS)}. Flags '
        'belong into [flags].'
      )
  common = values_lib.flags_of(content.get('flags', {}), '[flags]')
  axes = values_lib.table(content.get('axes', {}), '[axes]')
  variants = dict(axes_lib.combinations(axes, content.get('exclude', [])))
  listed = values_lib.table(content.get('variants', {}), '[variants]')
  for name, given in listed.items():
    if name in variants:
      raise values_lib.SweepError(f'two variants are named {name!r}.')
    variants[name] = values_lib.flags_of(given, f'variant {name!r}')
  if not variants:
    if axes:
      raise values_lib.SweepError('exclude leaves no variant.')
    # Only repeats.
    variants[str(common.get('algorithm', 'run'))] = {}
  searched: Sequence[str] = ()
  if space := values_lib.table(content.get('search', {}), '[search]'):
    if 'trials' not in content:
      raise values_lib.SweepError(
        '[search] needs the number of trials of each variant: trials = 10.'
      )
    variants, searched = search_lib.trials(
      variants,
      space,
      common=common,
      num_trials=content['trials'],
      seed=content.get('search_seed', 0),
    )
  elif 'trials' in content:
    raise values_lib.SweepError('trials: there is no table [search].')
  name = content.get('name', default_name)
  for given in (name, *variants):
    if not isinstance(given, str) or not _NAME.fullmatch(given):
      raise values_lib.SweepError(
        f'{given!r} names a directory: expected letters, digits and any of '
        '_ . , = + - after the first.'
      )
  sweep = Sweep(
    name,
    common,
    variants,
    values_lib.distinct(content.get('seeds', [0]), 'seeds', int, 'integers'),
    values_lib.distinct(
      content.get('seed_flags', list(SEED_FLAGS)), 'seed_flags', str, 'flags'
    ),
    searched,
  )
  _check_distinct(sweep)
  return sweep


def _check_distinct(sweep: Sweep) -> None:
  """Refuses two variants with the same flags, and seeds set twice."""
  seen: dict[tuple[str, ...], str] = {}
  for name, given in sweep.variants.items():
    key = tuple(sorted(values_lib.arguments(given)))
    if key in seen:
      raise values_lib.SweepError(
        f'variants {seen[key]!r} and {name!r} have the same flags.'
      )
    seen[key] = name
    for flag in {**sweep.flags, **given}:
      if flag in sweep.seed_flags:
        raise values_lib.SweepError(
          f'--{flag} is set by seeds: leave it out, or give seed_flags '
          'without it.'
        )
