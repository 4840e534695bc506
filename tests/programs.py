"""Imports programs for their functions, without their flags.

Flags are one set for the whole process: those of a program would be in the way
of the next one's.
"""

import importlib
import types

from absl import app  # noqa: F401, its flags stay for all programs.
from absl import flags
from absl import logging  # noqa: F401, as do these,

from launch import errors  # noqa: F401, and this one.


def load(name: str) -> types.ModuleType:
  """Imports a program and takes the flags away that it defines."""
  before = set(flags.FLAGS)
  module = importlib.import_module(name)
  for flag in set(flags.FLAGS) - before:
    delattr(flags.FLAGS, flag)
  return module
