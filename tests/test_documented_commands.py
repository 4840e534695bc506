"""Commands of the documents: their flags exist, with values that they take.

What the commands do is tested where their programs are (tests/launch,
tests/benchmarks); Makefile targets are what CI runs.
"""

import json
import pathlib
import re
import subprocess
import sys
import textwrap

import pytest

_ROOT = pathlib.Path(__file__).parents[1]

# Parses each command as its program would, without running it. Each program is
# imported by a child of this one, because flags are one set for a process.
_PARSE = textwrap.dedent("""
  import importlib, json, os, sys, traceback
  from absl import flags
  from launch import runner  # And all that programs have in common.
  from tff_fedsa import experiment
  from tff_fedsa.runs import presets

  def parse(module, commands):
    importlib.import_module(module)
    for arguments in commands:
      flags.FLAGS.unparse_flags()
      for name in flags.FLAGS:
        flags.FLAGS[name].unparse()
      rest = flags.FLAGS([module, *presets.expand(arguments)])
      # These programs take directories, too.
      takes = module in (
        'launch.report', 'benchmarks.privacy_curves', 'benchmarks.compression')
      directories = rest[1:] if takes else []
      assert rest[1:] == directories, (arguments, rest)

  found = {}
  for module, commands in json.load(sys.stdin).items():
    read, write = os.pipe()
    if not os.fork():
      said = ''
      try:
        parse(module, commands)
      except BaseException:
        said = traceback.format_exc()
      os.write(write, f'parsed {module}: {said[-1500:]}'.encode())
      os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
      found[module] = pipe.read()
    os.wait()
  print(json.dumps(found))
""")


def _commands():
  """Returns arguments of documented commands, by module."""
  found = {}
  for path in [_ROOT / 'README.md', *sorted((_ROOT / 'docs').glob('*.md'))]:
    text = path.read_text().replace('\\\n', ' ')
    text = re.sub(r'tff-fedsa (?!presets)(\w+)', r'python -m launch.\1', text)
    for module, rest in re.findall(
      r'python -m ((?:launch|benchmarks)\.\w+)((?: +[^\s`|#&;]+)*)', text
    ):
      arguments = [
        argument.replace('$TFDS_DATA_DIR', 'data')
        for argument in rest.split()
        # Placeholders of the text.
        if '…' not in argument and '...' not in argument
      ]
      commands = found.setdefault(module, [])
      if arguments and '--help' not in arguments:
        commands.append(arguments)
  return found


@pytest.fixture(scope='module')
def parsed():
  """What each program says of its commands."""
  program = subprocess.run(
    [sys.executable, '-c', _PARSE],
    input=json.dumps(_commands()),
    cwd=_ROOT,
    capture_output=True,
    text=True,
  )
  assert program.returncode == 0, program.stderr[-1500:]
  return json.loads(program.stdout)


@pytest.mark.parametrize('module', sorted(_commands()))
def test_flags_exist(module, parsed):
  assert parsed[module] == f'parsed {module}: '


def test_most_programs_are_documented():
  documented = _commands()
  for folder in ('launch', 'benchmarks'):
    for path in (_ROOT / folder).glob('*.py'):
      if 'runner.run(main)' in path.read_text():
        assert f'{folder}.{path.stem}' in documented, path


def test_flags_reference_is_up_to_date():
  program = subprocess.run(
    [sys.executable, '-m', 'tools.flags_reference'],
    cwd=_ROOT,
    capture_output=True,
    text=True,
  )
  assert program.returncode == 0, program.stderr


def test_code_map_names_what_exists():
  text = (_ROOT / 'docs/architecture.md').read_text()
  text = text.partition('## From the paper to the code')[2]
  functions = re.findall(r'`((?:\w+\.)+\w+)`', text)
  assert len(functions) >= 15
  for function in functions:
    *module, name = function.split('.')
    path = _ROOT.joinpath('tff_fedsa', *module).with_suffix('.py')
    assert re.search(
      rf'^(?:def|class) {name}\b', path.read_text(), re.MULTILINE
    ), function
  for path in re.findall(r'`(tests/[\w/]+\.py)`', text):
    assert (_ROOT / path).is_file(), path
