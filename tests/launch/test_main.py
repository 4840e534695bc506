"""`tff-fedsa`: one command for all launchers."""

import os
import pathlib
import subprocess
import sys

import pytest

from launch import __main__ as main
from tff_fedsa.runs import presets

_ROOT = pathlib.Path(__file__).parents[2]


def _end(arguments):
  with pytest.raises(SystemExit) as error:
    main.main(arguments)
  return error.value.code


def test_help_names_every_command_and_what_it_does(capsys):
  assert _end(['--help']) == 0
  output = capsys.readouterr().out
  for command in main.COMMANDS:
    assert f'\n  {command} ' in output
  assert 'Trains FedSA' in output
  assert max(map(len, output.splitlines())) <= 90
  # Nothing asked: the same, as an error.
  assert _end([]) == 2
  assert capsys.readouterr().err == output


def test_every_launcher_is_a_command():
  launchers = {
    path.stem
    for path in (_ROOT / 'launch').glob('*.py')
    if "if __name__ == '__main__'" in path.read_text()
  }
  assert set(main.COMMANDS) == launchers - {'__main__'}


def test_presets_are_listed(capsys):
  assert _end(['presets']) is None
  lines = capsys.readouterr().out.splitlines()
  for name in (*presets.names(), *presets.sweep_names()):
    assert f'  {name}' in lines


def test_a_wrong_command_is_told_the_right_one():
  assert "no command 'tran'; did you mean 'train'?" in _end(['tran'])


def test_from_another_folder(tmp_path):
  """The command finds launchers and presets wherever it is called."""
  program = 'from tff_fedsa import cli; cli.main()'
  process = subprocess.run(
    [sys.executable, '-c', program, 'train', '--flagfile=fedsa', '--help'],
    cwd=tmp_path,
    env={**os.environ, 'PYTHONPATH': str(_ROOT)},
    capture_output=True,
    text=True,
  )
  assert process.returncode == 1
  assert "error: There is no file 'fedsa'" in process.stderr
  assert 'did you mean collaboration/fedsa' in process.stderr
