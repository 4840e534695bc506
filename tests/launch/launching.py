"""Calls launchers as a user does, and reads what they leave.

`launch` calls a launcher within this process, which has TensorFlow already.
Launches with equal settings share the computations that these describe: they
are built and compiled once.
`start` starts a process: for tests of signals, of crashes and of imports.
"""

import contextlib
import importlib
import io
import os
import pathlib
import shlex
import signal
import subprocess
import sys

from absl import flags
from absl import logging
import pytest
import tensorflow_federated as tff

import launch as launch_package
from launch import runner
from tests import rows as rows_lib
from tests import sharing
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


def launch_process(module, *arguments, status=0):
  """Returns what a process prints, once it has ended as expected."""
  process = start(module, *arguments)
  try:
    output, _ = process.communicate(timeout=600)
  except subprocess.TimeoutExpired:
    process.kill()
    raise
  assert process.returncode == status, output
  return output


def launch(module, *arguments, status=0):
  """Returns what a launcher prints, once it has ended as expected."""
  output = io.StringIO()
  own_code = any('architecture_modules' in argument for argument in arguments)
  with (
    contextlib.nullcontext() if own_code else _shared_computations(),
    _own_program(f'launch.{module}') as program,
    _arguments(program.__file__, *arguments),
    contextlib.redirect_stdout(output),
    contextlib.redirect_stderr(output),
  ):
    code = 0
    try:
      runner.run(program.main)
    except SystemExit as ended:
      code = ended.code or 0
      if isinstance(code, str):  # Python prints it, and ends with 1.
        print(code)
        code = 1
  assert code == status, output.getvalue()
  return output.getvalue()


def train_runs(*arguments):
  """Trains the runs of a sweep within this process, one after the other."""
  commands = launch('sweep', *arguments, '--dry_run').splitlines()
  assert commands
  for command in commands:
    program, name, *options = shlex.split(command)
    assert (program, name) == ('tff-fedsa', 'train')
    launch('train', *options)


def rows(path):
  """Returns rows of metrics.csv without what differs between equal runs."""
  return rows_lib.stable(recorders.read_csv(str(path)))


# Programs that take other programs' flags.
_PARTS = {'launch.tune': ('launch.report', 'launch.sweep')}


@contextlib.contextmanager
def _own_program(name):
  """Imports a program anew, with flags, runtime and signals of its own."""
  contexts = tff.framework.get_context_stack()
  context, verbosity = contexts.current, logging.get_verbosity()
  numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
  handlers = {number: signal.getsignal(number) for number in numbers}
  others = set(flags.FLAGS)
  anew = (name, *_PARTS.get(name, ()))
  imported = {each: sys.modules.pop(each, None) for each in anew}
  for each in anew:
    # `from launch import ...` looks here first.
    vars(launch_package).pop(each.partition('.')[2], None)
  folder = os.getcwd()
  os.chdir(_ROOT)
  try:
    yield importlib.import_module(name)
  finally:
    os.chdir(folder)
    for each, module in imported.items():
      if module is not None:
        sys.modules[each] = module
        setattr(launch_package, each.partition('.')[2], module)
    flags.FLAGS.unparse_flags()
    for flag in set(flags.FLAGS) - others:
      delattr(flags.FLAGS, flag)
    for flag in others & set(flags.FLAGS):
      flags.FLAGS[flag].unparse()
    for number, handler in handlers.items():
      signal.signal(number, handler)
    logging.set_verbosity(verbosity)
    contexts.set_default_context(context)


@contextlib.contextmanager
def _shared_computations():
  with pytest.MonkeyPatch.context() as patch:
    sharing.share_computations(patch)
    sharing.share_contexts(patch)
    yield


@contextlib.contextmanager
def _arguments(*arguments):
  before, sys.argv = sys.argv, list(arguments)
  try:
    yield
  finally:
    sys.argv = before
