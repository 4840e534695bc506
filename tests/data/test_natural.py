"""Data sets of TFF with clients of their own, read from made-up files."""

import collections
import dataclasses
import io
import os

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tff_fedsa.data import datasets
from tff_fedsa.data import natural
from tff_fedsa.data import task_spec
from tff_fedsa.data import tasks


def _sql(path, elements):
  """Writes `{split: {client: dict of arrays}}` as TFF's own files are."""
  parts = []
  for split, clients in elements.items():
    part = str(path) + split
    tff.simulation.datasets.save_to_sql_client_data(
      list(clients),
      lambda name, clients=clients: tf.data.Dataset.from_tensor_slices(
        clients[name]
      ),
      part,
    )
    parts.append((split, part))
  import sqlite3

  with sqlite3.connect(path) as whole:
    for split, part in parts:
      with sqlite3.connect(part) as database:
        for table in ('examples', 'client_metadata'):
          (create,) = database.execute(
            f"SELECT sql FROM sqlite_master WHERE name='{table}'"
          ).fetchone()
          columns = [
            c[1] for c in database.execute(f'PRAGMA table_info({table})')
          ]
          whole.execute(
            create.replace('CREATE TABLE', 'CREATE TABLE IF NOT EXISTS')
          )
          for row in database.execute(f'SELECT * FROM {table}'):
            row = [
              split if column == 'split_name' else value
              for column, value in zip(columns, row)
            ]
            marks = ','.join('?' * len(row))
            whole.execute(f'INSERT INTO {table} VALUES ({marks})', row)
      os.remove(part)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """EMNIST of 4 writers, CIFAR-100 of 3 + 2 clients, landmarks of 3."""
  path = tmp_path_factory.mktemp('tff')
  rng = np.random.default_rng(0)

  def writer(count):
    return collections.OrderedDict(
      label=rng.integers(0, 62, count),
      pixels=rng.random((count, 28, 28)).astype(np.float32),
    )

  writers = [f'f{i}' for i in range(4)]
  _sql(
    path / 'emnist_all.sqlite',
    {
      'all_train': {name: writer(8) for name in writers},
      'all_test': {name: writer(2) for name in writers},
    },
  )

  def photos(count):
    return collections.OrderedDict(
      coarse_label=np.zeros(count, np.int64),
      image=rng.integers(0, 256, (count, 32, 32, 3)),
      label=rng.integers(0, 100, count),
    )

  _sql(
    path / 'cifar100.sqlite',
    {
      'train': {str(i): photos(8) for i in range(3)},
      'test': {str(i): photos(5) for i in range(2)},
    },
  )
  os.makedirs(path / 'gld23k' / 'train')
  for name, count in (
    ('train/7', 4),
    ('train/8', 8),
    ('train/9', 4),
    ('test.tfRecord', 6),
  ):
    with tf.io.TFRecordWriter(str(path / 'gld23k' / name)) as records:
      for index in range(count):
        records.write(_landmark(20 * index, size=(30 + index, 20)))
  return str(path)


def _landmark(label, size):
  encoded = io.BytesIO()
  PIL.Image.new('RGB', size, (label, 0, 0)).save(encoded, 'JPEG')
  features = {
    'image/encoded_jpeg': tf.train.Feature(
      bytes_list=tf.train.BytesList(value=[encoded.getvalue()])
    ),
    'class': tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
  }
  return tf.train.Example(
    features=tf.train.Features(feature=features)
  ).SerializeToString()


def _spec(folder, dataset, **options):
  return task_spec.TaskSpec(
    dataset=dataset, data_dir=folder, num_clients=3, **options
  )


def test_names():
  assert natural.NAMES == datasets.NATURAL_NAMES
  with pytest.raises(ValueError, match='has clients of its own'):
    datasets.load('tff_emnist')


def test_writers_have_test_examples_of_their_own(folder):
  task = tasks.load_task(_spec(folder, 'tff_emnist'))
  assert task.num_clients == 3 and task.num_classes == 62
  assert [len(c.train['y']) for c in task.clients] == [8] * 3
  assert [len(c.test['y']) for c in task.clients] == [2] * 3
  assert task.input_spec.shape == (28, 28, 1)
  # [0, 1] becomes [-1, 1].
  assert (task.input_spec.scale, task.input_spec.offset) == (2.0, -1.0)
  train, test = tff.simulation.datasets.emnist.load_data(
    only_digits=False, cache_dir=folder
  )
  stored = {
    client: [
      np.stack([e['pixels'] for e in part.as_numpy_iterator()])
      for part in (
        train.create_tf_dataset_for_client(client),
        test.create_tf_dataset_for_client(client),
      )
    ]
    for client in train.client_ids
  }
  for client in task.clients:
    assert any(
      np.array_equal(client.train['x'][..., 0], of_writer[0])
      and np.array_equal(client.test['x'][..., 0], of_writer[1])
      for of_writer in stored.values()
    )


def test_one_test_set_for_all(folder):
  task = tasks.load_task(_spec(folder, 'tff_cifar100', test_set='original'))
  assert [len(c.train['y']) for c in task.clients] == [8] * 3
  assert all(c.test is task.clients[0].test for c in task.clients)
  assert len(task.clients[0].test['y']) == 10
  assert task.global_test()['test'] is task.clients[0].test
  assert task.input_spec.dtype == 'uint8'
  assert task.input_spec.scale == 1 / 127.5


def test_clients_without_test_examples_hold_some_out(folder):
  task = tasks.load_task(_spec(folder, 'tff_cifar100'))
  assert [len(c.train['y']) for c in task.clients] == [6] * 3
  assert [len(c.test['y']) for c in task.clients] == [2] * 3


def test_landmarks_are_resized(folder):
  task = tasks.load_task(_spec(folder, 'tff_gldv2', image_size=16))
  assert [len(c.train['y']) for c in task.clients] == [3, 6, 3]
  assert task.input_spec.shape == (16, 16, 3) and task.num_classes == 203
  for client in task.clients:
    red = client.train['x'][:, 8, 8, 0].astype(int)
    assert np.abs(red - client.train['y']).max() <= 3
  task = tasks.load_task(_spec(folder, 'tff_gldv2', test_set='original'))
  assert task.clients[0].test['x'].shape == (6, 64, 64, 3)


def test_clients_are_drawn_by_the_seed_and_cached(folder, tmp_path):
  spec = dataclasses.replace(
    _spec(folder, 'tff_emnist', cache_dir=str(tmp_path)), num_clients=2
  )
  drawn = []
  for seed in (0, 0, 1, 2, 3):
    task = tasks.load_task(dataclasses.replace(spec, seed=seed))
    drawn.append(np.concatenate([c.train['x'] for c in task.clients]))
  np.testing.assert_array_equal(drawn[0], drawn[1])
  assert any(not np.array_equal(drawn[0], other) for other in drawn[2:])
  assert 2 <= len(os.listdir(tmp_path)) <= 4
  with pytest.raises(ValueError, match='num_clients <= 4, the clients of'):
    tasks.load_task(dataclasses.replace(spec, num_clients=5))


def test_what_is_missing_is_told(tmp_path):
  for name, needed, advice in (
    ('tff_emnist', 'emnist_all.sqlite', 'emnist.load_data .*or --download'),
    ('tff_cifar100', 'cifar100.sqlite', 'cifar100.load_data .*or --download'),
    ('tff_gldv2', 'gld23k/train and gld23k/test', r'load_data\(gld23k=True\)'),
  ):
    with pytest.raises(FileNotFoundError, match=f'{needed}.*{advice}'):
      tasks.load_task(_spec(str(tmp_path), name))
  with pytest.raises(FileNotFoundError, match='gld23k'):
    # Half a terabyte is not downloaded in passing.
    tasks.load_task(_spec(str(tmp_path), 'tff_gldv2', download=True))
  with pytest.raises(ValueError, match='has no domains'):
    tasks.load_task(_spec(str(tmp_path), 'tff_emnist', test_set='per_domain'))
  (tmp_path / 'emnist_all.sqlite').write_text('half of a file' * 100)
  with pytest.raises(ValueError, match='emnist_all.sqlite .*is damaged'):
    tasks.load_task(_spec(str(tmp_path), 'tff_emnist'))
