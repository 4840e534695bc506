"""A sweep's record says how its runs ended, in the order of its file."""

import json

import pytest

from tff_fedsa.sweeps import record
from tff_fedsa.sweeps import values


def test_the_record_keeps_the_order_of_the_file(tmp_path):
  one, two, three = (
    record.Run(name, 0, str(tmp_path / name), (), 'waiting')
    for name in ('one', 'two', 'three')
  )

  def order(*runs):
    record.Record(str(tmp_path), runs)
    return list(json.loads((tmp_path / 'sweep.json').read_text())['runs'])

  # As --only gives it, in parts; then all of it.
  assert order(three) == ['three']
  assert order(one) == ['three', 'one']
  assert order(one, two, three) == ['one', 'two', 'three']
  assert order(two) == ['one', 'two', 'three']


def test_what_is_written_is_read(tmp_path):
  run = record.Run('one', 3, str(tmp_path / 'one/seed_3'), (), 'waiting')
  assert record.read(str(tmp_path)) == {}
  kept = record.Record(str(tmp_path), [run])
  kept.set(run, 'failed', 2)
  assert record.read(str(tmp_path)) == {
    'one/seed_3': {
      'variant': 'one',
      'seed': 3,
      'status': 'failed',
      'exit_code': 2,
    }
  }


def test_two_sweeps_do_not_share_a_directory(tmp_path):
  with record.alone(str(tmp_path)):
    with pytest.raises(values.SweepError, match='Another `tff-fedsa sweep`'):
      with record.alone(str(tmp_path)):
        pass
  with record.alone(str(tmp_path)):
    pass
