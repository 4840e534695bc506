"""Writes docs/flags.md from the launchers' flags.

python -m tools.flags_reference           says whether it is out of date
python -m tools.flags_reference --write   writes it
"""

from collections.abc import Iterator
import importlib
import itertools
import pathlib
import re
import sys
from typing import Any

from absl import flags

from flags import generator
from tff_fedsa import experiment

_PATH = pathlib.Path(__file__).resolve().parents[1] / 'docs' / 'flags.md'
_OTHERS = (
  'evaluate',
  'export',
  'sweep',
  'report',
  'devices',
  'worker',
  'certificates',
)
_HEAD = """\
# Flags

`make flags-reference` writes this page from the flags.
`tff-fedsa train --help` shows the same. Pass flags on the command line
or in files (`--flagfile=fedsa.digits`). The last value of a flag counts.
`--name` and `--noname` set a boolean. A flag without effect is refused.
In every launcher `--traceback` shows the stack trace of every error, also of
the errors that are otherwise reported in one line.
"""
_FREE = (
  'A run that is resumed may have other values of these flags; other values of '
  'all others are refused\n([another run can begin with its models]'
  '(comparing.md#starting-from-another-run)):\n'
)


def render() -> str:
  """Returns the text of docs/flags.md."""
  train = importlib.import_module('launch.train')
  groups: dict[str, list[str]] = {}
  for title, name in _holders(train._EXPERIMENT):
    groups.setdefault(title, []).append(name)
  free = ', '.join(f'`--{n}`' for n in experiment.Experiment.free_flags())
  parts = [_HEAD, f'{_FREE}{free}.\n', '## tff-fedsa train\n']
  for title, names in groups.items():
    parts.append(f'### {title}\n\n{_table(names)}')
  # The other launchers have flags of the same names.
  shown = {}
  for name in itertools.chain.from_iterable(groups.values()):
    if name in flags.FLAGS:
      shown[name] = flags.FLAGS[name].help
      delattr(flags.FLAGS, name)
  for launcher in _OTHERS:
    before = set(flags.FLAGS)
    importlib.import_module(f'launch.{launcher}')
    names = [name for name in flags.FLAGS if name not in before]
    # `tff-fedsa sweep` takes the flags of `tff-fedsa train`, too.
    own = [name for name in names if shown.get(name) != flags.FLAGS[name].help]
    parts.append(f'## tff-fedsa {launcher}\n\n{_table(sorted(own))}')
    for name in names:
      delattr(flags.FLAGS, name)
  return '\n'.join(parts)


def _holders(group: Any) -> Iterator[tuple[str, str]]:
  """Yields title and name of each flag in an object of a group of flags."""
  described = group
  if isinstance(group, generator.SettingsFlags):
    described = group.cls
  title = (described.__doc__ or '').splitlines()[0].split(': `')[0].rstrip('.')
  for value in vars(group).values():
    for part in value.values() if isinstance(value, dict) else [value]:
      if isinstance(part, flags.FlagHolder):
        yield title, part.name
      elif type(part).__module__.startswith('flags.'):
        yield from _holders(part)


def _table(names: list[str]) -> str:
  rows = [_row(flags.FLAGS[name]) for name in dict.fromkeys(names)]
  head = '| flag | default | meaning |\n|---|---|---|\n'
  return head + '\n'.join(rows) + '\n'


def _row(flag: flags.Flag) -> str:
  default = flag.default
  if default is None or default == []:
    shown = ''
  elif isinstance(default, list):
    shown = f'`{",".join(map(str, default))}`'
  else:
    shown = f'`{str(default).lower() if default in (True, False) else default}`'
  text = re.sub(r'\s+', ' ', flag.help).strip().replace('|', r'\|')
  return f'| `--{flag.name}` | {shown} | {text} |'


def main() -> None:
  """Compares or writes."""
  text = render()
  if '--write' in sys.argv[1:]:
    _PATH.write_text(text)
  elif _PATH.read_text() != text:
    sys.exit('docs/flags.md is out of date: make flags-reference')


if __name__ == '__main__':
  main()
