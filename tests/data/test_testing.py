"""Tests on a client's own classes, and on all classes."""

import dataclasses

import numpy as np
import pytest

from tff_fedsa import experiment
from tff_fedsa import settings
from tff_fedsa.data import mapped_clients
from tff_fedsa.data import tasks
from tff_fedsa.data import testing

_SPEC = tasks.TaskSpec(
  num_clients=4, max_examples=400, alpha=0.1, validation_fraction=0.2
)


def test_all_clients_are_tested_on_the_examples_of_all():
  own = tasks.load_task(_SPEC)
  everywhere = tasks.load_task(dataclasses.replace(_SPEC, test_classes='all'))
  for name in ('x', 'y'):
    expected = np.concatenate([client.test[name] for client in own.clients])
    for before, client in zip(own.clients, everywhere.clients):
      np.testing.assert_array_equal(client.test[name], expected)
      np.testing.assert_array_equal(client.train[name], before.train[name])
  assert len(set(own.clients[0].test['y'])) < 10
  assert len(set(everywhere.clients[0].test['y'])) == 10
  # One array for all.
  first, *others = (client.test for client in everywhere.clients)
  assert all(test is first for test in others)
  for one, two in zip(own.validation_fns, everywhere.validation_fns):
    np.testing.assert_array_equal(one()['x'], two()['x'])


def test_own_data_can_be_tested_so_too():
  rng = np.random.default_rng(0)
  clients = [
    (rng.random([12, 5]).astype(np.float32), np.arange(12) % 2 + 2 * (i % 2))
    for i in range(3)
  ]
  task = experiment.Experiment(clients, test_classes='all').task
  assert {*task.clients[0].train['y']} == {0, 1}
  assert {*task.clients[0].test['y']} == {0, 1, 2, 3}


def test_where_it_is_pointless_or_impossible_it_is_refused():
  spec = tasks.TaskSpec(test_set='original', test_classes='all')
  with pytest.raises(settings.SettingsError, match='has all classes'):
    spec.refuse_ignored()
  own = tasks.load_task(_SPEC)
  mapped = mapped_clients.MappedClient(dict, dict)
  with pytest.raises(ValueError, match='test_set=original'):
    testing.on_all_classes(dataclasses.replace(own, clients=(mapped,)))


def test_some_clients_are_not_tested():
  task = tasks.load_task(_SPEC)
  changed = testing.without_tests(task, (0, 2))
  for client_id, (client, before) in enumerate(
    zip(changed.clients, task.clients)
  ):
    left = 0 if client_id in (0, 2) else len(before.test['y'])
    assert len(client.test['x']) == len(client.test['y']) == left
    validation = changed.validation_fns[client_id]()['y']
    assert (len(validation) > 0) == (client_id not in (0, 2))
    assert client.train is before.train
  assert testing.without_tests(task, ()) is task
