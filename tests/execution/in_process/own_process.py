"""Programs in a process of their own, since they may crash."""

import os
import subprocess
import sys
import textwrap


def assert_prints(program: str, expected: str) -> None:
  """Runs a Python program, indented as it may be, that prints a line."""
  ended = subprocess.run(
    [sys.executable, '-c', textwrap.dedent(program)],
    capture_output=True,
    text=True,
    env={
      **os.environ,
      'PYTHONPATH': os.getcwd(),
      'TF_CPP_MIN_LOG_LEVEL': '3',
    },
    timeout=300,
  )
  assert ended.stdout.strip() == expected, ended.stderr[-2000:]
