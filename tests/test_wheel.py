"""The wheel works outside of the repository: command, presets, Python."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import sysconfig
import venv

import pytest

_ROOT = pathlib.Path(__file__).parents[1]
_SOURCES = ('tff_fedsa', 'launch', 'flags')
_FILES = ('setup.py', 'setup.cfg', 'pyproject.toml', 'README.md', 'LICENSE')


@pytest.fixture(scope='module')
def installed(tmp_path_factory):
  """Folder of the programs of an environment with the wheel.

  Everything else is found where these tests find it.
  """
  if subprocess.run([sys.executable, '-m', 'pip', '--version']).returncode:
    pytest.skip('There is no pip.')
  path = tmp_path_factory.mktemp('wheel')
  source = path / 'source'
  source.mkdir()
  for name in _SOURCES:
    shutil.copytree(
      _ROOT / name,
      source / name,
      ignore=shutil.ignore_patterns('__pycache__'),
    )
  for name in _FILES:
    shutil.copy(_ROOT / name, source)
  pip = [sys.executable, '-m', 'pip', '--quiet']
  options = ['--no-deps', '--no-build-isolation']
  subprocess.run(
    [*pip, 'wheel', *options, str(source), '-w', str(path)], check=True
  )
  venv.create(path / 'venv', with_pip=False)
  (packages,) = (path / 'venv').glob('lib/python*/site-packages')
  (packages / 'locked.pth').write_text(sysconfig.get_path('purelib'))
  (wheel,) = path.glob('*.whl')
  python = str(path / 'venv' / 'bin' / 'python')
  subprocess.run(
    [*pip, '--python', python, 'install', *options, '--no-index', str(wheel)],
    check=True,
  )
  return path / 'venv' / 'bin'


def _run(program, *arguments, cwd):
  environment = {
    name: value
    for name, value in os.environ.items()
    if name not in ('PYTHONPATH', 'VIRTUAL_ENV')
  }
  process = subprocess.run(
    [str(program), *arguments],
    cwd=cwd,
    env={**environment, 'TF_CPP_MIN_LOG_LEVEL': '3'},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )
  assert process.returncode == 0, process.stdout
  return process.stdout


@pytest.mark.slow
def test_the_readme_in_an_empty_folder(installed, tmp_path):
  text = (_ROOT / 'README.md').read_text()
  (example,) = re.findall(r'```python\n(.*?)```', text, re.DOTALL)
  program = (
    f'{example}\n'
    'from importlib import resources\n'
    "print(resources.files('tff_fedsa'))\n"
    "assert result.summary['prototype']['last'] >= 0.9\n"
  )
  output = _run(installed / 'python', '-c', program, cwd=tmp_path)
  assert str(installed.parent) in output.splitlines()[-1]
  assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_commands_in_an_empty_folder(installed, tmp_path):
  command = installed / 'tff-fedsa'
  assert 'train' in _run(command, '--help', cwd=tmp_path)
  assert 'paper/cifar10_htfe8' in _run(command, 'presets', cwd=tmp_path)
  small = ('--flagfile=fedsa.digits', '--total_rounds=1', '--num_clients=3')
  small += ('--max_examples=200', '--family=digits_mlp', '--noprogress')
  output = _run(command, 'train', *small, cwd=tmp_path)
  assert 'accuracy after 1 rounds' in output
  run = tmp_path / 'runs' / 'fedsa.digits'
  output = _run(command, 'evaluate', f'--run_dir={run}', cwd=tmp_path)
  assert 'round 1' in output
  # Runs of a sweep are programs of their own.
  sweep = tmp_path / 'try.toml'
  sweep.write_text(
    "[flags]\nflagfile = 'fedsa.digits'\ntotal_rounds = 1\nnum_clients = 3\n"
    "max_examples = 200\nfamily = 'digits_mlp'\n[variants]\nbase = {}\n"
  )
  output = _run(command, 'sweep', f'--sweep={sweep}', cwd=tmp_path)
  assert re.search(r'base +1 +0  prototype 0\.', output), output
