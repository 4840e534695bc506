"""Inputs: what is legal, and what deserves a notice."""

import numpy as np
import pytest

from tff_fedsa.data import input_spec
from tff_fedsa.data import inputs

_RNG = np.random.default_rng(0)
_IMAGES = _RNG.integers(0, 256, (50, 6, 5, 3)).astype(np.uint8)


@pytest.mark.parametrize('dtype', [np.uint8, np.float32])
def test_every_image_is_looked_at(monkeypatch, dtype):
  monkeypatch.setattr(inputs, '_CHUNK_BYTES', 1000)
  pixels = _IMAGES.astype(dtype)
  pixels[[7, 49]] = 3
  found = inputs.examine(pixels, 'x')
  assert found == (pixels.min(), pixels.max(), 2, 7, 50)
  (notice,) = inputs.notices(found, (6, 5, 3), 'mine')
  assert notice.startswith('mine: 2 of 50 images have the same value')
  assert notice.endswith('example 7.')


def test_some_of_a_large_mapped_array_are_looked_at(monkeypatch, tmp_path):
  monkeypatch.setattr(inputs, '_MAPPED_BYTES', 1000)
  np.save(tmp_path / 'a.npy', np.full((50, 6, 5, 3), 9, np.uint8))
  mapped = np.load(tmp_path / 'a.npy', mmap_mode='r')
  assert inputs.examine(mapped, 'x') == (9, 9, 10, 0, 10)
  np.save(tmp_path / 'b.npy', _IMAGES.astype(np.float32))
  mapped = np.load(tmp_path / 'b.npy', mmap_mode='r')
  # NaN may be anywhere.
  assert inputs.examine(mapped, 'x').num_examined == 50


def test_arrays_are_joined():
  parts = [_IMAGES[:10], np.full_like(_IMAGES[:3], 4), _IMAGES[10:]]
  assert inputs.joined(inputs.examine(part, 'x') for part in parts) == (
    inputs.examine(np.concatenate(parts), 'x')
  )


@pytest.mark.parametrize(
  'pixels, error, message',
  [
    (_IMAGES.astype(float), TypeError, r'float64 .*astype\(np.float32\)'),
    (_IMAGES.astype(int), TypeError, r'int64 .*astype\(np.uint8\)'),
    (_IMAGES.astype('u2'), TypeError, r'uint16 .*x >> 8'),
    (_IMAGES > 9, TypeError, 'bool .*Convert'),
    (_IMAGES.astype(str), TypeError, 'found <U3'),
    (_IMAGES[:, 0, 0, 0], ValueError, 'last axis of 1'),
    (_IMAGES[:0], ValueError, r'shape \(0, 6, 5, 3\)'),
  ],
)
def test_what_is_no_image_is_refused(pixels, error, message):
  with pytest.raises(error, match='mine: .*' + message):
    inputs.examine(pixels, 'mine')


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(value):
  pixels = _IMAGES.astype(np.float32)
  pixels[[8, 30], 2, 2, 1] = value
  with pytest.raises(ValueError, match='2 of 50 images hold NaN .*example 8'):
    inputs.examine(pixels, 'x')


def _range(low, high, dtype='float32', normalization='half', **options):
  found = inputs.Examined(low, high, 0, None, 5)
  spec = input_spec.InputSpec((4, 4, 1), dtype, **options)
  return ''.join(inputs.range_notices(found, spec, normalization, 'x'))


def test_ranges_that_models_cannot_use():
  as_it_is = dict(scale=1.0, offset=0.0)
  for low, high in ((0, 1), (-1, 1), (-3, 3), (-0.5, 0.5)):
    assert not _range(low, high, **as_it_is)
  assert 'from 0 to 255 as models see them' in _range(0, 255, **as_it_is)
  assert 'Divide them by 255' in _range(0, 255, **as_it_is)
  assert 'Scale them to [0, 1]' in _range(-1000, 3000, **as_it_is)
  # A ClientData of such images.
  assert 'from -1 to 509 as' in _range(0, 255, scale=2.0, offset=-1.0)
  assert not _range(0, 255, 'uint8') and not _range(0, 16, 'uint8', scale=1 / 8)
  # [0, 1] stored as uint8, and 12 bits in files of 16.
  assert 'nearly alike' in _range(0, 1, 'uint8')
  assert 'nearly alike' in _range(0, 15, 'uint8')
  for high in (1, 255, 1e9):
    assert not _range(0, high, normalization='dataset', **as_it_is)
  per_channel = dict(scale=(1.0, 300.0), offset=(0.0, 0.0))
  spec = input_spec.InputSpec((4, 4, 2), 'float32', **per_channel)
  found = inputs.Examined(0.0, 1.0, 0, None, 5)
  assert 'to 300 as models' in inputs.range_notices(found, spec, 'half', 'x')[0]


def test_channels_first_give_a_notice():
  found = inputs.examine(_IMAGES, 'x')
  for shape in ((3, 32, 32), (1, 28, 28)):
    assert 'channels first' in inputs.notices(found, shape, 'x')[0]
  for shape in ((32, 32, 3), (3, 3, 3), (28, 28, 1), (1, 8, 3)):
    assert inputs.notices(found, shape, 'x') == ()
