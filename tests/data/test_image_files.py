"""Image files: every mode of Pillow is right, or refused by name."""

import os
import warnings

import numpy as np
import PIL.Image
import pytest

from tff_fedsa.data import image_files

_GREY = np.array([[0, 90], [180, 255]], np.uint8)


def _read(path, image, *, size=2, **options):
  # Pillow's warnings are of files that it reads all the same.
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    image.save(path)
    return image_files.read([str(path)], size, **options).images[0]


@pytest.mark.parametrize('ending', ['png', 'tif', 'bmp', 'ppm', 'pgm', 'gif'])
def test_eight_bits_are_as_they_were(tmp_path, ending):
  pixels = _read(tmp_path / f'a.{ending}', PIL.Image.fromarray(_GREY))
  np.testing.assert_array_equal(pixels, _GREY[..., np.newaxis].repeat(3, -1))


@pytest.mark.parametrize(
  'ending, dtype',
  [('png', 'u2'), ('tif', '<u2'), ('tif', '>u2'), ('tif', 'i4'), ('pgm', 'u2')],
)
def test_sixteen_bits_are_scaled(tmp_path, ending, dtype):
  # 40 is darker than one of 255 steps.
  values = np.array([[40, 90 * 256], [180 * 256 + 255, 65535]])
  path = tmp_path / f'a.{ending}'
  if ending == 'pgm':
    path.write_bytes(b'P5 2 2 65535 ' + values.astype('>u2').tobytes())
    pixels = image_files.read([str(path)], 2).images[0]
  else:
    mode = 'I;16B' if dtype == '>u2' else None
    image = (
      PIL.Image.frombytes(mode, (2, 2), values.astype(dtype).tobytes())
      if mode
      else PIL.Image.fromarray(values.astype(dtype))
    )
    pixels = _read(path, image)
  np.testing.assert_array_equal(pixels[..., 0], _GREY)
  np.testing.assert_array_equal(pixels[..., 0], pixels[..., 2])


def test_real_pixels_are_scaled(tmp_path):
  image = PIL.Image.fromarray((_GREY / 255).astype(np.float32))
  pixels = _read(tmp_path / 'a.tif', image)
  np.testing.assert_array_equal(pixels[..., 0], _GREY)


@pytest.mark.parametrize(
  'values, message',
  [
    (np.array([[0, 70000]], np.int32), 'whole numbers from 0 to 70000'),
    (np.array([[-5, 7]], np.int32), 'whole numbers from -5 to 7'),
    (np.array([[0, 255]], np.float32), 'from 0 to 255, expected 0 to 1'),
    (np.array([[0, np.nan]], np.float32), 'real numbers from nan'),
  ],
)
def test_pixels_out_of_range_are_refused_by_name(tmp_path, values, message):
  with pytest.raises(ValueError, match=f'a.tif.* is not a .*{message}'):
    _read(tmp_path / 'a.tif', PIL.Image.fromarray(values))


def _transparent(mode):
  """Black lines on transparent ground: the left half is opaque."""
  alpha = np.array([[255, 0], [255, 0]], np.uint8)
  image = PIL.Image.fromarray(
    np.stack([np.zeros_like(alpha), alpha], axis=-1), 'LA'
  )
  if mode == 'P':
    palette = PIL.Image.new('P', (2, 2))
    palette.putpalette([0, 0, 0, 9, 9, 9])
    palette.putdata([0, 1, 0, 1])
    palette.info['transparency'] = 1
    return palette
  if mode in ('L', 'RGB'):
    grey = PIL.Image.fromarray(np.array([[0, 9], [0, 9]], np.uint8))
    grey = grey.convert(mode)
    grey.info['transparency'] = 9 if mode == 'L' else (9, 9, 9)
    return grey
  return image.convert(mode)


@pytest.mark.parametrize('mode', ['RGBA', 'LA', 'P', 'L', 'RGB'])
def test_transparent_pixels_show_the_background(tmp_path, mode):
  path = tmp_path / 'a.png'
  pixels = _read(path, _transparent(mode))
  assert pixels[:, 0].max() == 0 and pixels[:, 1].min() == 255
  red = _read(path, _transparent(mode), alpha_background='#ff0010')
  assert red[0].tolist() == [[0, 0, 0], [255, 0, 16]]
  black = _read(path, _transparent(mode), alpha_background='black')
  assert not black.any()


def test_half_transparent_pixels_are_mixed(tmp_path):
  image = PIL.Image.new('RGBA', (1, 1), (100, 0, 200, 128))
  pixels = _read(tmp_path / 'a.png', image, size=1)
  # 100 * 128 / 255 + 255 * 127 / 255, and so on.
  np.testing.assert_allclose(pixels[0, 0], [177, 127, 227], atol=1)


def test_opaque_images_with_alpha_are_as_they_were(tmp_path):
  rng = np.random.default_rng(0)
  colors = rng.integers(0, 256, (8, 8, 3), np.uint8)
  image = PIL.Image.fromarray(colors)
  image.putalpha(255)
  pixels = _read(tmp_path / 'a.png', image, size=8, alpha_background='red')
  np.testing.assert_array_equal(pixels, colors)


def test_unknown_colours_are_refused(tmp_path):
  with pytest.raises(ValueError, match="Unknown colour 'whit'; expected"):
    _read(
      tmp_path / 'a.png', PIL.Image.new('RGB', (1, 1)), alpha_background='whit'
    )


def test_backgrounds_have_entries_of_their_own_in_the_cache(tmp_path):
  for colour, value in (('white', 255), ('black', 0), ('white', 255)):
    pixels = _read(
      tmp_path / 'a.png',
      PIL.Image.new('RGBA', (1, 1)),
      size=1,
      cache_dir=str(tmp_path / 'cache'),
      alpha_background=colour,
    )
    assert pixels.max() == value
  assert len(os.listdir(tmp_path / 'cache')) == 2


@pytest.mark.parametrize('ending', ['tif', 'gif', 'webp'])
def test_stacks_give_a_notice_cached_or_not(tmp_path, ending):
  path = tmp_path / f'a.{ending}'
  pages = [PIL.Image.new('RGB', (4, 4), color) for color in ('red', 'blue')]
  pages[0].save(path, save_all=True, append_images=pages[1:], lossless=True)
  for _ in range(2):
    decoded = image_files.read(
      [str(path)], 4, cache_dir=str(tmp_path / 'cache')
    )
    assert decoded.images[0, 0, 0].tolist() == [255, 0, 0]
    (notice,) = decoded.notices
    assert '1 files hold several images' in notice and str(path) in notice
