"""Programs in a process of their own.

They may crash, or their memory is measured without that of other tests.
"""

import os
import subprocess
import sys
import textwrap

_START = """
from tff_fedsa.execution import imports
imports.quickly('tensorflow_federated')
"""


def printed(program: str) -> str:
  """Returns what a Python program of TFF prints; it may be indented."""
  ended = subprocess.run(
    [sys.executable, '-c', _START + textwrap.dedent(program)],
    capture_output=True,
    text=True,
    env={
      **os.environ,
      'PYTHONPATH': os.getcwd(),
      'TF_CPP_MIN_LOG_LEVEL': '3',
    },
    timeout=300,
  )
  assert ended.returncode == 0, ended.stderr[-2000:]
  return ended.stdout.strip()


def assert_prints(program: str, expected: str) -> None:
  """Asserts that a Python program prints a line."""
  assert printed(program) == expected
