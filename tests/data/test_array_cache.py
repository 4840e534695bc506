"""The cache of decoded images: hits, changed files, mapping, failures."""

import os

import numpy as np
import pytest

from tests.data import made_up_files
from tff_fedsa.data import array_cache
from tff_fedsa.data import datasets
from tff_fedsa.data import image_files


@pytest.fixture
def decoded(monkeypatch):
  """Names of the files that were decoded, as they are."""
  names = []
  decode = image_files._decode

  def recorded(file, *options):
    names.append(os.path.basename(file))
    return decode(file, *options)

  monkeypatch.setattr(image_files, '_decode', recorded)
  return names


def _load(tmp_path, **options):
  return datasets.load(
    'image_folder',
    data_dir=str(tmp_path / 'data'),
    cache_dir=str(tmp_path / 'cache'),
    **options,
  )


def test_a_second_load_decodes_nothing(tmp_path, decoded):
  made_up_files.image_folder(tmp_path / 'data')
  first = _load(tmp_path)
  assert len(decoded) == 6
  again = _load(tmp_path)
  assert len(decoded) == 6
  np.testing.assert_array_equal(first.images, again.images)
  without = datasets.load('image_folder', data_dir=str(tmp_path / 'data'))
  assert len(decoded) == 12
  np.testing.assert_array_equal(first.images, without.images)


def test_another_size_is_another_entry(tmp_path, decoded):
  made_up_files.image_folder(tmp_path / 'data')
  for size in (8, 16, 8):
    assert _load(tmp_path, image_size=size).images.shape[1] == size
  assert len(decoded) == 12
  assert len(os.listdir(tmp_path / 'cache')) == 2


def test_changed_files_replace_the_entry(tmp_path, decoded):
  data = tmp_path / 'data'
  made_up_files.image_folder(data)
  (entry,) = _load_and_list(tmp_path)
  # The same size, another time.
  made_up_files.image(str(data / 'dog' / '1.png'), (1, 1, 1))
  os.utime(data / 'dog' / '1.png', ns=(1, 1))
  assert _load(tmp_path).images[4, 0, 0].tolist() == [1, 1, 1]
  (other,) = _load_and_list(tmp_path)
  assert other != entry
  made_up_files.image(str(data / 'cat' / '9.png'), (9, 9, 9))
  assert len(_load(tmp_path).labels) == 7
  os.remove(data / 'dog' / '0.png')
  assert len(_load(tmp_path).labels) == 6
  assert len(os.listdir(tmp_path / 'cache')) == 1


def _load_and_list(tmp_path):
  _load(tmp_path)
  return os.listdir(tmp_path / 'cache')


def test_large_arrays_are_mapped(tmp_path, monkeypatch):
  made_up_files.image_folder(tmp_path / 'data')
  first = _load(tmp_path)
  assert not isinstance(first.images, np.memmap)
  monkeypatch.setattr(array_cache, '_LARGE_BYTES', 1000)
  for _ in range(2):
    mapped = _load(tmp_path)
    assert isinstance(mapped.images, np.memmap)
    assert not mapped.images.flags.writeable
    np.testing.assert_array_equal(mapped.images, first.images)


def test_a_failed_build_leaves_nothing(tmp_path):
  def build(allocate):
    allocate('a', (3,), np.int32)[:] = 1
    raise ValueError('broken')

  with pytest.raises(ValueError, match='broken'):
    array_cache.load_or_build(
      build, name='x', files=(), cache_dir=str(tmp_path)
    )
  assert os.listdir(tmp_path) == []


def test_a_faster_process_is_not_disturbed(tmp_path):
  def put(value):
    return lambda allocate: allocate('a', (1,), np.int32).fill(value)

  def build(allocate):
    put(2)(allocate)
    # Meanwhile, another process finishes the same.
    array_cache.load_or_build(put(1), name='x', files=(), cache_dir=cache_dir)

  cache_dir = str(tmp_path)
  # Both build in a folder of their own; here they are one process.
  pids = iter([1, 2])
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(array_cache.os, 'getpid', lambda: next(pids))
    arrays = array_cache.load_or_build(
      build, name='x', files=(), cache_dir=cache_dir
    )
  assert arrays['a'].tolist() == [1]
  assert len(os.listdir(tmp_path)) == 1


def test_without_a_place_arrays_are_built_in_memory(tmp_path):
  (tmp_path / 'file').write_text('')
  arrays = array_cache.load_or_build(
    lambda allocate: allocate('a', (1,), np.int32).fill(3),
    name='x',
    files=(),
    cache_dir=str(tmp_path / 'file' / 'cache'),
  )
  assert arrays['a'].tolist() == [3]
