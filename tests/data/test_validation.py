"""Validation examples: none is trained on, all are the client's own."""

import numpy as np
import pytest

from tff_fedsa.data import mapped_clients
from tff_fedsa.data import own_data
from tff_fedsa.data import tasks
from tff_fedsa.data import validation

_SPEC = tasks.TaskSpec(num_clients=4, max_examples=400, alpha=1.0)


def _rows(examples):
  """Returns images and labels as a set of bytes."""
  return {
    (image.tobytes(), label)
    for image, label in zip(examples['x'], examples['y'])
  }


@pytest.fixture(scope='module')
def task():
  return tasks.load_task(_SPEC)


def test_each_client_divides_its_train_examples(task):
  divided = validation.hold_out(task, 0.2, seed=3)
  assert len(divided.validation_fns) == task.num_clients
  for before, after, validation_fn in zip(
    task.clients, divided.clients, divided.validation_fns
  ):
    held = validation_fn()
    size = len(before.train['y'])
    assert len(held['y']) == round(0.2 * size)
    assert len(after.train['y']) == size - len(held['y'])
    assert _rows(after.train) | _rows(held) == _rows(before.train)
    assert not _rows(after.train) & _rows(held)
    assert after.test is before.test
  joined = tasks.joined_validation(divided)
  assert len(joined['y']) == sum(
    len(fn()['y']) for fn in divided.validation_fns
  )
  assert f'{len(joined["y"])} examples that no client' in tasks.report(divided)
  # A function of the seed.
  same, other = (validation.hold_out(task, 0.2, seed=s) for s in (3, 4))
  for found, expected in ((same, True), (other, False)):
    labels = [
      np.concatenate([client.train['x'].ravel() for client in t.clients])
      for t in (divided, found)
    ]
    assert np.array_equal(*labels) == expected


def test_the_specification_says_how_much(task):
  divided = tasks.load_task(
    tasks.TaskSpec(**{**_SPEC.to_json_dict(), 'validation_fraction': 0.25})
  )
  sizes = [
    [len(client.train['y']) for client in t.clients] for t in (task, divided)
  ]
  assert [n - round(0.25 * n) for n in sizes[0]] == sizes[1]
  # The partition holds all that is not tested.
  for one, other in zip(task.partition.train, divided.partition.train):
    np.testing.assert_array_equal(one, other)
  assert not task.validation_fns


def test_own_arrays():
  images = np.zeros([10, 8, 8], np.uint8)
  labels = np.arange(10) % 2
  spec = tasks.TaskSpec(train_fraction=0.8, validation_fraction=0.25)
  task = own_data.to_task([(images, labels)] * 2, spec)
  (fn, _), (client, _) = task.validation_fns, task.clients
  assert [len(e['y']) for e in (client.train, fn(), client.test)] == [6, 2, 2]


def test_mapped_clients_are_read_each_time(task):
  reads = []

  def read(name):
    reads.append(name)
    return getattr(task.clients[0], name)

  mapped = mapped_clients.MappedClient(
    lambda: read('train'), lambda: read('test')
  )
  one = tasks.FederatedTask(
    'mapped', task.input_spec, task.class_names, (mapped,)
  )
  divided = validation.hold_out(one, 0.2, seed=3)
  expected = validation.hold_out(task, 0.2, seed=3)
  assert reads == ['train']
  for found, same in (
    (divided.clients[0].train, expected.clients[0].train),
    (divided.validation_fns[0](), expected.validation_fns[0]()),
    (divided.clients[0].test, expected.clients[0].test),
  ):
    assert list(found) == ['x', 'y']
    np.testing.assert_array_equal(found['x'], same['x'])
  assert reads == ['train', 'train', 'train', 'test']


def test_too_few_examples_are_refused(task):
  with pytest.raises(ValueError, match='less than one example'):
    validation.hold_out(task, 0.001, seed=0)
  with pytest.raises(ValueError, match='validation_fraction in .0, 1.'):
    tasks.TaskSpec(validation_fraction=1.0)
