"""Checks the values of a sweep file, and turns them into flags."""

from collections.abc import Mapping
from typing import Any

from tff_fedsa.runs import errors

# Set by the sweep itself.
_RESERVED = ('experiment_name', 'root_output_dir')


class SweepError(errors.UserError):
  """A sweep cannot run. The message gives reason and remedy."""


def table(given: Any, where: str) -> dict[str, Any]:
  """Returns a table. Arguments and errors are those of `flags_of`."""
  if not isinstance(given, dict):
    raise SweepError(f'{where}: expected a table of flags, found {given!r}.')
  return given


def flags_of(given: Any, where: str) -> dict[str, Any]:
  """Returns a table of flags.

  Args:
    given: Value from a sweep file.
    where: Place of the value, for messages.

  Raises:
    SweepError: If the value is not a table, a value is not one of a flag, or
      the table sets a flag that the sweep sets.
  """
  for flag, value in table(given, where).items():
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


def distinct(given: Any, key: str, kind: type, kinds: str) -> tuple[Any, ...]:
  """Returns the values of a list without repeats.

  Args:
    given: Value from a sweep file.
    key: Its key, for messages.
    kind: Type of each value.
    kinds: Name of the values, for messages.

  Raises:
    SweepError: If the value is not such a list.
  """
  if (
    not isinstance(given, list)
    or not given
    or not all(type(one) is kind for one in given)
  ):
    raise SweepError(f'{key}: expected a list of {kinds}, found {given!r}.')
  if len(set(given)) < len(given):
    raise SweepError(f'{key}: a value is given twice in {given}.')
  return tuple(given)


def text(value: Any) -> str:
  """Returns a flag's value in the form of a command line."""
  if isinstance(value, list):
    return ','.join(text(one) for one in value)
  return str(value).lower() if isinstance(value, bool) else str(value)


def arguments(flags: Mapping[str, Any]) -> list[str]:
  """Returns flags as they are written on a command line.

  Args:
    flags: Values by name; flag files come first, so that others overrule them.
  """
  names = sorted(flags, key=lambda name: name != 'flagfile')
  return [
    f'--{name}={text(value)}'
    for name in names
    for value in (
      flags[name]
      if name == 'flagfile' and isinstance(flags[name], list)
      else [flags[name]]
    )
  ]
