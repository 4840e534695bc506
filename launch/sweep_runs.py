"""Executes the runs of a sweep, several at a time, and shows their results."""

from collections.abc import Mapping, Sequence
import os
import shlex
import signal
import statistics
import sys
import time

import tqdm

from launch import children
from tff_fedsa.runs import directory
from tff_fedsa.sweeps import record

_LOG_LINES = 15


def run_all(
  runs: Sequence[record.Run],
  root: str,
  environments: Sequence[Mapping[str, str]],
) -> dict[str, int]:
  """Executes unfinished runs, and returns exit statuses of failures by path.

  Args:
    runs: All runs of the sweep.
    root: Directory of the sweep.
    environments: Environment variables, one mapping for each run that works at
      a time.
  """
  kept = record.Record(root, runs)
  failed: dict[str, int] = {}
  jobs = {}
  for run in runs:
    if run.status != directory.FINISHED:
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
      kept.set(jobs[job], directory.INTERRUPTED)

    def on_end(job: children.Job, status: int) -> None:
      run = jobs[job]
      if status == 0:
        kept.set(run, directory.FINISHED, status)
      else:
        failed[run.path] = status
        kept.set(run, directory.FAILED, status)
        tqdm.tqdm.write(_failure(run, status))
      if failed:
        bar.set_postfix_str(f'{len(failed)} failed', refresh=False)
      bar.update()

    children.run_all(list(jobs), environments, on_start=on_start, on_end=on_end)
  return failed


def _failure(run: record.Run, status: int) -> str:
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


def to_text(runs: Sequence[record.Run], failed: Mapping[str, int]) -> str:
  """Returns the variants' accuracies, as a table for a terminal.

  Args:
    runs: All runs of the sweep. They have ended.
    failed: Exit statuses of failures by path.
  """
  # The order in which a classifier stands for a method.
  from tff_fedsa.evaluation import client_evaluation

  width = max(len(run.variant) for run in runs)
  lines = [f'{"variant":<{width}} {"finished":>8} {"failed":>6}  last accuracy']
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
    lines.append(
      f'{variant:<{width}} {len(summaries):>8} {len(own) - len(summaries):>6}'
      f'  {text}'
    )
  return '\n'.join(lines)
