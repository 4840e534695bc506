"""Tasks: a source, dealt out to clients."""

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from tests import golden
from tests.data import made_up_files
from tff_fedsa.data import array_cache
from tff_fedsa.data import datasets
from tff_fedsa.data import input_spec
from tff_fedsa.data import partition
from tff_fedsa.data import sources
from tff_fedsa.data import tasks
from tff_fedsa.data import testing


def _images(count, shape=(4, 4, 3), seed=0):
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, (count, *shape)).astype(np.uint8)


def test_digits_task():
  task = tasks.load_task(tasks.TaskSpec(seed=1))
  assert task.num_clients == 20 and task.num_classes == 10
  assert task.class_counts().sum() == sum(map(len, task.partition.train))
  first = task.clients[0].train
  assert first['x'].dtype == np.uint8 and first['x'].shape[1:] == (8, 8, 1)
  seen = task.input_spec.preprocess(tf.constant(first['x'])).numpy()
  expected = (first['x'].astype(np.float64) / 16 - 0.5) / 0.5
  np.testing.assert_allclose(seen, expected, atol=1e-7)


def test_resizing_and_channels_in_the_step():
  spec = tasks.TaskSpec(image_size=32, channels=3)
  task = tasks.load_task(spec)
  assert task.input_spec.shape == (8, 8, 1)
  assert task.input_spec.model_shape == (32, 32, 3)
  # A step edge between two pixels of value 0 and 16, enlarged four times with
  # half-pixel centers: weights 1/8, 3/8, 5/8, 7/8 across the edge.
  image = np.zeros((1, 8, 8, 1), np.uint8)
  image[:, :, 4:] = 16
  seen = task.input_spec.preprocess(tf.constant(image)).numpy()
  np.testing.assert_allclose(
    seen[0, 0, 13:19, 0], [-1, -0.75, -0.25, 0.25, 0.75, 1], atol=1e-6
  )
  np.testing.assert_array_equal(seen[..., 0], seen[..., 2])


def test_max_examples_keeps_class_proportions():
  task = tasks.load_task(tasks.TaskSpec(max_examples=500, num_clients=5))
  labels = np.concatenate(
    [part['y'] for client in task.clients for part in client]
  )
  assert len(labels) == 500
  assert np.abs(np.bincount(labels) - 50).max() <= 2


def test_own_arrays_and_original_test_set(tmp_path):
  path = str(tmp_path / 'own.npz')
  labels = np.arange(60) % 3
  np.savez(path, x=_images(60), y=labels, num_train=45)
  task = tasks.load_task(
    tasks.TaskSpec(
      dataset='npz',
      data_dir=path,
      partition='iid',
      num_clients=5,
      test_set='original',
    )
  )
  assert [len(c.train['y']) for c in task.clients] == [9] * 5
  assert all(c.test is task.clients[0].test for c in task.clients)
  np.testing.assert_array_equal(task.clients[3].test['y'], labels[45:])


def test_large_images_stay_on_disk(tmp_path, monkeypatch):
  def load(test_set):
    return tasks.load_task(
      tasks.TaskSpec(
        dataset='tiny_imagenet',
        data_dir=str(tmp_path / 'data'),
        cache_dir=str(tmp_path / 'cache'),
        partition='iid',
        num_clients=4,
        test_set=test_set,
      )
    )

  made_up_files.tiny_imagenet(tmp_path / 'data', images=12)
  for test_set in ('split', 'original'):
    monkeypatch.setattr(array_cache, '_LARGE_BYTES', 2**30)
    in_memory = load(test_set)
    monkeypatch.setattr(array_cache, '_LARGE_BYTES', 100)
    mapped = load(test_set)
    for one, two in zip(in_memory.clients, mapped.clients, strict=True):
      assert two.train['x'] is not two.train['x']
      assert not isinstance(two.train['x'], np.memmap)
      for part in ('train', 'test'):
        for name in ('x', 'y'):
          np.testing.assert_array_equal(
            getattr(one, part)[name], getattr(two, part)[name]
          )
    np.testing.assert_array_equal(
      in_memory.class_counts(), mapped.class_counts()
    )
    changed = testing.without_tests(mapped, [1]).clients
    assert [len(client.test['y']) for client in changed][1] == 0
    np.testing.assert_array_equal(
      changed[1].train['x'], mapped.clients[1].train['x']
    )
    # What clients share is read once.
    first, second = (client.test['x'] for client in mapped.clients[:2])
    assert (first is second) == (test_set == 'original')


def test_the_background_of_transparent_images_is_a_setting(tmp_path):
  for name in ('cat/0.png', 'cat/1.png', 'dog/0.png', 'dog/1.png'):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    PIL.Image.new('RGBA', (4, 4)).save(path)

  def spec(**options):
    return tasks.TaskSpec(
      dataset='image_folder',
      data_dir=str(tmp_path),
      cache_dir='none',
      partition='iid',
      num_clients=1,
      **options,
    )

  for options, value in ((dict(alpha_background='#000'), 0), ({}, 255)):
    task = tasks.load_task(spec(**options))
    assert (task.clients[0].train['x'] == value).all()
  with pytest.raises(
    ValueError, match="alpha_background: Unknown colour 'whi'"
  ):
    spec(alpha_background='whi')
  assert 'alpha_background' not in spec().without_effect()
  assert 'alpha_background' in tasks.TaskSpec().without_effect()


def test_how_models_see_images():
  task = tasks.load_task(
    tasks.TaskSpec(
      normalization='dataset', augment_crop_padding=1, augment_flip=True
    )
  )
  images = np.concatenate(
    [
      part['x']
      for client in task.clients
      for part in (client.train, client.test)
    ]
  )
  seen = task.input_spec.preprocess(tf.constant(images)).numpy()
  assert abs(seen.mean()) < 1e-4 and abs(seen.std() - 1.0) < 1e-4
  assert task.input_spec.crop_padding == 1 and task.input_spec.flip


def test_partition_file(tmp_path):
  task = tasks.load_task(tasks.TaskSpec(seed=4))
  path = str(tmp_path / 'partition.npz')
  task.partition.save(path)
  again = tasks.load_task(tasks.TaskSpec(partition_file=path))
  for one, two in zip(task.clients, again.clients):
    np.testing.assert_array_equal(one.train['x'], two.train['x'])
    np.testing.assert_array_equal(one.test['y'], two.test['y'])
  assert task.notices == again.notices == ()


def test_a_partition_file_of_another_order_is_refused(tmp_path):
  # Sorted by class instead: clients of one class would become nearly iid.
  digits = datasets.load('digits')
  order = np.argsort(digits.labels, kind='stable')
  path, data = str(tmp_path / 'partition.npz'), str(tmp_path / 'sorted.npz')
  tasks.load_task(tasks.TaskSpec()).partition.save(path)
  np.savez(data, x=digits.images[order], y=digits.labels[order])
  spec = tasks.TaskSpec(dataset='npz', data_dir=data, partition_file=path)
  with pytest.raises(
    ValueError, match=r"npz' was made for .* count digits, .*in another order"
  ):
    tasks.load_task(spec)
  np.savez(data, x=digits.images[:100], y=digits.labels[:100])
  with pytest.raises(ValueError, match=r'\(100 examples\), other labels'):
    tasks.load_task(spec)


def test_a_partition_file_without_an_origin_gives_a_notice():
  task = tasks.load_task(
    tasks.TaskSpec(
      partition_file=str(
        golden.TESTDATA / 'reference_runs' / 'digits_a0.1_s0.npz'
      )
    )
  )
  (notice,) = task.notices
  assert 'does not say which data set' in notice
  assert notice in tasks.report(task)


@pytest.mark.parametrize('dtype', ['u1', 'i1', 'u2', 'u4', 'i8', 'u8', 'f4'])
def test_the_dtype_of_labels_makes_no_difference(tmp_path, dtype):
  path = str(tmp_path / 'own.npz')
  labels = np.arange(60) % 4
  np.savez(path, x=_images(60), y=labels.astype(dtype))
  task = tasks.load_task(
    tasks.TaskSpec(dataset='npz', data_dir=path, num_clients=3, alpha=5.0)
  )
  assert task.num_classes == 4 and task.notices == ()
  drawn = partition.draw(labels, 'dirichlet', 3, seed=0, alpha=5.0)
  np.testing.assert_array_equal(task.partition.train[0], drawn.train[0])


def test_ids_as_labels_become_classes_with_a_notice(tmp_path):
  path = str(tmp_path / 'own.npz')
  ids = np.array([80331, 10115, 20095])[np.arange(60) % 3]
  np.savez(path, x=_images(60), y=ids)
  spec = tasks.TaskSpec(
    dataset='npz', data_dir=path, num_clients=3, partition='iid'
  )
  task = tasks.load_task(spec)
  assert task.class_names == ('10115', '20095', '80331')
  report = tasks.report(task)
  assert 'own.npz: the 3 distinct labels are not 0 to 2.' in report
  for client in task.clients:
    assert set(client.train['y']) == {0, 1, 2}


def test_pixels_beyond_what_models_see_give_a_notice(tmp_path):
  path = str(tmp_path / 'own.npz')
  np.savez(path, x=_images(60).astype(np.float32), y=np.arange(60) % 3)

  def report(**options):
    spec = tasks.TaskSpec(
      dataset='npz', data_dir=path, num_clients=3, partition='iid', **options
    )
    return tasks.report(tasks.load_task(spec))

  assert 'pixels from 0 to 255 (float32) are from 0 to 255' in report()
  assert 'Divide them by 255' in report()
  assert 'pixels' not in report(normalization='dataset')
  np.savez(path, x=_images(60) / np.float32(255), y=np.arange(60) % 3)
  assert 'pixels' not in report()
  np.savez(path, x=_images(60) // 128, y=np.arange(60) % 3)
  assert 'images look nearly alike' in report()


def test_report():
  labels = np.array([0] * 20 + [1] * 20 + [2] * 4)
  source = sources.from_arrays(_images(44), labels, num_classes=4)
  parts = partition.Partition(
    train=(np.arange(0, 12), np.arange(20, 30), np.arange(40, 43)),
    test=(np.arange(12, 20), np.arange(30, 40), np.array([43])),
  )
  text = tasks.report(tasks.task_from_source(source, parts), batch_size=10)
  assert '3 clients, 4 classes, 25 train examples' in text
  assert '3 client(s) have a single class: 0, 1, 2' in text
  assert '1 client(s) have fewer examples than a batch of 10: 2' in text
  assert 'no client trains on the class(es) 3' in text


def test_bad_domains_are_named():
  def source(domains, names=('a', 'b')):
    return sources.Source(
      'x',
      _images(3),
      np.array([0, 1, 1]),
      ('c', 'd'),
      domains=domains,
      domain_names=names,
    )

  assert source(np.array([0, 1, 1])).domains.dtype == np.int32
  assert source(None, ()).domains is None
  for domains, message in (
    (np.array([0, 1, 2]), r'domains in \[0, 2\), found 2 at example 2'),
    (np.array([0, 1]), 'one domain for each of 3 inputs'),
    (np.array([0, 0.5, 1]), 'integer domains, found 0.5 at example 1'),
    (None, 'without domains'),
  ):
    with pytest.raises(ValueError, match=message):
      source(domains)


@pytest.mark.parametrize(
  'images, labels, error, message',
  [
    (_images(3), [0, 1, 7], ValueError, r'labels in \[0, 2\), found 7 at exam'),
    (_images(3), [0, 1, -1], ValueError, 'found -1 at example 2'),
    (_images(3), [0.0, 1.5, 1.0], ValueError, 'integer labels, found 1.5'),
    (_images(3), [0j, 1j, 1j], TypeError, 'integer labels .*complex128'),
    (_images(3), [0, 1], ValueError, 'one label for each of 3 inputs'),
    (
      np.full((3, 4, 4, 3), np.nan, np.float32),
      [0, 1, 1],
      ValueError,
      '3 of 3 images hold NaN or infinity; the first is example 0',
    ),
    (_images(3).astype(np.int64), [0, 1, 1], TypeError, 'found int64'),
    (_images(3)[:, 0, 0, 0], [0, 1, 1], ValueError, 'last axis of 1'),
  ],
)
def test_bad_arrays_are_named(images, labels, error, message):
  with pytest.raises(error, match=message):
    sources.from_arrays(images, np.array(labels), num_classes=2)


@pytest.mark.parametrize(
  'options, message',
  [
    (dict(dataset='imagenet'), 'known: digits, breast'),
    (dict(partition='natural'), 'known: iid, dirichlet'),
    (dict(test_set='none'), 'known: split, original'),
    (dict(alpha=0.0), 'alpha > 0'),
    (dict(num_clients=0), 'num_clients >= 1'),
    (dict(train_fraction=1.0), r'train_fraction in \(0, 1\)'),
    (dict(partition_file='p', max_examples=10), 'cannot be used with'),
  ],
)
def test_bad_specs_are_named(options, message):
  with pytest.raises(ValueError, match=message):
    tasks.TaskSpec(**options)


def test_bad_tasks_are_named():
  with pytest.raises(ValueError, match='has no original test set'):
    tasks.load_task(tasks.TaskSpec(test_set='original'))
  with pytest.raises(ValueError, match='needs data_dir'):
    tasks.load_task(tasks.TaskSpec(dataset='npz'))
  with pytest.raises(ValueError, match='has the index 99'):
    tasks.task_from_source(
      sources.from_arrays(_images(4), np.array([0, 1, 0, 1])),
      partition.Partition((np.array([0]),), (np.array([99]),)),
    )
  with pytest.raises(ValueError, match='has the index 7'):
    tasks.task_from_source(
      sources.from_arrays(_images(4), np.array([0, 1, 0, 1])),
      partition.Partition(
        (np.array([0]),), (np.array([1]),), {'all': np.array([7])}
      ),
    )
  spec = input_spec.InputSpec((4, 4, 3))
  good = dict(x=_images(2), y=np.array([0, 1]))
  empty = dict(x=_images(0), y=np.array([], np.int64))
  with pytest.raises(ValueError, match='client 1, train: expected at least'):
    tasks.task_from_clients(
      [tasks.ClientExamples(good, good), tasks.ClientExamples(empty, good)],
      spec,
      ('a', 'b'),
    )
  wrong = dict(x=_images(2, (5, 5, 3)), y=np.array([0, 1]))
  with pytest.raises(ValueError, match=r'client 0, test: .*\(5, 5, 3\)'):
    tasks.task_from_clients(
      [tasks.ClientExamples(good, wrong)], spec, ('a', 'b')
    )
  with pytest.raises(ValueError, match='multiple of the 3 stored'):
    input_spec.InputSpec((4, 4, 3), channels=4)
