"""Runs methods, seeds and settings: every run of a sweep file, resumably.

  python -m launch.sweep --sweep=flags/sweeps/digits_dir01.toml
  python -m launch.report runs/digits_dir01

launch/sweep_file.py describes the format. Each run is a process of its own, as
many at a time as fit, in {root_output_dir}/{sweep}/{variant}/seed_{seed}; its
output goes to train.log there. Flags of launch.train on the command line apply
to every run and overrule [flags] of the file:

  python -m launch.sweep --sweep=… --total_rounds=2 --root_output_dir=try

The same command again skips what is finished, resumes what was interrupted and
tries again what failed. A failed run is shown with the end of its log; the
sweep goes on with the others and ends with status 1.
"""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import fcntl
import fnmatch
import json
import os
import shlex
import signal
import statistics
import sys
import time
from typing import Any, NamedTuple, Optional

from absl import app
from absl import flags
import psutil
import tqdm

from launch import children
from launch import errors
from launch import experiment
from launch import runner
from launch import sweep_file
from tff_fedsa.runs import directory
from tff_fedsa.runs import presets

_SWEEP = flags.DEFINE_string(
  'sweep', None, 'The sweep file (TOML; launch/sweep_file.py describes it).'
)
_SEEDS = flags.DEFINE_list(
  'seeds', None, 'Seeds, separated by commas, instead of those of the file.'
)
_ONLY = flags.DEFINE_list(
  'only',
  None,
  'Variants to run, separated by commas; * and ? stand for any letters. '
  'Default: all.',
)
_MAX_PARALLEL = flags.DEFINE_integer(
  'max_parallel',
  None,
  'Runs at a time. Default: one per core, or per GPU if there are any, with '
  '2 GB of free memory for each.',
  lower_bound=1,
)
_DRY_RUN = flags.DEFINE_boolean(
  'dry_run', False, 'Whether to print the commands and run none.'
)
_OWN = ('sweep', 'seeds', 'only', 'max_parallel', 'dry_run')

_EXPERIMENT = experiment.ExperimentFlags()

_BYTES_PER_RUN = 2e9
_LOG_LINES = 15

_FINISHED, _FAILED = directory.FINISHED, directory.FAILED
_RUNNING, _INTERRUPTED = directory.RUNNING, directory.INTERRUPTED
_WAITING = 'waiting'


class Run(NamedTuple):
  """A run of a sweep.

  Attributes:
    variant: Name of its variant.
    seed: Its seed.
    path: Of its directory.
    arguments: Of launch.train.
    status: finished, running, interrupted or waiting.
  """

  variant: str
  seed: int
  path: str
  arguments: Sequence[str]
  status: str

  @property
  def log(self) -> str:
    return directory.RunDirectory(self.path).log


class Limits(NamedTuple):
  """What the runs of a sweep share.

  Attributes:
    environments: Environment variables of each of those that run at a time.
    flags: Flags by name, which a sweep may overrule.
  """

  environments: Sequence[Mapping[str, str]]
  flags: Mapping[str, Any]


def main(argv: Sequence[str]) -> None:
  """Runs the sweep."""
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected arguments: {argv[1:]}')
  if _SWEEP.value is None:
    raise app.UsageError('--sweep=FILE is missing; flags/sweeps/ has some.')
  with errors.reported('interrupted; the same command goes on'):
    failed = sweep()
  sys.exit(1 if failed else 0)


def sweep() -> int:
  """Runs what the flags say; returns how many runs failed."""
  # Planning parses flags of launch.train, in which these get lost.
  dry_run = _DRY_RUN.value
  content = sweep_file.read(presets.find_sweep(_SWEEP.value))
  content = content._replace(
    seeds=_chosen_seeds(content), variants=_chosen_variants(content)
  )
  root = os.path.join(flags.FLAGS['root_output_dir'].value, content.name)
  given = _given_flags(content)
  limits = _limits(
    len(content.variants) * len(content.seeds),
    _MAX_PARALLEL.value,
    flags.FLAGS['runtime'].value,
  )
  runs = plan(content, root, given, limits.flags)
  to_do = [run for run in runs if run.status != _FINISHED]
  if dry_run:
    for run in runs:
      command = shlex.join(['python', '-m', 'launch.train', *run.arguments])
      print(f'# {run.status}\n{command}' if run not in to_do else command)
    return 0
  resumed = sum(run.status == _INTERRUPTED for run in to_do)
  seeds = ', '.join(map(str, content.seeds))
  print(
    f'{len(runs)} runs ({len(content.variants)} variants, seeds {seeds}): '
    f'{len(runs) - len(to_do)} finished, {resumed} to resume, '
    f'{len(to_do) - resumed} to start; {len(limits.environments)} at a time, '
    f'into {root}',
    flush=True,
  )
  os.makedirs(root, exist_ok=True)
  with _alone(root):
    for run in runs:
      if run.status == _RUNNING:
        directory.refuse_owned(directory.RunDirectory(run.path))
    failed = _run_all(runs, root, limits.environments)
  _print_table(runs, failed)
  print(f'tables and figures: python -m launch.report {shlex.quote(root)}')
  return len(failed)


def plan(
  content: sweep_file.Sweep,
  root: str,
  given: Sequence[str] = (),
  limits: Optional[Mapping[str, Any]] = None,
) -> list[Run]:
  """Returns all runs of a sweep, those of the first seed first.

  Every flag of every run is parsed, so that a mistake is found now.

  Args:
    content: Of the sweep file.
    root: Directory of the sweep.
    given: Arguments of every run, which overrule the file's [flags].
    limits: Flags of every run, which those overrule.

  Raises:
    SweepError: If flags are wrong, or a run was made with others. All are
      named.
  """
  runs: list[Run] = []
  mistakes: dict[str, str] = {}
  for seed in content.seeds:
    for variant, own in content.variants.items():
      path = os.path.join(root, variant, f'seed_{seed}')
      arguments = [
        *sweep_file.arguments(limits or {}),
        *sweep_file.arguments(content.flags),
        *given,
        *sweep_file.arguments(own),
        f'--root_output_dir={os.path.dirname(path)}',
        f'--experiment_name={os.path.basename(path)}',
        '--noprogress',
      ]
      try:
        _refuse_own({**content.flags, **own})
        _parse(arguments)
        # A method without anchors has no seed of anchors.
        ignored = {
          holder.name for holder in _EXPERIMENT.algorithm_flags.ignored()
        }
        seeds = {n: seed for n in content.seed_flags if n not in ignored}
        arguments += sweep_file.arguments(seeds)
        _parse(arguments)
        _EXPERIMENT.check()
        path = _EXPERIMENT.run_dir_flags.build('')
        runs.append(Run(variant, seed, path, arguments, _status(path)))
      except (ValueError, flags.Error, sweep_file.SweepError) as error:
        # The seed makes no difference to most.
        mistakes.setdefault(str(error), f'{variant}, seed {seed}')
  if mistakes:
    raise sweep_file.SweepError(
      'Nothing was started:\n'
      + '\n'.join(f'{run}: {error}' for error, run in mistakes.items())
    )
  return runs


def _parse(arguments: Sequence[str]) -> None:
  for name in flags.FLAGS:
    flags.FLAGS[name].unparse()
  rest = flags.FLAGS(['launch.train', *presets.expand(arguments)])
  if len(rest) > 1:
    raise sweep_file.SweepError(f'not a flag: {" ".join(rest[1:])}')


def _refuse_own(given: Mapping[str, Any]) -> None:
  for name in given:
    if name.removeprefix('no') in _OWN:
      raise sweep_file.SweepError(
        f'--{name} is a flag of launch.sweep, not of its runs.'
      )


def _status(path: str) -> str:
  """Returns how far the run of the parsed flags is.

  Raises:
    SweepError: If there is one with other flags.
  """
  run = directory.RunDirectory(path, flags.FLAGS['directory_layout'].value)
  status = directory.read_status(run)
  if status.state == directory.NOT_STARTED:
    return _WAITING
  values = _EXPERIMENT.values()
  different = directory.differing(
    directory.read_flags(run), values, **experiment.comparison()
  )
  total_rounds, done = values['total_rounds'], status.round_num
  if done > total_rounds:
    different.append(f'--total_rounds: {done} there, {total_rounds} now')
  if different:
    raise sweep_file.SweepError(
      f'{path!r} holds a run with other flags:\n  '
      + '\n  '.join(different)
      + '\nGive the sweep another name, or another --root_output_dir, or '
      'remove that run.'
    )
  if status.state == directory.RUNNING:
    return _RUNNING
  is_done = status.fulfils(total_rounds, values['patience'])
  return _FINISHED if is_done else _INTERRUPTED


def _chosen_seeds(content: sweep_file.Sweep) -> Sequence[int]:
  if not _SEEDS.value:
    return content.seeds
  try:
    return tuple(dict.fromkeys(int(seed) for seed in _SEEDS.value))
  except ValueError as error:
    raise sweep_file.SweepError(
      f'--seeds: expected integers, found {",".join(_SEEDS.value)}.'
    ) from error


def _chosen_variants(
  content: sweep_file.Sweep,
) -> dict[str, Mapping[str, Any]]:
  if not _ONLY.value:
    return dict(content.variants)
  for pattern in _ONLY.value:
    if not fnmatch.filter(content.variants, pattern):
      raise sweep_file.SweepError(
        f'--only: there is no variant {pattern!r}; there are '
        f'{", ".join(content.variants)}.'
      )
  return {
    name: own
    for name, own in content.variants.items()
    if any(fnmatch.fnmatch(name, pattern) for pattern in _ONLY.value)
  }


def _given_flags(content: sweep_file.Sweep) -> list[str]:
  """Returns launch.train's flags of the command line, as arguments."""
  given = [
    name
    for name in _EXPERIMENT.values()
    if flags.FLAGS[name].present and name != 'root_output_dir'
  ]
  taken = {
    'experiment_name': 'the sweep names its runs',
    **{name: 'the seeds set it' for name in content.seed_flags},
    **{
      name: 'it differs between variants'
      for own in content.variants.values()
      for name in own
    },
  }
  for name in given:
    if name in taken:
      raise sweep_file.SweepError(
        f'--{name} can not be given on the command line: {taken[name]}.'
      )
  return [flags.FLAGS[name].serialize() for name in given]


def _limits(num_runs: int, max_parallel: Optional[int], runtime: str) -> Limits:
  """Shares cores, memory and GPUs between runs."""
  from tff_fedsa.execution import devices  # Imports TensorFlow.

  found = devices.detect()
  memory = int(psutil.virtual_memory().available // _BYTES_PER_RUN)
  at_a_time = max_parallel or max(
    1, min(len(found.gpus) or found.cores, memory)
  )
  at_a_time = min(at_a_time, num_runs)
  if found.gpus and runtime == 'in_process':
    numbers = ','.join(map(str, range(len(found.gpus))))
    gpus = (os.environ.get('CUDA_VISIBLE_DEVICES') or numbers).split(',')
    return Limits(
      [{'CUDA_VISIBLE_DEVICES': gpus[i % len(gpus)]} for i in range(at_a_time)],
      {},
    )
  cores = max(1, found.cores // at_a_time)
  limits = {'max_concurrent_clients': cores}
  if runtime == 'in_process':
    # The last digits depend on it: it may not depend on how many run.
    limits['intra_op_threads'] = 1
  threads = {
    f'{library}_NUM_THREADS': str(cores)
    for library in ('OMP', 'OPENBLAS', 'MKL')
  }
  return Limits([threads] * at_a_time, limits)


@contextlib.contextmanager
def _alone(root: str) -> Iterator[None]:
  """Refuses a second sweep in the same directory."""
  with open(os.path.join(root, 'sweep.lock'), 'w') as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      raise sweep_file.SweepError(
        f'Another launch.sweep is running in {root!r}: wait for it, or stop '
        'it.'
      ) from error
    yield


def _run_all(
  runs: Sequence[Run], root: str, environments: Sequence[Mapping[str, str]]
) -> dict[str, int]:
  """Runs what is not finished; returns exit statuses of failures by path."""
  record = _Record(os.path.join(root, 'sweep.json'), runs)
  failed: dict[str, int] = {}
  jobs = {}
  for run in runs:
    if run.status != _FINISHED:
      os.makedirs(run.path, exist_ok=True)
      command = (sys.executable, '-m', 'launch.train', *run.arguments)
      jobs[children.Job(command, run.log)] = run
  with tqdm.tqdm(
    total=len(jobs), unit='run', dynamic_ncols=True, disable=not jobs
  ) as bar:

    def on_start(job: children.Job) -> None:
      with open(job.log, 'a', encoding='utf-8') as log:
        log.write(f'{time.strftime("%Y-%m-%d %H:%M:%S")} ')
        log.write(f'{shlex.join(job.arguments)}\n')
      # Until it ends.
      record.set(jobs[job], _INTERRUPTED)

    def on_end(job: children.Job, status: int) -> None:
      run = jobs[job]
      if status == 0:
        record.set(run, _FINISHED, status)
      else:
        failed[run.path] = status
        record.set(run, _FAILED, status)
        tqdm.tqdm.write(_failure(run, status))
      if failed:
        bar.set_postfix_str(f'{len(failed)} failed', refresh=False)
      bar.update()

    children.run_all(list(jobs), environments, on_start=on_start, on_end=on_end)
  return failed


class _Record:
  """Keeps sweep.json, from which launch.report knows what should be there."""

  def __init__(self, path: str, runs: Sequence[Run]):
    self._path = path
    known: dict[str, Any] = {}
    if os.path.exists(path):
      with open(path, encoding='utf-8') as file:
        known = json.load(file)['runs']
    keys = [self._key(run) for run in runs]
    # Reports keep this order: that of the file, if this is all of it.
    order = keys if set(known) <= set(keys) else [*known, *keys]
    self._runs = {key: known.get(key, {}) for key in order}
    for run in runs:
      if run.status == _FINISHED or not self._runs[self._key(run)]:
        self._set(run, run.status)
    self._write()

  def set(self, run: Run, status: str, exit_code: Optional[int] = None) -> None:
    """Records how a run went."""
    self._set(run, status, exit_code)
    self._write()

  def _set(
    self, run: Run, status: str, exit_code: Optional[int] = None
  ) -> None:
    self._runs[self._key(run)] = {
      'variant': run.variant,
      'seed': run.seed,
      'status': status,
      'exit_code': exit_code,
    }

  def _key(self, run: Run) -> str:
    return os.path.relpath(run.path, os.path.dirname(self._path))

  def _write(self) -> None:
    from tff_fedsa import files

    files.write_json(self._path, {'runs': self._runs})


def _failure(run: Run, status: int) -> str:
  with open(run.log, encoding='utf-8', errors='replace') as file:
    lines = file.read().splitlines()[-_LOG_LINES:]
  ended = (
    f'was ended by {signal.Signals(-status).name}'
    if status < 0
    else f'failed with status {status}'
  )
  return '\n'.join(
    [
      f'{run.variant}, seed {run.seed} {ended}:',
      *(f'  {line}' for line in lines),
      f'  (all of it: {run.log})',
    ]
  )


def _print_table(runs: Sequence[Run], failed: Mapping[str, int]) -> None:
  # The order in which a classifier stands for a method.
  from tff_fedsa.evaluation import client_evaluation

  width = max(len(run.variant) for run in runs)
  print(f'{"variant":<{width}} {"finished":>8} {"failed":>6}  last accuracy')
  for variant in dict.fromkeys(run.variant for run in runs):
    own = [run for run in runs if run.variant == variant]
    summaries = [
      directory.read_summary(directory.RunDirectory(run.path))
      for run in own
      if run.path not in failed
    ]
    text = ''
    if summaries:
      main = client_evaluation.main_classifier(summaries[0])
      values = [summary[main]['last'] for summary in summaries]
      text = f'{main} {statistics.mean(values):.4f}'
      if len(values) > 1:
        text += f' ± {statistics.stdev(values):.4f}'
    print(
      f'{variant:<{width}} {len(summaries):>8} {len(own) - len(summaries):>6}'
      f'  {text}'
    )


if __name__ == '__main__':
  runner.run(main)
