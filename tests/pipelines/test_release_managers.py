"""Rows of evaluations, which finish in any order."""

import asyncio

import pytest
import tensorflow_federated as tff

from tests.pipelines import small
from tff_fedsa.pipelines import release_managers


def _manager(path):
  return release_managers.EvaluationCSVReleaseManager(
    path, key_fieldname='round_num'
  )


def _rows(path):
  return [(row['round_num'], row['accuracy']) for row in small.rows(path)]


def _value(number):
  return {'accuracy': number}


@pytest.mark.parametrize('order', [(1, 2, 3), (3, 2, 1), (2, 3, 1)])
@pytest.mark.parametrize('mode', list(tff.program.CSVSaveMode))
def test_a_row_stays_whatever_comes_after_it(tmp_path, order, mode):
  path = tmp_path / 'evaluation.csv'
  manager = release_managers.EvaluationCSVReleaseManager(path, mode)

  async def release():
    for key in order:
      await manager.release(_value(key / 4), key)

  asyncio.run(release())
  assert small.rows(path) == [
    {'key': str(key), 'accuracy': str(key / 4)} for key in (1, 2, 3)
  ]


def test_rows_released_at_the_same_time_are_all_there(tmp_path):
  path = tmp_path / 'evaluation.csv'
  manager = _manager(path)
  keys = (4, 5, 2, 3, 1)

  async def release():
    await asyncio.gather(*(manager.release(_value(key), key) for key in keys))

  asyncio.run(release())
  assert _rows(path) == [(key, key) for key in '12345']


def test_upstream_loses_a_row(tmp_path):
  """Why there is a manager of our own; it may go when this fails."""
  path = tmp_path / 'evaluation.csv'
  manager = tff.program.CSVFileReleaseManager(path, key_fieldname='round_num')

  async def release():
    await manager.release(_value(5), 5)
    await manager.release(_value(4), 4)

  asyncio.run(release())
  assert _rows(path) == [('4', '4')]


def test_a_row_is_replaced_after_a_restart(tmp_path):
  path = tmp_path / 'evaluation.csv'

  async def release(manager, *rows):
    for key, number in rows:
      await manager.release(_value(number), key)

  asyncio.run(release(_manager(path), (2, 0.5), (5, 0.75), (4, 0.25)))
  asyncio.run(release(_manager(path), (4, 0.5)))
  assert _rows(path) == [('2', '0.5'), ('4', '0.5'), ('5', '0.75')]


def test_columns_may_come_later(tmp_path):
  path = tmp_path / 'evaluation.csv'
  manager = _manager(path)

  async def release():
    await manager.release(_value(5), 5)
    await manager.release({'accuracy': 4, 'loss': 1}, 4)

  asyncio.run(release())
  assert small.rows(path) == [
    {'round_num': '4', 'accuracy': '4', 'loss': '1'},
    {'round_num': '5', 'accuracy': '5', 'loss': ''},
  ]
