"""Runs programs as children, several at a time. They end with this program."""

from collections.abc import Callable, Mapping, Sequence
import os
import signal
import subprocess
import time
from typing import NamedTuple

from tff_fedsa.execution import workers

_SECONDS_TO_SAVE = 30.0
_SECONDS_PER_LOOK = 0.1


class Job(NamedTuple):
  """A program to run.

  Attributes:
    arguments: The program and its arguments.
    log: Path of the file for its output, which is appended.
  """

  arguments: tuple[str, ...]
  log: str


def run_all(
  jobs: Sequence[Job],
  environments: Sequence[Mapping[str, str]],
  *,
  on_start: Callable[[Job], None] = lambda *_: None,
  on_end: Callable[[Job, int], None] = lambda *_: None,
) -> None:
  """Runs jobs in order, one per environment at a time.

  An interrupt of this program also interrupts its children. They have half a
  minute to save their work. They never outlive this program.

  Args:
    jobs: All jobs. A failed job does not stop the others.
    environments: Environment variables in addition to our own, one mapping for
      each job that runs at a time.
    on_start: Called with each starting job.
    on_end: Called with each ended job and its exit status. Negative numbers are
      signals.
  """
  waiting = list(reversed(jobs))
  idle = list(reversed(environments))
  running: dict[subprocess.Popen, tuple[Job, Mapping[str, str]]] = {}
  try:
    while waiting or running:
      while waiting and idle:
        job, environment = waiting.pop(), idle.pop()
        on_start(job)
        running[_start(job, environment)] = job, environment
      time.sleep(_SECONDS_PER_LOOK)
      for process in [one for one in running if one.poll() is not None]:
        job, environment = running.pop(process)
        idle.append(environment)
        on_end(job, process.returncode)
  finally:
    _interrupt(list(running))


def _start(job: Job, environment: Mapping[str, str]) -> subprocess.Popen:
  with open(job.log, 'ab') as log:
    return subprocess.Popen(
      job.arguments,
      stdin=subprocess.DEVNULL,
      stdout=log,
      stderr=subprocess.STDOUT,
      env={**os.environ, **environment},
      # This program passes on a Ctrl-C of the terminal.
      start_new_session=True,
      preexec_fn=_prepare,
    )


def _prepare() -> None:
  workers.die_with_parent()
  # Background jobs of a shell ignore SIGINT, and so would their children.
  signal.signal(signal.SIGINT, signal.default_int_handler)


def _interrupt(processes: Sequence[subprocess.Popen]) -> None:
  try:
    for process in processes:
      process.send_signal(signal.SIGINT)
    deadline = time.monotonic() + _SECONDS_TO_SAVE
    for process in processes:
      try:
        process.wait(max(deadline - time.monotonic(), 0.0))
      except subprocess.TimeoutExpired:
        pass
  finally:
    # A second Ctrl-C does not wait.
    for process in processes:
      if process.poll() is None:
        process.kill()
        process.wait()
