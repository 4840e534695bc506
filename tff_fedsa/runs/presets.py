"""Presets: files of flags that are found by name."""

from collections.abc import Sequence
import difflib
import os
import re

from tff_fedsa.runs import errors

_ENDING = '.flags'
_SWEEPS = 'sweeps'
_SWEEP_ENDING = '.toml'
_FLAGFILE = re.compile(r'--?flagfile(?:=(.*))?')


class PresetError(errors.UserError):
  """A preset is unknown. The message lists known presets."""


def root() -> str:
  """Returns the folder of all presets.

  In a wheel the folder is part of this package. In a checkout it stands beside
  this package.

  Raises:
    PresetError: If the folder is missing.
  """
  package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
  for parent in (os.path.join(package, 'bundled'), os.path.dirname(package)):
    folder = os.path.join(parent, 'flags')
    if os.path.isdir(os.path.join(folder, _SWEEPS)):
      return folder
  raise PresetError(
    f'The presets are missing: expected a folder flags/ in {package}/bundled '
    f'or beside {package}. Install tff_fedsa again, or use the checkout.'
  )


def names() -> list[str]:
  """Returns all presets, e.g. `fedsa.digits` and `paper/cifar10_htfe8`."""
  return _names(root(), _ENDING)


def sweep_names() -> list[str]:
  """Returns all sweeps, e.g. `digits_dir01`."""
  return _names(os.path.join(root(), _SWEEPS), _SWEEP_ENDING)


def find(name: str) -> str:
  """Returns the path of a file of flags.

  Args:
    name: A path, with or without its ending, or the name of a preset. Paths
      that begin with flags/ work in any folder.

  Raises:
    PresetError: If there is none.
  """
  return _find(name, root, _ENDING, names)


def find_sweep(name: str) -> str:
  """Returns the path of a sweep file. Names work as in `find`."""
  return _find(
    name,
    lambda: os.path.join(root(), _SWEEPS),
    _SWEEP_ENDING,
    sweep_names,
  )


def read(name: str) -> list[str]:
  """Returns the flags of a file, as arguments of a command.

  The flags of a nested `--flagfile` take its place.

  Args:
    name: See `find`.

  Raises:
    PresetError: If a file is missing or includes itself.
  """
  return _read(name, ())


def expand(arguments: Sequence[str]) -> list[str]:
  """Returns arguments of a command with the flags of their `--flagfile`s.

  Raises:
    PresetError: If a file is missing or includes itself.
  """
  return _expand(arguments, ())


def _read(name: str, seen: tuple[str, ...]) -> list[str]:
  path = find(name)
  if path in seen:
    raise PresetError(
      f'{" -> ".join([*seen, path])}: a file of flags includes itself.'
    )
  try:
    with open(path, encoding='utf-8') as file:
      lines = [line.strip() for line in file]
  except (OSError, UnicodeDecodeError) as error:
    raise PresetError(f'Cannot read the flags in {path!r}: {error}.') from error
  flags = [line for line in lines if line and not line.startswith(('#', '//'))]
  return _expand(flags, (*seen, path))


def _expand(arguments: Sequence[str], seen: tuple[str, ...]) -> list[str]:
  result: list[str] = []
  rest = list(arguments)
  while rest:
    argument = rest.pop(0)
    match = _FLAGFILE.fullmatch(argument)
    if argument == '--':
      return [*result, argument, *rest]
    if match is None:
      result.append(argument)
      continue
    name = match[1] if match[1] is not None else rest.pop(0) if rest else ''
    if not name:
      raise PresetError('--flagfile: expected a file or the name of a preset.')
    result += _read(name, seen)
  return result


def _names(folder: str, ending: str) -> list[str]:
  return sorted(
    os.path.relpath(os.path.join(parent, file), folder).removesuffix(ending)
    for parent, _, files in os.walk(folder)
    for file in files
    if file.endswith(ending)
  )


def _find(name, folder_fn, ending, names_fn):
  path = os.path.expanduser(name)
  for candidate in (path, path + ending):
    if os.path.isfile(candidate):
      return candidate
  folder = folder_fn()
  inside = os.path.normpath(name)
  # Names from the root of a checkout.
  for prefix in ('flags' + os.sep, _SWEEPS + os.sep):
    if folder.endswith(_SWEEPS) or prefix.startswith('flags'):
      inside = inside.removeprefix(prefix)
  for candidate in (inside, inside + ending):
    candidate = os.path.join(folder, candidate)
    if os.path.isfile(candidate):
      return candidate
  known = names_fn()
  # Users often forget the ending or the folder.
  wanted = inside.removesuffix(ending)
  by_base = [one for one in known if os.path.basename(one) == wanted]
  close = by_base or difflib.get_close_matches(wanted, known, 3, 0.5)
  hint = (
    f'did you mean {" or ".join(close)}?'
    if close
    else f'there are {", ".join(known)}.'
  )
  raise PresetError(
    f'There is no file {name!r}, and no preset of that name: {hint}'
  )
