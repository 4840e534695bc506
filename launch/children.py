"""Programs as children of this one: some at a time, ended when it ends."""

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
    log: Path of the file that its output is appended to.
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
  """Runs jobs in their order, as many at a time as there are environments.

  If this program is interrupted, its children are, too, and get half a minute
  to save what they have. They outlive it in no case.

  Args:
    jobs: All that there is to do; one that fails does not stop the others.
    environments: Environment variables, besides our own, of those that run at
      a time.
    on_start: Called with a job that starts.
    on_end: Called with a job that has ended and its exit status, negative for
      the signal that ended it.
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
      # A Ctrl-C in the terminal is for this program to pass on.
      start_new_session=True,
      preexec_fn=_prepare,
    )


def _prepare() -> None:
  workers.die_with_parent()
  # Jobs in the background of a shell ignore it, and so would their children.
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
