"""Runs are found, with how far they got."""

import json

import pytest

from tests.reporting import made_up
from tff_fedsa.reporting import groups as groups_lib
from tff_fedsa.reporting import runs


def _groups(*directories, ignored=()):
  found = runs.find(list(map(str, directories)), made_up.DEFAULTS)
  return groups_lib.group(found, ignored=ignored)


def _statuses(group):
  return {run.seed: run.status for run in group.runs}


def test_nothing_is_dropped_silently(tmp_path):
  made_up.write_repeats(tmp_path, 'fedsa', [0.8, 0.9])
  made_up.write(
    tmp_path / 'fedsa/seed_2',
    [0.1, 0.4],
    finished=False,
    model_seed='2',
    sampling_seed='2',
  )
  lost = tmp_path / 'fedsa/seed_3'
  lost.mkdir()
  (lost / 'train.log').write_text('one\nerror: no such file\n\n')
  planned = {
    f'{variant}/seed_{seed}': {
      'variant': variant,
      'seed': seed,
      'status': status,
      'exit_code': code,
    }
    for variant, seed, status, code in (
      ('fedsa', 0, 'finished', 0),
      ('fedsa', 3, 'failed', 1),
      ('late', 0, 'waiting', None),
    )
  }
  (tmp_path / 'sweep.json').write_text(json.dumps({'runs': planned}))
  fedsa, late = _groups(tmp_path)
  by_seed = {run.seed: run for run in fedsa.runs}
  assert by_seed['2'].status == 'incomplete'
  assert by_seed['2'].detail == 'round 1 of 3'
  failed = by_seed['3']
  assert failed.status == 'failed'
  assert failed.detail == 'status 1: error: no such file'
  assert _statuses(late) == {'0': 'not started'}
  missing = groups_lib.missing_seeds([fedsa, late])
  assert missing == {'fedsa': ['2', '3'], 'late': ['0', '1', '2', '3']}
  # The directory of one variant knows of its own runs only.
  (only,) = _groups(tmp_path / 'fedsa')
  assert {run.seed: run.status for run in only.runs} == _statuses(fedsa)


def test_a_longer_run_that_was_interrupted_is_not_finished(tmp_path):
  made_up.write(tmp_path / 'a', [0.1, 0.5, 0.6, 0.7], total_rounds='6')
  (group,) = _groups(tmp_path)
  assert _statuses(group) == {'0': 'incomplete'}
  made_up.write(
    tmp_path / 'b/a', [0.1, 0.5, 0.6, 0.7], total_rounds='6', patience='2'
  )
  (group,) = _groups(tmp_path / 'b')
  assert _statuses(group) == {'0': 'finished'}


def test_no_runs_is_an_error(tmp_path):
  with pytest.raises(runs.ReportError, match='no run in'):
    _groups(tmp_path)
  with pytest.raises(runs.ReportError, match='no directory'):
    _groups(tmp_path / 'none')
