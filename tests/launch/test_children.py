"""Children run some at a time, and end with their parent."""

import pathlib
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from launch import children

_ROOT = pathlib.Path(__file__).parents[2]


def _job(tmp_path, name, code):
  return children.Job(
    (sys.executable, '-c', textwrap.dedent(code)), str(tmp_path / name)
  )


def test_a_failure_does_not_stop_the_others(tmp_path):
  jobs = [
    _job(tmp_path, 'a', 'print("said")'),
    _job(tmp_path, 'b', 'raise SystemExit("wrong")'),
    _job(tmp_path, 'c', 'import os; os.kill(os.getpid(), 9)'),
    _job(tmp_path, 'd', 'import os; print(os.environ["SLOT"])'),
  ]
  ended = {}
  children.run_all(
    jobs,
    [{'SLOT': 'one'}],
    on_end=lambda job, status: ended.update({job: status}),
  )
  assert [ended[job] for job in jobs] == [0, 1, -9, 0]
  logs = [pathlib.Path(job.log).read_text() for job in jobs]
  assert logs == ['said\n', 'wrong\n', '', 'one\n']


def test_so_many_run_at_a_time(tmp_path):
  # Each waits for the other: one at a time, they would never end.
  meet = """
    import pathlib, time
    me, other = pathlib.Path('{}'), pathlib.Path('{}')
    me.touch()
    while not other.exists():
      time.sleep(0.01)
  """
  a, b = tmp_path / 'a.met', tmp_path / 'b.met'
  jobs = [
    _job(tmp_path, 'a', meet.format(a, b)),
    _job(tmp_path, 'b', meet.format(b, a)),
  ]
  ended = []
  children.run_all(jobs, [{}, {}], on_end=lambda *end: ended.append(end[1]))
  assert ended == [0, 0]


# Says when it is there, and saves on Ctrl-C.
_CHILD = """
  import pathlib, sys, time
  try:
    pathlib.Path(sys.argv[1]).touch()
    time.sleep(60)
  except KeyboardInterrupt:
    print('saved', flush=True)
"""
_PARENT = """
  import sys
  from launch import children
  child, there, log = sys.argv[1:]
  children.run_all([children.Job((sys.executable, child, there), log)], [{}])
"""


@pytest.mark.parametrize('how', [signal.SIGINT, signal.SIGKILL])
def test_children_end_with_their_parent(tmp_path, how):
  child, there, log = (tmp_path / name for name in ('child', 'there', 'log'))
  child.write_text(textwrap.dedent(_CHILD))
  parent = subprocess.Popen(
    [
      *(sys.executable, '-c', textwrap.dedent(_PARENT)),
      *map(str, (child, there, log)),
    ],
    cwd=_ROOT,
    stderr=subprocess.DEVNULL,
    # pytest may have been started in the background, where it is ignored.
    preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
  )
  try:
    deadline = time.monotonic() + 60
    while not there.exists() and time.monotonic() < deadline:
      time.sleep(0.01)
    (pid,) = _children(parent.pid)
    parent.send_signal(how)
    parent.wait(timeout=60)
    while _runs(pid) and time.monotonic() < deadline:
      time.sleep(0.01)
    assert not _runs(pid)
    # One that is asked can save; one that is killed can not ask.
    assert log.read_text() == ('saved\n' if how == signal.SIGINT else '')
  finally:
    parent.kill()
    parent.wait()


def _children(pid):
  path = pathlib.Path(f'/proc/{pid}/task/{pid}/children')
  return [int(child) for child in path.read_text().split()]


def _runs(pid):
  try:
    stat = pathlib.Path(f'/proc/{pid}/stat').read_text()
  except OSError:
    return False
  # It may be dead, and whoever adopted it has not noticed.
  return stat.rpartition(')')[2].split()[0] not in 'ZX'
