"""Files are whole or unchanged, and never pickles."""

import os

import numpy as np
import pytest

from tff_fedsa import files


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
  path = str(tmp_path / 'a.json')
  files.write_json(path, {'x': 0.1})

  def full(_):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(os, 'fsync', full)
  with pytest.raises(OSError, match='No space left'):
    files.write_json(path, {'x': 0.2})
  assert files.read_json(path) == {'x': 0.1}
  assert os.listdir(tmp_path) == ['a.json']


def test_arrays_come_back_exactly(tmp_path):
  path = str(tmp_path / 'a.npz')
  arrays = {'f': np.float32([[0.1, np.nan]]), 'i': np.arange(3, dtype=np.int32)}
  files.write_npz(path, arrays)
  found = files.read_npz(path)
  for name, array in arrays.items():
    np.testing.assert_array_equal(found[name], array)
    assert found[name].dtype == array.dtype


def test_pickles_are_refused(tmp_path):
  path = str(tmp_path / 'a.npz')
  np.savez(path, a=np.array([{'an': 'object'}], dtype=object))
  with pytest.raises(ValueError, match='pickle'):
    files.read_npz(path)


def test_floats_survive_json_exactly(tmp_path):
  path = str(tmp_path / 'a.json')
  values = [0.1, 1 / 3, float(np.float32(0.1)), 1e-300]
  files.write_json(path, values)
  assert files.read_json(path) == values
