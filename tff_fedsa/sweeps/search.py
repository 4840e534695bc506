"""Draws settings for a search: the same number of trials for every variant.

Draws are quasi-random (a scrambled Halton sequence of SciPy): they cover the
ranges more evenly than independent draws, and need no earlier results. So all
trials are known before the first run, and a search resumes like any sweep.
Source: Bousquet et al., "Critical Hyper-Parameters: No Random, No Cry",
arXiv:1706.03200.
"""

from collections.abc import Mapping
import math
from typing import Any

from etils import epy

from tff_fedsa.runs import presets
from tff_fedsa.sweeps import values as values_lib

with epy.lazy_imports():
  from scipy.stats import qmc

_KEYS = ('min', 'max', 'log')
# Digits of a drawn number, in names of flags and tables.
_DIGITS = 3


def trials(
  variants: Mapping[str, Mapping[str, Any]],
  space: Mapping[str, Any],
  *,
  common: Mapping[str, Any],
  num_trials: Any,
  seed: Any,
) -> tuple[dict[str, dict[str, Any]], tuple[str, ...]]:
  """Returns the trials of each variant, and the flags that are drawn.

  Args:
    variants: Flags of each variant, by its name.
    space: The table [search] by flag: a list of values, or a range {min, max,
      log}; or by method: such a table for variants of this method only.
    common: Flags of every run, which may name the method.
    num_trials: Trials of each variant, >= 1.
    seed: Seed of the draws. All variants have the same draws of common flags.

  Raises:
    SweepError: If the space is malformed, or a variant sets a drawn flag.
  """
  for key, value in (('trials', num_trials), ('search_seed', seed)):
    if type(value) is not int or value < (key == 'trials'):
      raise values_lib.SweepError(
        f'{key}: expected a whole number >= {int(key == "trials")}, found '
        f'{value!r}.'
      )
  of_all = {name: one for name, one in space.items() if not _is_method(one)}
  own = {name: one for name, one in space.items() if _is_method(one)}
  methods = {name: _method(common, given) for name, given in variants.items()}
  for method in own:
    if method not in methods.values():
      raise values_lib.SweepError(
        f'[search.{method}]: no variant sets algorithm = {method!r}; they set '
        f'{", ".join(sorted(set(methods.values())))}.'
      )
  found: dict[str, dict[str, Any]] = {}
  width = len(str(num_trials - 1))
  for name, given in variants.items():
    ranges = {**of_all, **own.get(methods[name], {})}
    for flag in ranges:
      if flag in given:
        raise values_lib.SweepError(
          f'[search] draws --{flag}, which the variant {name!r} sets.'
        )
    if not ranges:
      raise values_lib.SweepError(f'[search] has nothing to draw for {name!r}.')
    points = qmc.Halton(len(ranges), seed=seed).random(num_trials)
    for index, point in enumerate(points):
      drawn = {
        flag: _value(flag, choices, float(share))
        for (flag, choices), share in zip(ranges.items(), point)
      }
      found[f'{name},trial={index:0{width}}'] = {**given, **drawn}
  flags = dict.fromkeys(of_all)
  for table in own.values():
    flags |= dict.fromkeys(table)
  return found, tuple(flags)


def _method(*tables: Mapping[str, Any]) -> str:
  """Returns the method of a variant, also if a flag file names it."""
  arguments = [one for given in tables for one in values_lib.arguments(given)]
  found = [
    value
    for name, _, value in (
      one.lstrip('-').partition('=') for one in presets.expand(arguments)
    )
    if name == 'algorithm'
  ]
  return found[-1] if found else 'fedsa'


def _is_method(choices: Any) -> bool:
  """Returns whether an entry of [search] is a table of ranges of a method."""
  return isinstance(choices, dict) and not set(choices) & set(_KEYS)


def _value(flag: str, choices: Any, share: float) -> Any:
  """Returns the value of a flag at a share in [0, 1) of its range."""
  if isinstance(choices, list) and choices:
    return choices[int(share * len(choices))]
  if not isinstance(choices, dict) or not {'min', 'max'} <= set(choices) <= set(
    _KEYS
  ):
    raise values_lib.SweepError(
      f'[search] {flag}: expected a list of values or {{min = …, max = …}}, '
      f'perhaps with log = true, found {choices!r}.'
    )
  low, high, log = (choices.get(key, False) for key in _KEYS)
  numbers = all(type(bound) in (int, float) for bound in (low, high))
  if not numbers or not low < high or (log and low <= 0):
    raise values_lib.SweepError(
      f'[search] {flag}: expected numbers min < max'
      f'{" and min > 0, for log" if log else ""}, found {choices!r}.'
    )
  whole = type(low) is int and type(high) is int
  if whole:
    # Every whole number from min to max has the same share.
    high += 1
  if log:
    value = math.exp(math.log(low) + share * math.log(high / low))
  else:
    value = low + share * (high - low)
  return int(value) if whole else float(f'{value:.{_DIGITS}g}')
