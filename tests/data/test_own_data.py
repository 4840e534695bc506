"""Own data of any form become a task, or are refused with the client's name."""

import collections

import numpy as np
import pytest
import tensorflow_federated as tff

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
  data = [_pair(8, 0), _pair(5, 1)]
  task = own_data.to_task(data, task_spec.TaskSpec(train_fraction=0.5))
  assert (task.num_clients, task.num_classes) == (2, 3)
  sizes = [(len(c.train['y']), len(c.test['y'])) for c in task.clients]
  assert sizes == [(4, 4), (3, 2)]
  # Nothing is lost, and images keep their labels.
  for client, (images, labels) in zip(task.clients, data):
    given = {(x.tobytes(), y) for x, y in zip(images, labels)}
    found = {
      (x.tobytes(), y) for part in client for x, y in zip(part['x'], part['y'])
    }
    assert found == given
  again = own_data.to_task(data, task_spec.TaskSpec(train_fraction=0.5))
  assert own_data.digest(again) == own_data.digest(task)
  other = own_data.to_task(data, task_spec.TaskSpec(train_fraction=0.5, seed=1))
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
  images, labels = _pair(4, dtype=np.float32)
  task = own_data.to_task([(images[..., 0], labels)], _SPEC)
  assert task.input_spec.shape == (4, 4, 1)
  assert (task.input_spec.scale, task.input_spec.offset) == (1.0, 0.0)
  assert own_data.to_task([_pair(4)], _SPEC).input_spec.offset == -1.0


def test_size_and_channels_apply():
  spec = task_spec.TaskSpec(image_size=8, channels=3)
  assert own_data.to_task([_pair(4)], spec).input_spec.model_shape == (8, 8, 3)


def test_client_data():
  data = tff.simulation.datasets.TestClientData(
    {
      name: collections.OrderedDict(zip(('x', 'y'), _pair(8, seed)))
      for seed, name in enumerate(('a', 'b', 'c'))
    }
  )
  task = own_data.to_task(data, _SPEC)
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
  'data, error, message',
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
def test_other_forms_are_refused(data, error, message):
  with pytest.raises(error, match=message):
    own_data.to_task(data, _SPEC)
