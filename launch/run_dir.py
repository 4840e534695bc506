"""The directory of one run: opened new, or resumed with the same flags."""

from collections.abc import Mapping
import csv
import io
import os
from typing import Any

from absl import flags

from flags import run_flags
from tff_fedsa import files

_FLAGS_FILE = 'flags.txt'
_LAYOUT = 'directory_layout'


class RunDirError(Exception):
  """The run directory can't be used; the message says why and what to do."""


class RunDir:
  """Paths of the parts of a run.

  Attributes:
    path: The run's directory; with the layout `by_kind`, that of its results.
  """

  def __init__(self, path: str, layout: str = 'run'):
    """Initializes `RunDir`.

    Args:
      path: See above.
      layout: One of `run_flags.DIRECTORY_LAYOUTS`.
    """
    self.path = path
    self.flags_file = os.path.join(path, _FLAGS_FILE)
    self.hparams_csv = os.path.join(path, 'hparams.csv')
    self.metrics_csv = os.path.join(path, 'metrics.csv')
    self.per_client_csv = os.path.join(path, 'per_client.csv')
    self.per_test_set_csv = os.path.join(path, 'per_test_set.csv')
    self.partition_npz = os.path.join(path, 'partition.npz')
    self.anchors_npy = os.path.join(path, 'initial_anchors.npy')
    self.summary_json = os.path.join(path, 'summary.json')
    self.figures = os.path.join(path, 'figures')
    if layout == 'by_kind':
      results, name = os.path.split(os.path.abspath(path))
      root = os.path.dirname(results)
      self.checkpoints = os.path.join(root, 'checkpoints', name)
      self.client_states = os.path.join(root, 'client_states', name)
      self.tensorboard = os.path.join(root, 'logdir', name)
    else:
      self.checkpoints = os.path.join(path, 'checkpoints')
      self.client_states = os.path.join(path, 'client_states')
      self.tensorboard = os.path.join(path, 'tensorboard')


def open_or_resume(path: str, values: Mapping[str, Any]) -> RunDir:
  """Opens the directory of a run and records its flags.

  Args:
    path: Created if missing.
    values: Flags by name. If the directory holds a run already, they must be
      the ones it was started with, apart from those that do not change its
      rounds (`run_flags.FREE_WHEN_RESUMING`).

  Raises:
    RunDirError: If the directory can't be written, or holds a run with other
      flags; they are named.
  """
  run = RunDir(path, values[_LAYOUT])
  try:
    for directory in (path, run.figures):
      os.makedirs(directory, exist_ok=True)
    if os.path.exists(run.flags_file):
      different = differing(read_flags(run.flags_file), values)
      if different:
        raise RunDirError(
          f'{path!r} holds a run with other flags:\n  '
          + '\n  '.join(different)
          + '\nGive the same flags to resume it, or another --experiment_name '
          'to start a new run.'
        )
    _write_flags(run.flags_file, values)
    _write_hparams(run.hparams_csv, values)
  except OSError as error:
    raise RunDirError(
      f'Cannot write to {path!r}: {error}. Choose another --root_output_dir.'
    ) from error
  return run


def open_existing(path: str) -> RunDir:
  """Opens the directory of a run that `launch.train` has made.

  Raises:
    RunDirError: If there is none.
  """
  run = RunDir(path)
  if not os.path.exists(run.flags_file):
    raise RunDirError(
      f'There is no run at {path!r}: {_FLAGS_FILE} is missing. Give the '
      'directory that launch.train printed as --run_dir.'
    )
  return RunDir(path, read_flags(run.flags_file).get(_LAYOUT, 'run'))


def read_flags(path: str) -> dict[str, str]:
  """Reads a file of lines `--name=value`."""
  with open(path, encoding='utf-8') as file:
    lines = [line.strip() for line in file]
  pairs = (line[2:].partition('=') for line in lines if line.startswith('--'))
  return {name: value for name, _, value in pairs}


def differing(
  recorded: Mapping[str, str], values: Mapping[str, Any]
) -> list[str]:
  """Returns what is different between flags, each said in a line.

  Args:
    recorded: Of `read_flags`.
    values: Flags by name. Those that do not change rounds
      (`run_flags.FREE_WHEN_RESUMING`) may be different. A flag that is not
      recorded may have its default: the run is older than the flag.
  """
  lines = []
  for name, value in values.items():
    if name in run_flags.FREE_WHEN_RESUMING:
      continue
    now = None if value is None else text(value)
    before = recorded.get(name)
    known = before is not None or name not in flags.FLAGS
    if now != before and (known or value != flags.FLAGS[name].default):
      lines.append(f'--{name}: {before} there, {now} now')
  return lines


def _write_flags(path: str, values: Mapping[str, Any]) -> None:
  lines = [f'--{name}={text(v)}' for name, v in values.items() if v is not None]
  header = '# Repeat this run: python -m launch.train --flagfile=<this file>'
  files.write_bytes(path, '\n'.join([header, *lines, '']).encode())


def _write_hparams(path: str, values: Mapping[str, Any]) -> None:
  """Writes flags as a table that `pandas.read_csv(path, index_col=0)` reads.

  This is google-research/federated's format, a series with its index.
  """
  table = io.StringIO(newline='')
  writer = csv.writer(table, lineterminator='\n')
  writer.writerow(['', '0'])
  writer.writerows((n, text(v)) for n, v in values.items() if v is not None)
  files.write_bytes(path, table.getvalue().encode())


def text(value: Any) -> str:
  """Returns the value of a flag as run directories have it."""
  if isinstance(value, list):
    return ','.join(value)
  return str(value).lower() if isinstance(value, bool) else str(value)
