"""Recorders: a crash damages one line of a file at most, and it heals."""

import os

import numpy as np
import pytest
import tensorflow as tf

from tff_fedsa.runs import recorders


def _row(round_num, **more):
  return {'round': round_num, 'loss': float(np.float32(1 / 3)), **more}


def test_csv_is_whole_after_each_row_and_exact(tmp_path):
  path = str(tmp_path / 'metrics.csv')
  recorder = recorders.CsvRecorder(path, ['round', 'loss'])
  recorder.record({'round': 0})
  assert recorders.read_csv(path) == [{'round': 0}]
  recorder.record(_row(1, own=2.5))
  assert recorders.read_csv(path) == [{'round': 0}, _row(1, own=2.5)]
  with open(path) as file:
    assert file.readline() == 'round,loss,own\n'


def test_rows_are_appended_and_only_a_new_column_rewrites(tmp_path):
  path = str(tmp_path / 'metrics.csv')
  recorder = recorders.CsvRecorder(path, ['round', 'loss'])
  files = []
  rows = [_row(0), _row(1), _row(2, own=1.0), _row(3), _row(4, own=2.0)]
  for row in rows:
    recorder.record(row)
    files.append(os.stat(path).st_ino)
  # Atomic writing gives a new file.
  assert files[0] == files[1] != files[2] == files[3] == files[4]
  # The bytes are those of one that is written at once.
  whole = str(tmp_path / 'whole.csv')
  recorders.CsvRecorder(whole, ['round', 'loss']).rewind(rows)
  with open(path, 'rb') as one, open(whole, 'rb') as other:
    assert one.read() == other.read()


def test_rewinding_forgets_later_rows(tmp_path):
  path = str(tmp_path / 'metrics.csv')
  recorder = recorders.CsvRecorder(path, ['round'])
  for round_num in range(4):
    recorder.record({'round': round_num})
  recorder.rewind([{'round': 0}, {'round': 1}])
  recorder.record({'round': 2})
  assert [row['round'] for row in recorders.read_csv(path)] == [0, 1, 2]


@pytest.mark.parametrize('lost', [1, 2, 8])
def test_a_line_that_a_crash_cut_off_is_not_read_and_heals(tmp_path, lost):
  path = str(tmp_path / 'metrics.csv')
  recorder = recorders.CsvRecorder(path, ['round', 'loss'])
  rows = [_row(0), _row(1), _row(2)]
  for row in rows:
    recorder.record(row)
  with open(path, 'rb') as file:
    whole = file.read()
  os.truncate(path, len(whole) - lost)
  # 0.33 for 0.3333 would be wrong, not incomplete.
  assert recorders.read_csv(path) == rows[:2]
  resumed = recorders.CsvRecorder(path, ['round', 'loss'])
  resumed.rewind(rows[:2])
  resumed.record(rows[2])
  with open(path, 'rb') as file:
    assert file.read() == whole


def test_a_row_that_can_not_be_written_leaves_no_half_line(
  tmp_path, monkeypatch
):
  path = str(tmp_path / 'metrics.csv')
  recorder = recorders.CsvRecorder(path, ['round', 'loss'])
  recorder.record(_row(0))

  class Full:
    def __init__(self, path, mode):
      self._file = open(path, mode, buffering=0)

    def __enter__(self):
      return self

    def __exit__(self, *unused):
      self._file.close()

    def tell(self):
      return self._file.tell()

    def write(self, content):
      self._file.write(content[:5])
      raise OSError(28, 'No space left on device')

  monkeypatch.setattr(recorders, 'open', Full, raising=False)
  with pytest.raises(OSError, match='No space'):
    recorder.record(_row(1))
  monkeypatch.undo()
  assert (tmp_path / 'metrics.csv').read_text().endswith('\n')
  assert recorders.read_csv(path) == [_row(0)]


def test_tensorboard_gets_grouped_scalars(tmp_path):
  recorder = recorders.TensorBoardRecorder(str(tmp_path))
  row = {
    'round': 3,
    'head_accuracy': 0.5,
    'head_accuracy_p10': 0.25,
    'loss': 2.0,
    'loss_contrastive': 1.0,
    'gap_local': float('inf'),
  }
  recorder.record(row)
  recorder.close()
  found = {}
  for path in tmp_path.iterdir():
    for event in tf.compat.v1.train.summary_iterator(str(path)):
      for value in event.summary.value:
        found[value.tag] = (event.step, tf.make_ndarray(value.tensor).item())
  assert found == {
    'accuracy/head': (3, 0.5),
    'accuracy_p10/head': (3, 0.25),
    'loss/total': (3, 2.0),
    'loss/contrastive': (3, 1.0),
  }
