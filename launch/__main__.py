"""The command `tff-fedsa`, or `python -m launch`: runs launchers by name."""

import ast
from collections.abc import Sequence
import difflib
from importlib import metadata
import os
import runpy
import sys

from tff_fedsa.runs import presets

COMMANDS = (
  'demo',
  'train',
  'evaluate',
  'export',
  'sweep',
  'tune',
  'report',
  'partition',
  'devices',
  'worker',
  'certificates',
)

_USAGE = """\
FedSA, and a dozen methods of federated learning to compare it with.

usage: tff-fedsa COMMAND [--flag=value …]
       tff-fedsa COMMAND --help      description and own flags of a command
       tff-fedsa COMMAND --helpfull  all flags
       tff-fedsa presets             names for --flagfile and --sweep
       tff-fedsa --version

commands:
{commands}

What clients gain from each other, in a minute on two cores:
  tff-fedsa demo
A first run:
  tff-fedsa train --flagfile=fedsa.digits
  tff-fedsa evaluate --run_dir=runs/fedsa.digits
Another method on the same clients:
  tff-fedsa train --flagfile=fedsa.digits --algorithm=fedproto \\
    --experiment_name=fedproto.digits
Your own images, my_images/<class>/<image>.png:
  tff-fedsa train --dataset=image_folder --data_dir=my_images \\
    --num_clients=6 --alpha=0.5
"""


def main(arguments: Sequence[str]) -> None:
  """Runs a launcher.

  Args:
    arguments: The command and its arguments.
  """
  command, *rest = arguments or ['']
  if command in ('', 'help', '-h', '--help', '--helpshort', '--helpfull'):
    print(_usage(), end='', file=sys.stdout if command else sys.stderr)
    sys.exit(0 if command else 2)
  if command == '--version':
    print(f'tff-fedsa {metadata.version("tff_fedsa")}')
    sys.exit()
  if command == 'presets':
    print('for --flagfile:', *presets.names(), sep='\n  ')
    print('for --sweep:', *presets.sweep_names(), sep='\n  ')
    sys.exit()
  if command not in COMMANDS:
    known = (*COMMANDS, 'presets')
    close = difflib.get_close_matches(command, known, 1)
    hint = f'did you mean {close[0]!r}? ' if close else ''
    sys.exit(
      f'error: there is no command {command!r}; {hint}commands: '
      f'{", ".join(known)}.'
    )
  sys.argv = [f'tff-fedsa {command}', *rest]
  runpy.run_module(f'launch.{command}', run_name='__main__', alter_sys=True)


def _usage() -> str:
  folder = os.path.dirname(os.path.abspath(__file__))
  width = max(map(len, COMMANDS))
  lines = []
  for command in COMMANDS:
    # Read the docstring from the file: importing the module would define flags.
    path = os.path.join(folder, f'{command}.py')
    with open(path, encoding='utf-8') as file:
      docstring = ast.get_docstring(ast.parse(file.read())) or ''
    lines.append(f'  {command:<{width}}  {docstring.splitlines()[0]}')
  return _USAGE.format(commands='\n'.join(lines))


if __name__ == '__main__':
  try:
    main(sys.argv[1:])
  except BrokenPipeError:
    # The reader of the output has gone, e.g. `head`. Python would complain once
    # more when it ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(1)
