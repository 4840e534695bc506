"""Axes of a sweep, and the combinations of their values."""

from collections.abc import Iterator, Mapping
import itertools
from typing import Any

from tff_fedsa.sweeps import values as values_lib


def _choices(axis: str, values: Any) -> dict[str, tuple[Any, dict[str, Any]]]:
  """Returns value and flags by their part of the variant's name."""
  if isinstance(values, dict):
    choices = {
      name: (name, values_lib.flags_of(given, f'axis {axis!r}, {name!r}'))
      for name, given in values.items()
    }
  elif isinstance(values, list):
    choices = {}
    for value in values:
      given = values_lib.flags_of({axis: value}, f'axis {axis!r}')
      # The method comes first, because readers look for it.
      text = values_lib.text(value)
      name = text if axis == 'algorithm' else f'{axis}={text}'
      if name in choices:
        raise values_lib.SweepError(f'axis {axis!r} has {text} twice.')
      choices[name] = (value, given)
  else:
    raise values_lib.SweepError(
      f'axis {axis!r}: expected a list of values of the flag --{axis}, or a '
      f'table of named sets of flags, found {values!r}.'
    )
  if not choices:
    raise values_lib.SweepError(f'axis {axis!r} has no value.')
  return choices


def combinations(
  axes: Mapping[str, Any], exclude: Any
) -> Iterator[tuple[str, dict[str, Any]]]:
  """Yields name and flags of each combination.

  Args:
    axes: Values of the table [axes] by name of the axis.
    exclude: Combinations to leave out.

  Raises:
    SweepError: If an axis is malformed (see `sweep_file`), two axes set the
      same flag, or an excluded combination does not exist.
  """
  axes = {axis: _choices(axis, values) for axis, values in axes.items()}
  if not isinstance(exclude, list) or not all(
    isinstance(pattern, dict) and pattern for pattern in exclude
  ):
    raise values_lib.SweepError(
      'exclude: expected a list like [{axis = value, …}], found '
      f'{exclude!r}.'
    )
  for pattern in exclude:
    for axis, value in pattern.items():
      if axis not in axes:
        raise values_lib.SweepError(f'exclude: there is no axis {axis!r}.')
      if value not in [known for known, _ in axes[axis].values()]:
        raise values_lib.SweepError(
          f'exclude: axis {axis!r} has no value {value!r}.'
        )
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
          raise values_lib.SweepError(
            f'two axes set --{flag}; one of them is {axis!r}.'
          )
        flags[flag] = value
    yield ','.join(names), flags
