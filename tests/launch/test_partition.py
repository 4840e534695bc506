"""The partition program: what it shows is what is trained on."""

import csv
import pathlib

import numpy as np
import pytest

from tests import programs
from tests.launch import launching
from tff_fedsa.data import partition
from tff_fedsa.data import tasks

_ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope='module')
def program():
  return programs.load('launch.partition')


@pytest.mark.pictures
def test_what_is_shown_is_what_is_trained_on(program, tmp_path, capsys):
  spec = tasks.TaskSpec(
    partition='nid1', alpha=0.5, seed=1, test_set='per_domain'
  )
  program.show(spec, str(tmp_path / 'shown'), 10)
  shown = capsys.readouterr().out
  assert shown.startswith('digits, nid1, seed 1\n20 clients, 10 classes, 1437 ')
  assert 'test sets of a global model: test 360' in shown
  assert 'the 5 largest and the 5 smallest of 20' in shown

  expected = tasks.load_task(spec).partition
  path = str(tmp_path / 'shown' / 'partition.npz')
  found = partition.load(path)
  for one, two in zip(found.train + found.test, expected.train + expected.test):
    np.testing.assert_array_equal(one, two)
  task = tasks.load_task(tasks.TaskSpec(partition_file=path))
  with open(tmp_path / 'shown' / 'counts.csv', newline='') as file:
    rows = list(csv.DictReader(file))
  counts = np.zeros((20, 10), int)
  for row in rows:
    counts[int(row['client']), int(row['class'])] = int(row['train'])
  np.testing.assert_array_equal(counts, task.class_counts())
  assert (tmp_path / 'shown' / 'partition.png').stat().st_size > 10_000


def test_a_partition_file_is_shown(program, tmp_path, capsys):
  path = 'tests/testdata/reference_runs/digits_a0.1_s0.npz'
  spec = tasks.TaskSpec(partition_file=str(_ROOT / path))
  program.show(spec, None, 40)
  shown = capsys.readouterr().out
  assert shown.startswith(f'digits, {_ROOT / path}\n20 clients, 10 classes')
  assert 'wrote' not in shown


def test_help_teaches():
  output = launching.launch_process('partition', '--help', status=1)
  assert 'partition.npz  the indices' in output
  for name in partition.NAMES:
    assert name in output
