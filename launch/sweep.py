"""Runs a sweep file: every combination of methods, settings and seeds.

  tff-fedsa sweep --sweep=digits_dir01
  tff-fedsa report runs/digits_dir01

tff_fedsa/sweeps/sweep_file.py describes the format. Each run is a separate
process. It writes to {root_output_dir}/{sweep}/{variant}/seed_{seed}, and its
output goes to train.log there. As many runs work at a time as the machine can
hold. Flags of `tff-fedsa train` on the command line apply to every run and
override [flags] of the file:

  tff-fedsa sweep --sweep=… --total_rounds=2 --root_output_dir=try

The same command again skips finished runs, resumes interrupted runs and repeats
failed runs. The sweep shows the end of a failed run's log, goes on with the
other runs, and ends with status 1.
"""

from collections.abc import Mapping, Sequence
import os
import shlex
import sys
from typing import Any, Optional

from absl import flags

from launch import errors
from launch import experiment
from launch import runner
from launch import sweep_runs
from tff_fedsa import experiment as experiment_lib
from tff_fedsa.runs import directory
from tff_fedsa.runs import presets
from tff_fedsa.sweeps import record
from tff_fedsa.sweeps import sharing
from tff_fedsa.sweeps import sweep_file
from tff_fedsa.sweeps import values

_SWEEP = flags.DEFINE_string(
  'sweep',
  None,
  'Sweep file in TOML, or the name of a preset: `tff-fedsa presets` lists '
  'them. tff_fedsa/sweeps/sweep_file.py describes the format.',
)
_SEEDS = flags.DEFINE_list(
  'seeds', None, 'Seeds, separated by commas. Default: the seeds of the file.'
)
_ONLY = flags.DEFINE_list(
  'only',
  None,
  'Variants to run, separated by commas. * stands for any letters, ? for one. '
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
  'dry_run', False, 'Print the commands and run none of them.'
)
_OWN = ('sweep', 'seeds', 'only', 'max_parallel', 'dry_run')

_EXPERIMENT = experiment.ExperimentFlags()


def main(argv: Sequence[str]) -> None:
  """Runs the sweep."""
  errors.refuse_arguments(argv)
  if _SWEEP.value is None:
    sys.exit(
      'error: --sweep=FILE is missing; `tff-fedsa presets` lists sweeps.'
    )
  with errors.reported('interrupted; the same command goes on'):
    _, failed = sweep(_SWEEP.value)
  sys.exit(1 if failed else 0)


def sweep(name: str) -> tuple[str, int]:
  """Runs a sweep, with the program's flags.

  Args:
    name: A sweep file, or the name of a preset.

  Returns:
    The sweep's directory, and the number of failed runs.
  """
  # Planning parses other flags and loses the value of this one.
  dry_run = _DRY_RUN.value
  content = sweep_file.read(presets.find_sweep(name))
  content = sweep_file.choose(
    content, seeds=_SEEDS.value or (), only=_ONLY.value or ()
  )
  root = os.path.join(flags.FLAGS['root_output_dir'].value, content.name)
  given = _given_flags(content)
  limits = sharing.share(
    len(content.variants) * len(content.seeds),
    _MAX_PARALLEL.value,
    flags.FLAGS['runtime'].value,
  )
  runs = plan(content, root, given, limits.flags)
  to_do = [run for run in runs if run.status != directory.FINISHED]
  if dry_run:
    for run in runs:
      command = shlex.join(['tff-fedsa', 'train', *run.arguments])
      print(f'# {run.status}\n{command}' if run not in to_do else command)
    return root, 0
  resumed = sum(run.status == directory.INTERRUPTED for run in to_do)
  seeds = ', '.join(map(str, content.seeds))
  print(
    f'{len(runs)} runs ({len(content.variants)} variants, seeds {seeds}): '
    f'{len(runs) - len(to_do)} finished, {resumed} to resume, '
    f'{len(to_do) - resumed} to start; {len(limits.environments)} at a time, '
    f'into {root}',
    flush=True,
  )
  os.makedirs(root, exist_ok=True)
  with record.alone(root):
    for run in runs:
      if run.status == directory.RUNNING:
        directory.refuse_owned(directory.RunDirectory(run.path))
    failed = sweep_runs.run_all(runs, root, limits.environments)
  print(sweep_runs.to_text(runs, failed))
  print(f'tables and figures: tff-fedsa report {shlex.quote(root)}')
  return root, len(failed)


def plan(
  content: sweep_file.Sweep,
  root: str,
  given: Sequence[str] = (),
  limits: Optional[Mapping[str, Any]] = None,
) -> list[record.Run]:
  """Returns all runs of a sweep, those of the first seed first.

  Every flag of every run is parsed, so that a mistake is found now.

  Args:
    content: Content of the sweep file.
    root: Directory of the sweep.
    given: Arguments of every run, which overrule the file's [flags].
    limits: Flags of every run, which those overrule.

  Raises:
    SweepError: If flags are wrong, or a run was made with others. All are
      named.
  """
  runs: list[record.Run] = []
  mistakes: dict[str, str] = {}
  for seed in content.seeds:
    for variant, own in content.variants.items():
      path = os.path.join(root, variant, f'seed_{seed}')
      arguments = [
        *values.arguments(limits or {}),
        *values.arguments(content.flags),
        *given,
        *values.arguments(own),
        f'--root_output_dir={os.path.dirname(path)}',
        f'--experiment_name={os.path.basename(path)}',
        '--noprogress',
      ]
      try:
        _refuse_own({**content.flags, **own})
        _parse(arguments)
        # A method without anchors has no seed of anchors.
        ignored = _EXPERIMENT.build().ignored_flags()
        seeds = {n: seed for n in content.seed_flags if n not in ignored}
        arguments += values.arguments(seeds)
        _parse(arguments)
        built = _EXPERIMENT.build()
        path, status = built.run_directory.path, _status(built)
        runs.append(record.Run(variant, seed, path, arguments, status))
      except (ValueError, flags.Error, values.SweepError) as error:
        # The seed makes no difference to most.
        mistakes.setdefault(str(error), f'{variant}, seed {seed}')
  if mistakes:
    raise values.SweepError(
      'Nothing was started:\n'
      + '\n'.join(f'{run}: {error}' for error, run in mistakes.items())
    )
  return runs


def _parse(arguments: Sequence[str]) -> None:
  for name in flags.FLAGS:
    flags.FLAGS[name].unparse()
  rest = flags.FLAGS(['tff-fedsa train', *presets.expand(arguments)])
  if len(rest) > 1:
    raise values.SweepError(f'not a flag: {" ".join(rest[1:])}')


def _refuse_own(given: Mapping[str, Any]) -> None:
  for name in given:
    if name.removeprefix('no') in _OWN:
      raise values.SweepError(
        f'--{name} is a flag of `tff-fedsa sweep`, not of its runs.'
      )


def _status(planned: experiment_lib.Experiment) -> str:
  """Returns how far a run is.

  Raises:
    SweepError: If there is one with other flags.
  """
  run = planned.run_directory
  status = directory.read_status(run)
  if status.state == directory.NOT_STARTED:
    return record.WAITING
  different = directory.differing(
    directory.read_flags(run),
    planned.flags(),
    defaults=planned.flag_defaults(),
    free=planned.free_flags(),
  )
  total_rounds = planned.simulation.total_rounds
  done = status.round_num
  if done > total_rounds:
    different.append(f'--total_rounds: {done} there, {total_rounds} now')
  if different:
    raise values.SweepError(
      f'{run.path!r} holds a run with other flags:\n  '
      + '\n  '.join(different)
      + '\nGive the sweep another name, or another --root_output_dir, or '
      'remove that run.'
    )
  if status.state == directory.RUNNING:
    return directory.RUNNING
  is_done = status.fulfils(total_rounds, planned.simulation.patience)
  return directory.FINISHED if is_done else directory.INTERRUPTED


def _given_flags(content: sweep_file.Sweep) -> list[str]:
  """Returns the flags of `tff-fedsa train` on the command line."""
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
      for name in _names(own)
    },
  }
  for name in given:
    if name in taken:
      raise values.SweepError(
        f'--{name} can not be given on the command line: {taken[name]}.'
      )
  return [flags.FLAGS[name].serialize() for name in given]


def _names(own: Mapping[str, Any]) -> set[str]:
  """Returns the flags that a variant sets, also those of its flag files."""
  given = presets.expand(values.arguments(own))
  names = {one.lstrip('-').partition('=')[0] for one in given}
  return names | {name.removeprefix('no') for name in names}


if __name__ == '__main__':
  runner.run(main)
