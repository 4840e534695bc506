"""The directory of a run: layouts, flags kept, one owner, a status."""

import json
import os
import pathlib
import subprocess
import sys
import textwrap

import pandas
import pytest

from tff_fedsa.runs import directory

_ROOT = pathlib.Path(__file__).parents[2]
_COMPARISON = {
  'defaults': {'later': 3},
  'free': ('patience', 'progress', 'total_rounds'),
}


def _values(**changes):
  return {
    'alpha': 0.1,
    'architecture_modules': ['a', 'b'],
    'directory_layout': 'run',
    'patience': None,
    'progress': True,
    'total_rounds': 4,
    **changes,
  }


def _started(path, **changes):
  values = _values(**changes)
  run = directory.RunDirectory(str(path), values['directory_layout'])
  pathlib.Path(run.path).mkdir(parents=True, exist_ok=True)
  directory.keep_flags(run, values, **_COMPARISON)
  return run


def test_everything_is_in_one_directory_by_default(tmp_path):
  run = directory.RunDirectory(str(tmp_path / 'name'))
  for path in (run.checkpoints, run.tensorboard, run.metrics_csv):
    assert pathlib.Path(path).parent == tmp_path / 'name'


def test_by_kind_is_the_layout_of_google_research(tmp_path):
  path = str(tmp_path / 'results' / 'name')
  run = _started(path, directory_layout='by_kind')
  assert run.checkpoints == str(tmp_path / 'checkpoints' / 'name')
  assert run.tensorboard == str(tmp_path / 'logdir' / 'name')
  assert run.hparams_csv == str(tmp_path / 'results' / 'name' / 'hparams.csv')
  # What reads a run is given its directory only.
  found = directory.open_existing(path + '/')
  assert found.checkpoints == run.checkpoints
  assert found.tensorboard == run.tensorboard


def test_a_run_from_before_there_were_layouts_is_found(tmp_path):
  (tmp_path / 'flags.txt').write_text('--alpha=0.1\n')
  run = directory.open_existing(str(tmp_path))
  assert run.checkpoints == str(tmp_path / 'checkpoints')
  with pytest.raises(directory.RunDirectoryError, match='There is no run'):
    directory.open_existing(str(tmp_path / 'other'))


def test_a_run_from_before_there_was_a_flag_has_its_default():
  recorded = {'alpha': '0.1'}

  def differing(value):
    return directory.differing(
      recorded, {'alpha': 0.1, 'later': value}, **_COMPARISON
    )

  assert not differing(3)
  assert differing(4) == ['--later: None there, 4 now']


def test_hparams_are_a_series_of_pandas(tmp_path):
  run = _started(tmp_path)
  hparams = pandas.read_csv(run.hparams_csv, index_col=0)['0']
  assert dict(hparams) == {
    'alpha': '0.1',
    'architecture_modules': 'a,b',
    'directory_layout': 'run',
    'progress': 'true',
    'total_rounds': '4',
  }


def test_other_flags_are_refused(tmp_path):
  _started(tmp_path)
  _started(tmp_path, progress=False, patience=3)
  with pytest.raises(
    directory.RunDirectoryError, match='--alpha: 0.1 there, 1.0 now'
  ):
    _started(tmp_path, alpha=1.0)


def test_a_second_owner_is_told_who_the_first_is(tmp_path):
  run = _started(tmp_path)
  directory.refuse_owned(run)
  with directory.owned(run):
    for attempt in (
      lambda: directory.refuse_owned(run),
      lambda: directory.owned(run).__enter__(),
    ):
      with pytest.raises(
        directory.RunDirectoryError, match=rf'process {os.getpid()} on .* since'
      ):
        attempt()
    assert directory.read_status(run).state == directory.RUNNING
  directory.refuse_owned(run)
  with directory.owned(run):
    pass


def test_an_owner_that_is_killed_owns_nothing(tmp_path):
  run = _started(tmp_path)
  program = textwrap.dedent("""
    import os, signal, sys
    from tff_fedsa.runs import directory
    with directory.owned(directory.RunDirectory(sys.argv[1])) as owner:
      owner.start(4)
      print('owned', flush=True)
      sys.stdin.read()
  """)
  process = subprocess.Popen(
    [sys.executable, '-c', program, str(tmp_path)],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    cwd=_ROOT,
  )
  assert process.stdout.readline() == b'owned\n'
  status = directory.read_status(run)
  assert status.state == directory.RUNNING
  assert f'process {process.pid} on' in status.detail
  process.kill()
  process.communicate()
  assert directory.read_status(run).state == directory.INTERRUPTED
  directory.refuse_owned(run)


def test_status_of_a_run(tmp_path):
  run = directory.RunDirectory(str(tmp_path))
  assert directory.read_status(run).state == directory.NOT_STARTED
  _started(tmp_path)
  assert directory.read_status(run).state == directory.INTERRUPTED
  with directory.owned(run) as owner:
    owner.start(4)
    owner.finish(4)
  status = directory.read_status(run)
  assert status == directory.Status(directory.FINISHED, 4, 4)
  assert status.fulfils(4, None) and status.fulfils(4, 2)
  assert not status.fulfils(5, None)
  # It is wanted longer; that fails.
  with pytest.raises(ZeroDivisionError):
    with directory.owned(run) as owner:
      owner.start(5)
      raise ZeroDivisionError('by zero')
  status = directory.read_status(run)
  assert status.state == directory.FAILED
  assert status.detail == 'ZeroDivisionError: by zero'
  with pytest.raises(KeyboardInterrupt):
    with directory.owned(run) as owner:
      owner.start(5)
      raise KeyboardInterrupt
  assert directory.read_status(run).state == directory.INTERRUPTED
  # TensorFlow turns a KeyboardInterrupt into other exceptions.
  with pytest.raises(SystemError):
    with directory.owned(run, interrupted=lambda: True) as owner:
      owner.start(5)
      raise SystemError('returned a result with an exception set')
  assert directory.read_status(run).state == directory.INTERRUPTED


def test_a_launch_that_is_refused_does_not_change_the_status(tmp_path):
  run = _started(tmp_path)
  with directory.owned(run) as owner:
    owner.start(4)
    owner.finish(4)
  with pytest.raises(directory.RunDirectoryError):
    with directory.owned(run):
      _started(tmp_path, alpha=1.0)
  # Nor does one that has nothing left to train.
  with pytest.raises(KeyboardInterrupt):
    with directory.owned(run) as owner:
      owner.start(4)
      raise KeyboardInterrupt
  assert directory.read_status(run).state == directory.FINISHED


def test_a_run_that_stopped_early_goes_on_with_more_patience_only(tmp_path):
  run = _started(tmp_path)
  with directory.owned(run) as owner:
    owner.start(40, 2)
    owner.finish(10, stopped_early=True)
  status = directory.read_status(run)
  assert status.is_over and status.state == directory.STOPPED_EARLY
  for total_rounds, patience, expected in (
    (40, 2, True),
    (50, 1, True),
    (10, None, True),
    (40, 3, False),
    (40, None, False),
    (9, 2, False),
  ):
    assert status.fulfils(total_rounds, patience) == expected


@pytest.mark.parametrize(
  'rounds, patience, expected',
  [
    (None, None, directory.INTERRUPTED),
    (2, None, directory.INTERRUPTED),
    (4, None, directory.FINISHED),
    (2, 1, directory.STOPPED_EARLY),
    # It was resumed after that summary.
    (1, 1, directory.INTERRUPTED),
  ],
)
def test_runs_from_before_there_was_a_status(
  tmp_path, rounds, patience, expected
):
  run = _started(tmp_path, patience=patience)
  pathlib.Path(run.metrics_csv).write_text('round,loss\n0,\n2,0.5\n')
  if rounds is not None:
    pathlib.Path(run.summary_json).write_text(json.dumps({'rounds': rounds}))
  assert directory.read_status(run).state == expected


def test_a_damaged_status_tells_a_way_out(tmp_path):
  run = _started(tmp_path)
  pathlib.Path(run.status_json).write_text('{"state": ')
  with pytest.raises(directory.RunDirectoryError, match='Remove it'):
    directory.read_status(run)


def test_a_directory_that_can_not_be_made(tmp_path):
  (tmp_path / 'file').write_text('')
  run = directory.RunDirectory(str(tmp_path / 'file' / 'run'))
  with pytest.raises(directory.RunDirectoryError, match='Cannot write to'):
    with directory.owned(run):
      pass


@pytest.mark.parametrize(
  'name', ['run', 'fedsa.digits', 'α = 0,1', '-', 'x' * 200]
)
def test_names_of_runs(name):
  assert directory.name_trouble(name) == ''


@pytest.mark.parametrize(
  'name, trouble',
  [
    ('', 'name of a directory'),
    ('.', 'name of a directory'),
    ('..', 'name of a directory'),
    ('a/b', 'without a separator'),
    ('a\\b', 'without a separator'),
    ('a\nb', 'line breaks'),
    ('a\x00b', 'control characters'),
    ('a\udcffb', 'control characters'),
    ('x' * 300, 'no more than 200 bytes'),
    ('α' * 101, 'no more than 200 bytes'),
  ],
)
def test_impossible_names_of_runs(name, trouble):
  assert trouble in directory.name_trouble(name)
