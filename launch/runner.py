"""`app.run` for launchers: quick `--help`, TensorFlow imported in time."""

from collections.abc import Callable, Sequence
import os
import signal
import sys
from typing import Any

from absl import app
from absl import flags
from absl import logging

from launch import errors  # noqa: F401, defines --traceback.
from tff_fedsa.runs import presets

# What `run` declares is a flag of the program.
flags.disclaim_key_flags()


def run(main: Callable[[Sequence[str]], None]) -> None:
  """Parses flags, imports TensorFlow and calls `main`.

  Ctrl-C ends the program with a line, at once. There is nothing to save yet;
  `main` has `errors.reported` for what comes.
  """
  if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _end_at_once)
  flags.declare_key_flag('traceback')
  app.run(main, flags_parser=_parse_and_import)


def _parse_and_import(argv: Sequence[str]) -> list[str]:
  # Parsing ends the program for --help, before the slow import.
  try:
    given = presets.expand(argv)
  except presets.PresetError as error:
    sys.exit(f'error: {error}')
  arguments = app.parse_flags_with_usage(given)
  flags.FLAGS.mark_as_parsed()
  # TensorFlow 2.14 is half in its TF1 mode if it is imported for the first
  # time after `app.run` has started: a callback that it registers with absl
  # then runs in the middle of its import.
  import tensorflow  # noqa: F401

  # Libraries tell in detail how they read files.
  if not flags.FLAGS['verbosity'].present:
    logging.set_verbosity(logging.WARNING)
  return arguments


def _end_at_once(number: int, *unused_frame: Any) -> None:
  os.write(2, b'interrupted\n')
  signal.signal(number, signal.SIG_DFL)
  os.kill(os.getpid(), number)
