"""Test sets that are held out for everybody, and who is tested on what."""

import numpy as np
import pytest

from tff_fedsa.data import datasets
from tff_fedsa.data import held_out
from tff_fedsa.data import sources
from tff_fedsa.data import tasks

# Three domains of 100, 60 and 40 examples, each with 3, 1 and 1 parts of the
# classes 0, 1 and 2.
_DOMAINS = np.repeat([0, 1, 2], [100, 60, 40])
_LABELS = np.array([0, 0, 0, 1, 2] * 40)
_NAMES = ('art', 'photo', 'sketch')


@pytest.fixture
def three_domains(monkeypatch):
  """Makes `domain_folder` a data set whose images say which example it is."""
  images = np.broadcast_to(
    np.arange(200, dtype=np.uint8)[:, None, None, None], (200, 2, 2, 1)
  )
  source = sources.Source(
    name='made_up',
    images=images,
    labels=_LABELS,
    class_names=('a', 'b', 'c'),
    domains=_DOMAINS,
    domain_names=_NAMES,
  )
  monkeypatch.setattr(datasets, 'load', lambda name, **_: source)
  return source


def _task(**options):
  return tasks.load_task(tasks.TaskSpec(dataset='domain_folder', **options))


def _examples(part):
  return part['x'][:, 0, 0, 0]


def test_a_fifth_of_each_domain_by_class(three_domains):
  pool, tests = held_out.pool_and_tests(three_domains, 'per_domain', seed=3)
  assert list(tests) == list(_NAMES)
  assert [len(test) for test in tests.values()] == [20, 12, 8]
  for domain, test in enumerate(tests.values()):
    assert set(_DOMAINS[test]) == {domain}
  # 3 : 1 : 1 parts.
  assert np.bincount(_LABELS[tests['art']]).tolist() == [12, 4, 4]
  everything = np.concatenate([pool, *tests.values()])
  np.testing.assert_array_equal(np.sort(everything), np.arange(200))

  again, other = (
    held_out.pool_and_tests(three_domains, 'per_domain', seed=seed)[0]
    for seed in (3, 4)
  )
  np.testing.assert_array_equal(pool, again)
  assert not np.array_equal(pool, other)


def test_clients_of_a_domain_get_a_fraction_of_all_of_it(three_domains):
  task = _task(
    partition='domain',
    clients_per_domain={'sketch': 2, 'art': 3},
    num_clients=5,
    domain_fraction=0.2,
    test_set='per_domain',
  )
  # 20 % of 100 and of 40, in the order of domains, from the 80 % of each.
  assert [len(client.train['y']) for client in task.clients] == [20] * 3 + [
    8
  ] * 2
  tests = task.global_test()
  assert list(tests) == list(_NAMES)
  tested = np.concatenate([_examples(test) for test in tests.values()])
  for client, name in zip(task.clients, ['art'] * 3 + ['sketch'] * 2):
    assert set(_DOMAINS[_examples(client.train)]) == {_NAMES.index(name)}
    assert not np.isin(_examples(client.train), tested).any()
    # No copy for each client.
    assert client.test is tests[name]


def test_clients_of_all_domains_are_tested_on_all(three_domains):
  task = _task(partition='iid', num_clients=4, test_set='per_domain')
  assert sum(len(client.train['y']) for client in task.clients) == 160
  for client in task.clients:
    assert client.test is task.clients[0].test
  assert len(task.clients[0].test['y']) == 40


def test_clients_are_spread_evenly_over_domains(three_domains):
  task = _task(partition='domain', num_clients=5)
  sizes = [sum(len(part['y']) for part in client) for client in task.clients]
  assert sizes == [50, 50, 30, 30, 40]
  with pytest.raises(ValueError, match='num_clients >= 3, one per domain'):
    _task(partition='domain', num_clients=2)


def test_fewer_examples_of_everything(three_domains):
  task = _task(
    partition='domain',
    clients_per_domain={'art': 2},
    num_clients=2,
    domain_fraction=0.2,
    test_set='per_domain',
    max_examples=80,
    max_test_examples=9,
  )
  # Half of the 160 that are not held out, so half of 20 % of 100.
  assert [len(client.train['y']) for client in task.clients] == [10, 10]
  sizes = {name: len(test['y']) for name, test in task.global_test().items()}
  assert sizes == {'art': 9, 'photo': 9, 'sketch': 8}


def test_without_domains_there_is_one_test_set():
  task = tasks.load_task(tasks.TaskSpec(test_set='per_domain', alpha=1.0))
  (name,) = task.global_test()
  assert name == 'test'
  test = task.global_test()['test']
  # 1797 examples, of which 80 % are rounded down.
  assert len(test['y']) == 360
  assert np.bincount(test['y']).min() >= 34
  assert sum(len(client.train['y']) for client in task.clients) == 1437
  assert all(client.test is test for client in task.clients)


def test_original_test_set(tmp_path):
  path = str(tmp_path / 'own.npz')
  images = np.arange(60, dtype=np.uint8)[:, None, None, None]
  np.savez(path, x=images, y=np.arange(60) % 3, num_train=45)
  spec = tasks.TaskSpec(
    dataset='npz',
    data_dir=path,
    partition='iid',
    num_clients=5,
    test_set='original',
    long_tail_rho=3.0,
  )
  task = tasks.load_task(spec)
  assert _examples(task.global_test()['test']).tolist() == list(range(45, 60))
  # Only what is dealt out has a long tail: 15, 8.66 and 5.
  assert task.class_counts().sum(axis=0).tolist() == [15, 8, 5]

  task.partition.save(str(tmp_path / 'partition.npz'))
  again = tasks.load_task(
    tasks.TaskSpec(
      dataset='npz',
      data_dir=path,
      partition_file=str(tmp_path / 'partition.npz'),
    )
  )
  assert all(
    client.test is again.global_test()['test'] for client in again.clients
  )


def test_original_test_set_by_domain(three_domains):
  source = sources.Source(
    **{
      **{name: getattr(three_domains, name) for name in ('name', 'images')},
      'labels': _LABELS,
      'class_names': ('a', 'b', 'c'),
      'domains': np.arange(200) % 2,
      'domain_names': ('one', 'two', 'nowhere'),
      'num_train': 150,
    }
  )
  pool, tests = held_out.pool_and_tests(source, 'original', seed=0)
  np.testing.assert_array_equal(pool, np.arange(150))
  assert {name: len(test) for name, test in tests.items()} == {
    'one': 25,
    'two': 25,
  }


@pytest.mark.parametrize(
  'options, message',
  [
    (dict(test_set='original'), "no original test set. Use test_set='split'"),
    (
      dict(partition='domain', clients_per_domain={'toy': 1}, num_clients=1),
      "has no domain 'toy' .* its domains: art, photo, sketch",
    ),
    (
      dict(
        partition='domain',
        clients_per_domain={'photo': 5},
        num_clients=5,
        domain_fraction=0.2,
        test_set='per_domain',
      ),
      'Domain 1 has 48 examples .* need 60. Use a smaller domain_fraction',
    ),
    (
      dict(partition='iid', test_set='per_domain', max_test_examples=2),
      'max_test_examples, art: 2 of 20 examples',
    ),
    (dict(max_examples=2), 'max_examples: 2 of 200 examples .* of 3 classes'),
  ],
)
def test_impossible_requests_are_named(three_domains, options, message):
  with pytest.raises(ValueError, match=message):
    _task(**options)


@pytest.mark.parametrize(
  'options, message',
  [
    (dict(long_tail_rho=0.5), 'long_tail_rho >= 1'),
    (dict(domain_fraction=0.0), r'domain_fraction in \(0, 1\]'),
    (dict(clients_per_domain={'art': 0}), 'of 1 or more'),
    (
      dict(clients_per_domain={'art': 3}, num_clients=4),
      'num_clients would be ignored: clients_per_domain has 3 clients',
    ),
    (dict(partition_file='p', max_test_examples=9), 'with max_test_examples'),
  ],
)
def test_bad_specs_are_named(options, message):
  with pytest.raises(ValueError, match=message):
    tasks.TaskSpec(**options)


def test_clients_per_domain_say_how_many_clients_there_are():
  assert tasks.TaskSpec(clients_per_domain={'art': 3, 'b': 2}).num_clients == 5


def test_where_clients_hold_out_their_own_there_is_no_global_test():
  with pytest.raises(ValueError, match="Use test_set='original' or 'per_dom"):
    tasks.load_task(tasks.TaskSpec()).global_test()
  with pytest.raises(ValueError, match="'digits' has no domains"):
    tasks.load_task(tasks.TaskSpec(partition='domain'))
