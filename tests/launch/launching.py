"""Calls launchers as a user does, and reads what they leave."""

import os
import pathlib
import subprocess
import sys

from tff_fedsa.runs import metrics
from tff_fedsa.runs import recorders

_ROOT = pathlib.Path(__file__).parents[2]


def start(module, *arguments, **options):
  """Starts `python -m launch.<module>`; `options` are those of `Popen`."""
  return subprocess.Popen(
    [sys.executable, '-m', f'launch.{module}', *arguments],
    cwd=_ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    env={**os.environ, 'TF_CPP_MIN_LOG_LEVEL': '3'},
    **options,
  )


def launch(module, *arguments, status=0):
  """Returns what it prints, once it has ended as expected."""
  process = start(module, *arguments)
  try:
    output, _ = process.communicate(timeout=600)
  except subprocess.TimeoutExpired:
    process.kill()
    raise
  assert process.returncode == status, output
  return output


def rows(path):
  """Returns rows of metrics.csv without what differs between equal runs."""
  return [
    {k: v for k, v in row.items() if k not in metrics.VOLATILE_COLUMNS}
    for row in recorders.read_csv(str(path))
  ]
