"""Partition files: written whole, checked array by array and against data."""

import numpy as np
import pytest

from tff_fedsa import files
from tff_fedsa.data import partition
from tff_fedsa.data import partition_file

_LABELS = np.arange(20) % 4
_ORDER = 'made up, sorted by nothing'


def _drawn():
  return partition.Partition(
    (np.arange(5), np.arange(5, 10)),
    (np.arange(10, 14), np.arange(10, 14)),
    {'all': np.arange(14, 20)},
    origin=partition_file.origin_of(_LABELS, _ORDER),
  )


def test_the_origin_is_kept_and_compared(tmp_path):
  path = str(tmp_path / 'p.npz')
  _drawn().save(path)
  loaded = partition.load(path, labels=_LABELS.astype(np.int32), order='now')
  assert loaded.notices == () and loaded.test[0] is loaded.test[1]
  alone = partition.load(path).origin
  assert alone.order == _ORDER
  assert alone.labels_sha256 == loaded.origin.labels_sha256
  assert alone.class_counts.tolist() == [5, 5, 5, 5]
  with pytest.raises(
    ValueError,
    match=r'p.npz. was made .*made up.* \(20 examples\); .*now.*another order',
  ):
    partition.load(path, labels=_LABELS[::-1], order='now')
  with pytest.raises(ValueError, match=r'\(21 examples\), other labels'):
    partition.load(path, labels=np.arange(21) % 4, order='now')


def test_without_an_origin_there_is_a_notice(tmp_path):
  path = str(tmp_path / 'p.npz')
  partition.Partition((np.arange(5),), (np.arange(5, 9),)).save(path)
  assert partition.load(path).notices == ()
  loaded = partition.load(path, labels=_LABELS, order='the data')
  (notice,) = loaded.notices
  assert 'does not say' in notice and notice.endswith('those of the data.')
  # Once taken, it is written with what it was taken for.
  loaded.save(path)
  assert partition.load(path, labels=_LABELS, order='the data').notices == ()


def _save(path, **changes):
  arrays = dict(
    train_0=np.arange(5),
    train_1=np.arange(5, 10),
    test_0=np.arange(10, 12),
    test_1=np.arange(12, 14),
    global_test_all=np.arange(14, 20),
  )
  np.savez(
    path, **{k: v for k, v in (arrays | changes).items() if v is not None}
  )


@pytest.mark.parametrize(
  'name', ['train_0', 'test_1', 'global_test_all', 'global_test_other']
)
@pytest.mark.parametrize(
  'indices, message',
  [
    (np.array([-1, 3]), 'has a negative example index, -1'),
    (np.array([99]), 'has the index 99, but data has 20 examples'),
    (np.arange(4).reshape(2, 2), r'of shape \(2, 2\)'),
    (np.array([], np.int64), 'has no example'),
    (np.array(3), r'of shape \(\)'),
    (np.array([0.0, 1.0]), 'expected integers, found float64'),
    (np.array(['a', 'b']), 'holds text, but these data have no ids'),
    (np.array([True, False]), 'expected integers, found bool'),
    (np.array([2**64 - 1], 'u8'), 'negative'),
    (np.array([None]), 'Python objects'),
  ],
)
def test_wrong_arrays_are_named(tmp_path, name, indices, message):
  path = tmp_path / 'p.npz'
  _save(path, **{name: indices})
  with pytest.raises(
    ValueError, match=f"p.npz'[:,] .*array '{name}'.*{message}"
  ) as error:
    partition.load(str(path), labels=_LABELS, order='data')
  assert '\n' not in str(error.value)


def test_missing_arrays_are_named(tmp_path):
  path = tmp_path / 'p.npz'
  for name, told in (('test_1', 'test_1'), ('train_0', 'train_0')):
    _save(path, **{name: None})
    with pytest.raises(
      ValueError, match=f"expected arrays.*'{told}' is missing"
    ):
      partition.load(str(path))
  np.savez(path, x=np.arange(3))
  with pytest.raises(ValueError, match="p.npz' is not a partition file"):
    partition.load(str(path))
  _save(path, test_0=np.arange(3))
  with pytest.raises(ValueError, match="p.npz': Example 0 is a test example"):
    partition.load(str(path))
  _save(path, labels_sha256=np.arange(3))
  with pytest.raises(ValueError, match="'labels_sha256' to be text"):
    partition.load(str(path))


def test_ids_are_looked_up_in_any_order(tmp_path):
  path = str(tmp_path / 'p.npz')
  ids = np.array([f'train_{i:05d}' for i in range(20)])
  _save(
    path,
    train_0=ids[:5],
    train_1=ids[5:10],
    test_0=ids[10:12].astype('S'),
    test_1=ids[12:14],
    global_test_all=ids[14:],
  )
  order = np.random.default_rng(0).permutation(20)
  loaded = partition.load(
    path, labels=_LABELS[order], order='data', ids_fn=lambda: ids[order]
  )
  assert loaded.notices == ()
  assert order[loaded.train[1]].tolist() == [5, 6, 7, 8, 9]
  assert order[loaded.test[0]].tolist() == [10, 11]
  assert order[loaded.global_test['all']].tolist() == [*range(14, 20)]
  with pytest.raises(
    ValueError, match="'train_0' has 1 unknown ids, e.g. 'tra"
  ):
    partition.load(path, labels=_LABELS, ids_fn=lambda: ids[1:])
  with pytest.raises(ValueError, match='20 examples and 1 distinct ids'):
    partition.load(path, labels=_LABELS, ids_fn=lambda: ids[[0] * 20])


def test_a_file_is_there_whole_or_not_at_all(tmp_path, monkeypatch):
  path = tmp_path / 'p.npz'
  _drawn().save(str(path))
  before = path.read_bytes()

  def fail(*unused_args):
    raise OSError('disk full')

  monkeypatch.setattr(files.os, 'replace', fail)
  with pytest.raises(OSError, match='disk full'):
    partition.Partition((np.arange(5),), (np.arange(5, 9),)).save(str(path))
  assert path.read_bytes() == before
  assert [file.name for file in tmp_path.iterdir()] == ['p.npz']


def test_torn_files_are_refused_in_one_line(tmp_path):
  path = tmp_path / 'p.npz'
  _drawn().save(str(path))
  whole = path.read_bytes()
  for size in range(0, len(whole), 23):
    path.write_bytes(whole[:size])
    with pytest.raises(ValueError, match='p.npz') as error:
      partition.load(str(path))
    assert '\n' not in str(error.value)
