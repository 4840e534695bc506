"""Folders of images: what is read, and what is said of the rest."""

import os

import numpy as np
import PIL.Image
import pytest

from tests.data import made_up_files
from tff_fedsa.data import datasets
from tff_fedsa.data import partition
from tff_fedsa.data import tasks
from tff_fedsa.data.readers import folders


def _read(path, dataset='image_folder'):
  return datasets.load(dataset, data_dir=str(path), image_size=4)


def _image(path, kind=None, color=(200, 0, 0)):
  path.parent.mkdir(parents=True, exist_ok=True)
  PIL.Image.new('RGB', (4, 4), color).save(path, kind)


def test_every_ending_of_images_is_read(tmp_path):
  kinds = dict(jfif='JPEG', jpe='JPEG', jp2='JPEG2000', pnm='PPM', pbm='PPM')
  for ending in folders.IMAGE_ENDINGS:
    kind = kinds.get(ending[1:])
    _image(tmp_path / 'cat' / f'lower{ending}', kind)
    _image(tmp_path / 'dog' / f'upper{ending.upper()}', kind)
  source = _read(tmp_path)
  count = len(folders.IMAGE_ENDINGS)
  assert np.bincount(source.labels).tolist() == [count, count]
  assert np.abs(source.images[..., 0].astype(int) - 200).max() < 4
  assert not [notice for notice in source.notices if 'left out' in notice]


def test_what_is_left_out_is_counted_and_named(tmp_path):
  made_up_files.image_folder(tmp_path)
  for name in ('a.avif', 'b.AVIF', 'c.txt', 'd'):
    (tmp_path / 'cat' / name).write_text('')
  for name in ('more/0.png', 'more/deeper/1.jpg'):
    _image(tmp_path / 'dog' / name)
  _image(tmp_path / 'loose.png')
  source = _read(tmp_path)
  assert source.labels.tolist() == [0, 0, 0, 1, 1, 1]
  notices = '\n'.join(source.notices)
  for part in (
    r'left out 4 files that are no images by their ending (2 of .avif, 1 of .tx'
    r't, 1 of no ending), e.g. ',
    "left out 2 images in folders within class folders, e.g. '",
    "dog/more'",
    "left out 1 images in no class folder, e.g. '",
    "loose.png'",
  ):
    assert part in notices
  drawn = partition.Partition(([0, 3],), ([1, 4],))
  report = tasks.report(tasks.task_from_source(source, drawn))
  assert all(notice in report for notice in source.notices)


def test_leftovers_of_systems_are_passed_over(tmp_path):
  made_up_files.image_folder(tmp_path)
  before = _read(tmp_path)
  for name in (
    '__MACOSX/cat/._0.png',
    '.git/x.png',
    'cat/._0.png',
    'cat/.DS_Store',
    'cat/Thumbs.db',
    'cat/desktop.ini',
    'cat/__MACOSX/._1.png',
    'cat/.ipynb_checkpoints/0.png',
    'dog/@eaDir/0.png',
  ):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b'no image')
  after = _read(tmp_path)
  np.testing.assert_array_equal(before.images, after.images)
  assert before.notices == after.notices


def test_a_class_of_nested_images_only_is_refused_with_the_reason(tmp_path):
  made_up_files.image_folder(tmp_path)
  _image(tmp_path / 'emu' / 'more' / '0.png')
  with pytest.raises(
    ValueError, match=r"emu' has no image but in folders within it \(1\)"
  ):
    _read(tmp_path)


def test_names_that_are_not_utf8(tmp_path):
  made_up_files.image_folder(tmp_path / 'data')
  folder = os.path.join(os.fsencode(tmp_path / 'data'), b'h\xfchner')
  os.mkdir(folder)
  image = (tmp_path / 'data' / 'cat' / '0.png').read_bytes()
  with open(os.path.join(folder, b'f\xfc.png'), 'wb') as file:
    file.write(image)
  cache_dir = str(tmp_path / 'cache')
  for _ in range(2):
    source = datasets.load(
      'image_folder', data_dir=str(tmp_path / 'data'), cache_dir=cache_dir
    )
    assert source.class_names == ('cat', 'dog', 'h\\xfchner')
    assert ''.join(source.class_names).encode()
  with open(os.path.join(folder, b'f\xfc.png'), 'wb') as file:
    file.write(b'broken')
  with pytest.raises(ValueError, match=r'f\\udcfc.png. is not a') as error:
    _read(tmp_path / 'data')
  assert str(error.value).encode()


def _split(path, *parts, classes=('cat', 'dog'), images=2):
  for part in parts:
    made_up_files.image_folder(path / part, classes, images)


@pytest.mark.parametrize(
  'parts, num_train, notice',
  [
    (('train', 'test'), 4, "'train' is its original train set, 'test' its"),
    (('Training', 'Testing'), 4, "'Training' is its original train set"),
    (('train', 'val'), 4, "'train' is its original train set, 'val' its orig"),
    (('train', 'valid', 'test'), 8, "'train' with 'valid' is its original"),
  ],
)
def test_folders_of_a_split_are_recognised(tmp_path, parts, num_train, notice):
  _split(tmp_path, *parts)
  source = _read(tmp_path)
  assert source.num_train == num_train
  assert source.class_names == ('cat', 'dog')
  assert source.labels.tolist() == [0, 0, 1, 1] * len(parts)
  # Red is the class in each part.
  np.testing.assert_array_equal(
    source.images[:, 0, 0, 0], 200 * np.array([0, 0, 1, 1] * len(parts))
  )
  assert notice in source.notices[0]
  task = tasks.load_task(
    tasks.TaskSpec(
      data_dir=str(tmp_path),
      dataset='image_folder',
      partition='iid',
      num_clients=1,
      test_set='original',
    )
  )
  assert len(task.clients[0].test['y']) == 4


def test_classes_of_a_split(tmp_path):
  _split(tmp_path, 'train', classes=('cat', 'dog', 'emu'))
  _split(tmp_path, 'test', classes=('dog',))
  source = _read(tmp_path)
  assert source.labels.tolist() == [0, 0, 1, 1, 2, 2, 1, 1]
  _split(tmp_path, 'test', classes=('fox',))
  with pytest.raises(
    ValueError, match=r"test set has classes that .* has not: \['fox'\]"
  ):
    _read(tmp_path)


def test_a_test_folder_without_labels_is_left_out_with_a_notice(tmp_path):
  _split(tmp_path, 'train')
  _image(tmp_path / 'test' / '0.png')
  source = _read(tmp_path)
  assert source.num_train is None and len(source.labels) == 4
  assert 'there is no original test set' in source.notices[0]
  assert 'left out 1 images without labels' in source.notices[1]
  _split(tmp_path, 'val')
  source = _read(tmp_path)
  assert source.num_train == 4 and len(source.labels) == 8
  assert "'val' its original test set" in source.notices[0]


def test_classes_that_are_called_like_parts_stay_classes(tmp_path):
  _split(tmp_path, '.', classes=('test', 'train'))
  source = _read(tmp_path)
  assert source.class_names == ('test', 'train') and source.num_train is None


def test_images_that_a_table_does_not_name_are_counted(tmp_path):
  path = made_up_files.ham10000(tmp_path)
  _image(tmp_path / 'HAM10000_images_part_1' / 'ISIC_9999999.jpg')
  (notice,) = (n for n in _read(path, 'ham10000').notices if 'left' in n)
  assert 'left out 1 images that the table does not name' in notice
