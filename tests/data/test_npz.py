"""Files of arrays: whatever is in them, arrays or one line."""

import io
import re
import struct
import warnings
import zipfile

import numpy as np
import pytest

from tests.data import made_up_files
from tff_fedsa.data import npz
from tff_fedsa.data.readers import npz_file


def _read(path):
  return npz.read(str(path), lambda name: True, what='data file')


@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
def test_arrays_are_what_numpy_reads(tmp_path, save):
  rng = np.random.default_rng(0)
  arrays = dict(
    x=rng.integers(0, 256, (5, 4, 3), np.uint8),
    fortran=np.asfortranarray(rng.random((3, 4))),
    big_endian=np.arange(4, dtype='>i4'),
    text=np.array(['a', 'bcd']),
    scalar=np.array(7),
    empty=np.zeros((0, 3)),
    bool=np.array([True, False]),
  )
  save(tmp_path / 'a.npz', **arrays)
  found, names = _read(tmp_path / 'a.npz')
  assert names == list(arrays) == list(found)
  for name, array in arrays.items():
    assert found[name].dtype == array.dtype
    np.testing.assert_array_equal(found[name], array)
    found[name][...] = found[name]  # Writable.


def test_what_is_not_wanted_is_not_read(tmp_path):
  np.savez(tmp_path / 'a.npz', x=np.ones(3), y=np.array([{}], object))
  found, names = npz.read(
    str(tmp_path / 'a.npz'), lambda name: name == 'x', what='file'
  )
  assert list(found) == ['x'] and names == ['x', 'y']
  with pytest.raises(ValueError, match=r"a.npz', array 'y': .*Python objects"):
    _read(tmp_path / 'a.npz')


def _header(shape, descr="'<f8'"):
  text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n"
  return b'\x93NUMPY\x01\x00' + struct.pack('<H', len(text)) + text.encode()


@pytest.mark.parametrize(
  'content, message',
  [
    (_header((10**13,)), 'announces 80,000,000,000,000 bytes .* has 0'),
    (_header((2**40, 2**40)) + b'0' * 99, 'announces .* the file has 99'),
    (_header((-3,)) + b'0' * 24, 'is damaged'),
    (_header((3,)) + b'0' * 23, 'announces 24 bytes .* has 23'),
    (_header((3,)) + b'0' * 25, 'announces 24 bytes .* has 25'),
    (_header((3,), "'|O'") + b'0' * 24, 'Python objects'),
    (_header((3,), "'nonsense'"), 'is damaged'),
    (_header("__import__('os')"), 'is damaged'),
    (b'', 'is damaged'),
    (b'\x93NUMPY\x09\x00', 'is damaged'),
  ],
)
def test_headers_that_lie_are_refused_before_memory_is_taken(
  tmp_path, content, message
):
  with zipfile.ZipFile(tmp_path / 'a.npz', 'w') as archive:
    archive.writestr('y.npy', content)
  with pytest.raises(ValueError, match=f"a.npz', array 'y': .*{message}") as e:
    _read(tmp_path / 'a.npz')
  assert '\n' not in str(e.value)


def test_a_list_that_announces_terabytes_is_refused(tmp_path):
  stream = io.BytesIO()
  with zipfile.ZipFile(stream, 'w', zipfile.ZIP_DEFLATED) as archive:
    archive.writestr('y.npy', _header((2**37,)) + bytes(1000))
  content = bytearray(stream.getvalue())
  # The size in the list at the end (its header says 24 bytes in, 4 of them).
  at = content.index(b'PK\x01\x02') + 24
  content[at : at + 4] = struct.pack('<I', 2**32 - 2)
  (tmp_path / 'a.npz').write_bytes(content)
  with pytest.raises(ValueError, match="a.npz', array 'y': is damaged"):
    _read(tmp_path / 'a.npz')


@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
def test_damaged_bytes_give_arrays_or_one_line(tmp_path, save):
  rng = np.random.default_rng(0)
  arrays = dict(x=rng.integers(0, 256, (9, 3, 3), np.uint8), y=np.arange(9))
  path = tmp_path / 'a.npz'
  save(path, **arrays)
  whole = path.read_bytes()
  refused = 0
  for _ in range(400):
    content = bytearray(whole)
    content[rng.integers(len(content))] ^= 1 << rng.integers(8)
    if rng.random() < 0.2:
      content = content[: rng.integers(len(content))]
    path.write_bytes(content)
    try:
      with warnings.catch_warnings():
        # A header with a changed letter may be odd Python.
        warnings.simplefilter('ignore')
        found, _ = _read(path)
    except ValueError as error:
      assert 'a.npz' in str(error) and '\n' not in str(error)
      refused += 1
    else:
      # Only what says nothing of the arrays was hit, e.g. a date or a name.
      for name in set(found) & set(arrays):
        np.testing.assert_array_equal(found[name], arrays[name])
  assert 150 < refused < 400


def test_what_is_no_file_of_arrays_is_named(tmp_path):
  with pytest.raises(FileNotFoundError, match='No data file at'):
    _read(tmp_path / 'missing.npz')
  np.save(tmp_path / 'a.npy', np.ones(3))
  with pytest.raises(ValueError, match="a.npy' is not an .npz file"):
    _read(tmp_path / 'a.npy')


@pytest.mark.parametrize('num_train', [0.8, -100, 0, 60, 100, np.nan, 'half'])
def test_wrong_sizes_of_the_train_set_are_refused(tmp_path, num_train):
  path = made_up_files.npz(tmp_path / 'own.npz', num_train=num_train)
  with pytest.raises(
    ValueError, match=r'own.npz: expected num_train, .* whole number in \[1, 59'
  ):
    npz_file.read(path)


def test_the_size_of_the_train_set_is_one_number(tmp_path):
  path = made_up_files.npz(tmp_path / 'own.npz', num_train=[40, 20])
  with pytest.raises(
    ValueError, match=r"own.npz': expected num_train .*\(2,\)"
  ):
    npz_file.read(path)
  for whole in (45, np.uint8(45), 45.0, [45]):
    path = made_up_files.npz(tmp_path / 'own.npz', num_train=whole)
    assert npz_file.read(path).num_train == 45


def test_labels_that_are_text_become_class_names(tmp_path):
  path = tmp_path / 'own.npz'
  x = np.zeros((4, 2, 2, 1), np.uint8)
  np.savez(path, x=x, y=np.array(['dog', 'cat', 'dog', 'cat']))
  source = npz_file.read(str(path))
  assert source.class_names == ('cat', 'dog')
  assert source.labels.tolist() == [1, 0, 1, 0]
  for y, message in (
    (np.array(['dog', 'cat', None, 'cat']), "own.npz', array 'y': .*objects"),
    ([0.5, 1, 1, 0], 'own.npz: .*found 0.5 at example 0'),
    ([0, 1], 'own.npz: expected one label for each of 4 inputs'),
    (np.eye(4), 'own.npz: .*argmax'),
  ):
    np.savez(path, x=x, y=y)
    with pytest.raises(ValueError, match=message):
      npz_file.read(str(path))
  np.savez(path, images=x, labels=[0, 1, 1, 0])
  with pytest.raises(ValueError, match=re.escape("found ['images', 'labels']")):
    npz_file.read(str(path))


def test_files_of_keras_are_read_as_they_are(tmp_path):
  path = str(tmp_path / 'mnist.npz')
  np.savez(
    path,
    x_train=np.full([4, 5, 5], 1, np.uint8),
    y_train=[0, 1, 2, 0],
    x_test=np.full([3, 5, 5], 2, np.uint8),
    y_test=[1, 0, 2],
  )
  source = npz_file.read(path)
  assert source.images.shape == (7, 5, 5, 1) and source.num_train == 4
  assert source.labels.tolist() == [0, 1, 2, 0, 1, 0, 2]


def test_files_of_parts_are_joined(tmp_path):
  path = str(tmp_path / 'medmnist.npz')
  arrays = {}
  sizes = {'train': 4, 'val': 2, 'test': 3}
  for number, (part, size) in enumerate(sizes.items()):
    arrays[f'{part}_images'] = np.full([size, 5, 5], number, np.uint8)
    arrays[f'{part}_labels'] = np.arange(size)[:, None] % 2
  np.savez(path, **arrays)
  source = npz_file.read(path)
  assert source.images.shape == (9, 5, 5, 1) and source.num_train == 6
  assert source.images[:, 0, 0, 0].tolist() == [0] * 4 + [1] * 2 + [2] * 3
  assert source.labels.tolist() == [0, 1, 0, 1, 0, 1, 0, 1, 0]
  del arrays['val_labels']
  np.savez(path, **arrays)
  with pytest.raises(ValueError, match="expected .'val_labels'"):
    npz_file.read(path)
  arrays['val_labels'] = arrays['train_labels']
  arrays['val_images'] = np.zeros([4, 6, 6], np.uint8)
  np.savez(path, **arrays)
  with pytest.raises(ValueError, match='differ in shape'):
    npz_file.read(path)
