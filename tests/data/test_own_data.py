"""Own data of any form become a task, or are refused with the client's name."""

import collections

import numpy as np
import pandas as pd
import pytest
import tensorflow_federated as tff

from tff_fedsa import data
from tff_fedsa.data import own_data
from tff_fedsa.data import task_spec
from tff_fedsa.data import tasks

_SPEC = task_spec.TaskSpec()


def _pair(size, seed=0, dtype=np.uint8, classes=3):
  rng = np.random.default_rng(seed)
  images = rng.integers(0, 256, [size, 4, 4, 1]).astype(dtype)
  labels = np.arange(size) % classes
  return images, labels


def test_pairs_of_arrays_are_divided():
  pairs = [_pair(8, 0), _pair(5, 1)]
  task = own_data.to_task(pairs, task_spec.TaskSpec(train_fraction=0.5))
  assert (task.num_clients, task.num_classes) == (2, 3)
  sizes = [(len(c.train['y']), len(c.test['y'])) for c in task.clients]
  assert sizes == [(4, 4), (3, 2)]
  # Nothing is lost, and images keep their labels.
  for client, (images, labels) in zip(task.clients, pairs):
    given = {(x.tobytes(), y) for x, y in zip(images, labels)}
    found = {
      (x.tobytes(), y) for part in client for x, y in zip(part['x'], part['y'])
    }
    assert found == given
  again = own_data.to_task(pairs, task_spec.TaskSpec(train_fraction=0.5))
  assert own_data.digest(again) == own_data.digest(task)
  other = own_data.to_task(
    pairs, task_spec.TaskSpec(train_fraction=0.5, seed=1)
  )
  assert own_data.digest(other) != own_data.digest(task)


@pytest.mark.parametrize(
  'form',
  [
    lambda train, test: (train, test),
    lambda train, test: [list(train), list(test)],
    lambda train, test: tasks.ClientExamples(
      *({'x': x, 'y': y} for x, y in (train, test))
    ),
  ],
)
def test_train_and_test_are_kept(form):
  train, test = _pair(4), _pair(2, 1)
  (client,) = own_data.to_task([form(train, test)], _SPEC).clients
  np.testing.assert_array_equal(client.train['x'], train[0])
  np.testing.assert_array_equal(client.test['y'], test[1])


def test_gray_images_without_a_last_axis_and_floats():
  images, labels = _pair(4)
  task = own_data.to_task([(images[..., 0], labels)], _SPEC)
  assert task.input_spec.shape == (4, 4, 1)
  task = own_data.to_task([_pair(4, dtype=np.float32)], _SPEC)
  assert (task.input_spec.scale, task.input_spec.offset) == (1.0, 0.0)
  assert own_data.to_task([_pair(4)], _SPEC).input_spec.offset == -1.0


def test_size_and_channels_apply():
  spec = task_spec.TaskSpec(image_size=8, channels=3)
  assert own_data.to_task([_pair(4)], spec).input_spec.model_shape == (8, 8, 3)


def test_client_data():
  natural = tff.simulation.datasets.TestClientData(
    {
      name: collections.OrderedDict(zip(('x', 'y'), _pair(8, seed)))
      for seed, name in enumerate(('a', 'b', 'c'))
    }
  )
  task = own_data.to_task(natural, _SPEC)
  assert (task.num_clients, task.num_classes) == (3, 3)


def test_labels_of_any_kind():
  images, labels = _pair(8)
  expected = own_data.to_task([(images, labels)] * 2, _SPEC)
  for own in (labels.astype('u1'), labels.astype('f4'), labels[:, None]):
    found = own_data.to_task([(images, own)] * 2, _SPEC)
    assert found.class_names == ('0', '1', '2') and not found.notices
    assert own_data.digest(found) == own_data.digest(expected)
  found = own_data.to_task([(images, labels * 10**9)] * 2, _SPEC)
  assert found.class_names == ('0', '1000000000', '2000000000')
  assert 'are not 0 to 2' in found.notices[0]
  assert own_data.digest(found) == own_data.digest(expected)
  texts = np.array(['dog', 'cat', 'emu'])[labels]
  assert own_data.to_task([(images, texts)] * 2, _SPEC).class_names == (
    'cat',
    'dog',
    'emu',
  )


def test_a_task_is_a_task():
  task = own_data.to_task([_pair(4)], _SPEC)
  assert own_data.to_task(task, _SPEC) is task


@pytest.mark.parametrize(
  'own, error, message',
  [
    (_pair(4), TypeError, 'client 0'),
    ('digits', TypeError, 'found str'),
    ([], ValueError, 'at least one client'),
    ([_pair(4), (1, 2)], TypeError, 'client 1'),
    ([_pair(4), _pair(1)], ValueError, 'Client 1: expected two examples'),
    (
      [_pair(4), (_pair(4)[0], _pair(5)[1])],
      ValueError,
      'Client 1: expected one label',
    ),
    ([_pair(4), (_pair(4)[0], [0, 0.5, 1, 1])], TypeError, 'client 1'),
    (
      [_pair(4), (_pair(4)[0], np.array([0, 0.5, 1, 1]))],
      ValueError,
      'client 1, t.*: expected integer labels, found 0.5',
    ),
    ([{'images': 1}], TypeError, r"\['images'\], not x and y"),
  ],
)
def test_other_forms_are_refused(own, error, message):
  with pytest.raises(error, match=message):
    own_data.to_task(own, _SPEC)


def _table(size=60):
  rng = np.random.default_rng(0)
  return rng.normal(size=[size, 4]), np.arange(size) % 3


def test_arrays_with_clients_of_their_own():
  x, y = _table()
  hospital = np.repeat([7, 3, 5], 20)
  task = data.from_arrays(x, y, client_ids=hospital, train_fraction=0.5)
  assert task.client_names == ('3', '5', '7')
  assert task.input_spec.dtype == 'float32'  # float64 is stored so.
  for client, name in zip(task.clients, (3, 5, 7)):
    assert len(client.train['y']) == len(client.test['y']) == 10
    own = np.concatenate([client.train['x'], client.test['x']])
    expected = x[hospital == name].astype(np.float32)
    np.testing.assert_array_equal(
      np.sort(own, axis=0), np.sort(expected, axis=0)
    )
  again = data.from_arrays(x, y, client_ids=hospital, train_fraction=0.5)
  assert own_data.digest(again) == own_data.digest(task)


def test_arrays_are_dealt_out():
  x, y = _table()
  task = data.from_arrays(x, y, num_clients=3, partition='iid')
  assert task.num_clients == 3
  task = data.from_arrays(
    x, y, num_clients=3, partition='iid', num_train=40, test_set='original'
  )
  np.testing.assert_array_equal(task.clients[2].test['y'], y[40:])


def test_arrays_of_every_kind():
  _, y = _table()
  rng = np.random.default_rng(0)
  options = dict(num_clients=2, partition='iid')
  for x, kind, shape in (
    (rng.integers(0, 256, [60, 8, 8], np.uint8), 'image', (8, 8, 1)),
    (rng.normal(size=[60, 8, 8, 1]), 'image', (8, 8, 1)),
    (rng.normal(size=[60, 128, 9]), 'series', (128, 9)),
    (rng.normal(size=[60, 14]), 'table', (14,)),
    (rng.random([60, 14]) < 0.5, 'table', (14,)),
    (rng.integers(0, 50, [60, 14]), 'tokens', (14,)),
    ([f'word{i} of a text' for i in y], 'tokens', (4,)),
  ):
    spec = data.from_arrays(x, y, **options).input_spec
    assert (spec.kind, spec.shape) == (kind, shape)
  squares = data.from_arrays(rng.normal(size=[60, 28, 28]), y, **options)
  assert 'If they are grey images' in squares.notices[0]


def test_texts_of_clients():
  clients = data.make_text_clients(3, examples_per_client=20)
  task = own_data.to_task(clients, _SPEC)
  assert task.client_names == ('0', '1', '2')
  trained = {
    task.words[token]
    for client in task.clients
    for token in np.unique(client.train['x'])
  }
  assert {*task.words} - trained <= {'[UNK]', ''}
  assert task.input_spec.vocabulary_size == len(task.words)
  # A word of test examples only is unknown.
  assert any((c.test['x'] == 1).any() for c in task.clients)


def test_tables_of_pandas(tmp_path):
  x, y = _table()
  frame = pd.DataFrame(x).assign(clinic=np.repeat(['a', 'b'], 30), outcome=y)
  task = data.from_dataframe(frame, label='outcome', client='clinic')
  assert task.client_names == ('a', 'b') and task.num_classes == 3
  frame.to_csv(tmp_path / 'a.csv', index=False)
  frame.rename(columns=str).to_parquet(tmp_path / 'a.parquet')
  for read, name in (
    (data.from_csv, 'a.csv'),
    (data.from_parquet, 'a.parquet'),
  ):
    found = read(tmp_path / name, label='outcome', client='clinic')
    assert found.name == name
    assert own_data.digest(found) == own_data.digest(task)


@pytest.mark.parametrize(
  'options, message',
  [
    ({'alpah': 1}, "no setting 'alpah' of own data"),
    ({'dataset': 'digits'}, "no setting 'dataset'"),
    ({'client_ids': [0] * 60, 'alpha': 1.0}, 'alpha would be ignored'),
    ({'client_ids': [0] * 59}, 'one client id for each of 60 inputs'),
    ({'train_fraction': 2.0}, 'train_fraction'),
  ],
)
def test_wrong_settings_of_arrays_are_refused(options, message):
  with pytest.raises(ValueError, match=message):
    data.from_arrays(*_table(), **options)
