"""`app.run` for launchers, with a quick `--help`."""

from collections.abc import Callable, Sequence
import os
import signal
import sys
from typing import Any

from absl import app
from absl import flags
from absl import logging

from launch import errors  # noqa: F401, defines --traceback.
from tff_fedsa.execution import imports
from tff_fedsa.runs import presets

# `run` declares the key flags of the program.
flags.disclaim_key_flags()


def run(main: Callable[[Sequence[str]], None]) -> None:
  """Parses flags, imports TensorFlow and calls `main`.

  Ctrl-C ends the program at once with one line, because there is nothing to
  save yet. Later `main` uses `errors.reported`.
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
  # TensorFlow 2.14 stays partly in its TF1 mode if its first import happens
  # after `app.run` has started: its absl callback then runs during the import.
  imports.quickly('tensorflow')
  # Libraries log details of reading files.
  if not flags.FLAGS['verbosity'].present:
    logging.set_verbosity(logging.WARNING)
  return arguments


def _end_at_once(number: int, *unused_frame: Any) -> None:
  os.write(2, b'interrupted\n')
  signal.signal(number, signal.SIG_DFL)
  os.kill(os.getpid(), number)
