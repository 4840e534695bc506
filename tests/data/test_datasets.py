"""Data sets by name, on small made-up files in each layout."""

import os

import numpy as np
import PIL.Image
import pytest
import tensorflow_datasets

from tests.data import made_up_files
from tff_fedsa.data import datasets
from tff_fedsa.data import partition
from tff_fedsa.data.readers import npz_file
from tff_fedsa.data.readers import tfds


def test_every_name_has_a_reader(tmp_path):
  for name in datasets.NAMES:
    own = (*datasets.SHIPPED, *datasets.TABLES, *datasets.NATURAL_NAMES, 'tfds')
    if name not in own:
      # Missing everywhere: each says so itself.
      with pytest.raises(FileNotFoundError, match='nowhere'):
        datasets.load(name, data_dir=str(tmp_path / 'nowhere'))
  assert len(datasets.load('digits').labels) == 1797
  with pytest.raises(ValueError, match='known: digits, breast'):
    datasets.load('imagenet')


@pytest.mark.parametrize('name', datasets.FOLDERS)
def test_what_is_missing_is_told_with_its_layout(name, tmp_path):
  about = datasets.FOLDERS[name].about
  assert 'ay it out' in about or 'folder' in about or 'Write' in about
  with pytest.raises(ValueError) as unset:
    datasets.load(name)
  assert 'needs data_dir' in str(unset.value) and about in str(unset.value)
  with pytest.raises(FileNotFoundError) as missing:
    datasets.load(name, data_dir=str(tmp_path / 'nowhere'))
  assert about in str(missing.value)


def test_image_folder(tmp_path):
  path = made_up_files.image_folder(tmp_path)
  source = datasets.load('image_folder', data_dir=path, image_size=8)
  assert source.class_names == ('cat', 'dog')
  assert source.labels.tolist() == [0, 0, 0, 1, 1, 1]
  assert source.images.shape == (6, 8, 8, 3)
  assert source.images[5, 0, 0].tolist() == [200, 0, 2]
  assert source.domains is None and source.num_train is None
  (tmp_path / 'ant').mkdir()
  with pytest.raises(ValueError, match="ant' has no image .* Remove it"):
    datasets.load('image_folder', data_dir=path)


def test_domains(tmp_path):
  path = made_up_files.domain_folder(tmp_path)
  source = datasets.load('office_caltech10', data_dir=path)
  assert source.images.shape == (24, 64, 64, 3)
  assert source.domain_names == made_up_files.OFFICE_DOMAINS
  assert source.class_names == ('bike', 'mug')
  assert source.domains.dtype == source.labels.dtype == np.int32
  # What is drawn says where it comes from.
  red, green, _ = source.images[:, 0, 0].T
  np.testing.assert_array_equal(source.domains, red // 10)
  np.testing.assert_array_equal(source.labels, green // 10)
  made_up_files.image(str(tmp_path / 'dslr' / 'back_pack' / '0.png'), 'red')
  with pytest.raises(
    ValueError, match=r"'amazon' and 'dslr' differ in \['back_pack'\]"
  ):
    datasets.load('office_caltech10', data_dir=path)


def test_digits5_is_read_the_same_way(tmp_path):
  names = ('mnist', 'mnist_m', 'svhn', 'syn', 'usps')
  path = made_up_files.domain_folder(tmp_path, names, tuple('0123456789'), 1)
  source = datasets.load('digits5', data_dir=path)
  assert source.domain_names == names
  assert source.images.shape == (50, 32, 32, 3)
  assert np.bincount(source.domains).tolist() == [10] * 5


def test_tiny_imagenet(tmp_path):
  path = made_up_files.tiny_imagenet(tmp_path)
  source = datasets.load('tiny_imagenet', data_dir=path)
  assert source.images.shape == (18, 64, 64, 3) and source.num_train == 12
  assert source.class_names == ('n01', 'n02', 'n03')
  red, _, blue = source.images[:, 0, 0].astype(int).T
  # JPEG is not exact.
  np.testing.assert_array_equal(source.labels, np.rint(red / 80))
  np.testing.assert_array_equal(blue > 100, np.arange(18) >= 12)
  # Regrouped: by class, as the train images are.
  assert source.labels[12:].tolist() == [0, 0, 1, 1, 2, 2]


def test_wrong_annotations_of_tiny_imagenet(tmp_path):
  path = made_up_files.tiny_imagenet(tmp_path)
  annotations = tmp_path / 'val' / 'val_annotations.txt'
  text = annotations.read_text()
  for wrong, message in (
    (text.replace('n03', 'n04'), "line 3: unknown class 'n04'"),
    (text.replace('val_5', 'val_6'), "line 6: there is no .* 'val_6.JPEG'"),
    (text.partition('\n')[0], 'nothing about 5 images'),
    (text.replace('\t', ' '), 'line 1: expected an image, a tab and'),
  ):
    annotations.write_text(wrong)
    with pytest.raises(ValueError, match=message):
      datasets.load('tiny_imagenet', data_dir=path)
  annotations.unlink()
  with pytest.raises(FileNotFoundError, match='No annotations.*CS231n'):
    datasets.load('tiny_imagenet', data_dir=path)


def test_ham10000(tmp_path):
  path = made_up_files.ham10000(tmp_path)
  source = datasets.load('ham10000', data_dir=path, image_size=16)
  assert source.images.shape == (14, 16, 16, 3) and source.num_train is None
  assert source.class_names == made_up_files.LESIONS
  assert source.labels.tolist() == [*range(7)] * 2
  red = source.images[:, 0, 0, 0]
  np.testing.assert_array_equal(source.labels, np.rint(red / 30))
  table = tmp_path / 'HAM10000_metadata.csv'
  text = table.read_text()
  table.write_text(text.replace('mel', 'melanoma'))
  with pytest.raises(
    ValueError, match="line 6: unknown class 'melanoma' of 'ISIC_0000004'"
  ):
    datasets.load('ham10000', data_dir=path)
  table.write_text(text.replace(',dx,', ',diagnosis,'))
  with pytest.raises(ValueError, match='columns image_id and dx, found'):
    datasets.load('ham10000', data_dir=path)
  table.write_text(text)
  os.remove(tmp_path / 'HAM10000_images_part_2' / 'ISIC_0000013.jpg')
  with pytest.raises(FileNotFoundError, match='1 images .*ISIC_0000013.*Harv'):
    datasets.load('ham10000', data_dir=path)
  table.unlink()
  with pytest.raises(FileNotFoundError, match='No table .*Harvard'):
    datasets.load('ham10000', data_dir=path)


@pytest.mark.parametrize('content', [b'no image', b'', None])
def test_broken_images_are_named(tmp_path, content):
  path = made_up_files.domain_folder(tmp_path / 'data')
  cache_dir = str(tmp_path / 'cache')
  broken = tmp_path / 'data' / 'webcam' / 'mug' / '1.png'
  if content is None:
    # Cut off in the middle.
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    PIL.Image.fromarray(noise).save(broken)
    content = broken.read_bytes()[:2000]
  broken.write_bytes(content)
  with pytest.raises(
    ValueError, match='webcam/mug/1.png.* is not a readable image'
  ):
    datasets.load('domain_folder', data_dir=path, cache_dir=cache_dir)
  # Nothing half made is left, and what is mended is read.
  assert os.listdir(cache_dir) == []
  made_up_files.image(str(broken), 'red')
  datasets.load('domain_folder', data_dir=path, cache_dir=cache_dir)


def test_wrong_files_of_arrays_are_refused(tmp_path):
  path = tmp_path / 'own.npz'
  np.savez(path, x=np.zeros([6, 4, 4, 3], int), y=np.arange(6) % 3)
  with pytest.raises(ValueError, match=r'found int64 .*astype\(np.uint8\)'):
    npz_file.read(str(path))
  path.write_text('no arrays')
  with pytest.raises(ValueError, match='own.npz.* is not an .npz file'):
    npz_file.read(str(path))


@pytest.fixture(scope='module')
def mocked():
  """Random images, but TFDS's own reading code and metadata."""
  with tensorflow_datasets.testing.mock_data(num_examples=12):
    yield


@pytest.mark.parametrize(
  'name, shape, num_classes',
  [
    ('cifar100', (32, 32, 3), 100),
    ('fashion_mnist', (28, 28, 1), 10),
    ('svhn_cropped', (32, 32, 3), 10),
    ('emnist', (28, 28, 1), 62),
    ('emnist/balanced', (28, 28, 1), 47),
  ],
)
def test_tfds(mocked, name, shape, num_classes):
  source = tfds.read(name, download=True)
  assert source.images.shape == (24, *shape)
  assert source.num_train == 12 and source.num_classes == num_classes
  if name == 'fashion_mnist':
    assert source.class_names[-1] == 'Ankle boot'


def test_tfds_images_of_different_sizes_are_resized(mocked):
  source = tfds.read('sun397', download=True, image_size=20)
  # Train, validation and test.
  assert source.images.shape == (36, 20, 20, 3) and source.num_train == 24
  assert source.num_classes == 397


def _one_by_one(images, labels):
  """Stands for TFDS's generator of examples."""

  def as_dataset(self, *unused_args, **unused_kwargs):
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(
      dict(image=images, label=np.asarray(labels, np.int64))
    )

  return as_dataset


def test_emnist_is_turned_upright_and_letters_count_from_zero():
  images = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 1), np.uint8)
  with tensorflow_datasets.testing.mock_data(
    as_dataset_fn=_one_by_one(images, [1, 2, 26])
  ):
    source = tfds.read('emnist/letters', download=True)
  assert source.labels.tolist() == [0, 1, 25] * 2
  assert source.class_names == tuple('abcdefghijklmnopqrstuvwxyz')
  np.testing.assert_array_equal(source.images[:3], images.swapaxes(1, 2))


def test_partition_files_may_name_tfds_own_ids(tmp_path):
  ids = {'train': [2, 0, 3, 1], 'test': [1, 0]}

  def as_dataset(self, split, **unused_options):
    import tensorflow as tf

    count = len(ids[split])
    return tf.data.Dataset.from_tensor_slices(
      dict(
        image=np.zeros((count, 32, 32, 3), np.uint8),
        label=np.arange(count) % 10,
        id=[f'{split}_{number:05d}' for number in ids[split]],
      )
    )

  path = str(tmp_path / 'partition.npz')
  np.savez(
    path,
    train_0=np.array(['train_00000', 'train_00001']),
    test_0=np.array(['test_00000']),
  )
  with tensorflow_datasets.testing.mock_data(as_dataset_fn=as_dataset):
    source = tfds.read('cifar10', download=True)
    assert source.ids_fn().tolist()[:2] == ['train_00002', 'train_00000']
    loaded = partition.load(
      path, labels=source.labels, order=source.order, ids_fn=source.ids_fn
    )
  assert source.order == 'cifar10, as TFDS has them, train before test'
  assert loaded.train[0].tolist() == [1, 3]
  assert loaded.test[0].tolist() == [5] and not loaded.notices
  assert datasets.load('digits').ids_fn is None


def test_tfds_that_is_missing_fails_at_once(tmp_path):
  with pytest.raises(FileNotFoundError, match='--download'):
    datasets.load('cifar10', data_dir=str(tmp_path))
  with pytest.raises(FileNotFoundError, match='No data directory'):
    datasets.load('cifar10', data_dir=str(tmp_path / 'nowhere'))
