"""Partitions: parity with the reference, and properties."""

import numpy as np
import pytest
from sklearn import datasets

from tests import golden
from tff_fedsa.data import partition

_LABELS = datasets.load_digits().target
_REFERENCE = golden.TESTDATA / 'reference_runs' / 'digits_a0.1_s0.npz'
_OPTIONS = {
  'iid': {},
  'dirichlet': dict(alpha=0.5),
  'pathological': dict(classes_per_client=2),
}


def test_dirichlet_is_the_reference_partition_index_for_index():
  expected = partition.load(str(_REFERENCE))
  drawn = partition.draw(
    _LABELS, 'dirichlet', 20, seed=1, alpha=0.1, least_samples=16
  )
  assert drawn.num_clients == expected.num_clients == 20
  for ours, theirs in zip(
    drawn.train + drawn.test, expected.train + expected.test, strict=False
  ):
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize('name', partition.NAMES)
def test_every_example_is_somewhere_exactly_once(name):
  drawn = partition.draw(_LABELS, name, 10, seed=3, **_OPTIONS[name])
  everything = np.concatenate(drawn.train + drawn.test)
  np.testing.assert_array_equal(np.sort(everything), np.arange(len(_LABELS)))
  for train, test in zip(drawn.train, drawn.test):
    # scikit-learn rounds the train part down.
    assert len(train) == int(0.75 * (len(train) + len(test)))


@pytest.mark.parametrize('name', partition.NAMES)
def test_seeds_repeat_and_differ(name):
  options = _OPTIONS[name]
  first, again, other = (
    partition.draw(_LABELS, name, 10, seed=seed, **options)
    for seed in (1, 1, 2)
  )
  for one, two in zip(first.train, again.train):
    np.testing.assert_array_equal(one, two)
  assert any(
    not np.array_equal(one, two) for one, two in zip(first.train, other.train)
  )


def test_global_random_state_is_left_alone():
  np.random.seed(5)
  expected = np.random.rand()
  np.random.seed(5)
  partition.draw(_LABELS, 'dirichlet', 10, seed=0, alpha=0.5)
  assert np.random.rand() == expected


def test_iid_shares_are_equal():
  shares = partition.iid(_LABELS, 7, rng=np.random.RandomState(0))
  sizes = [len(share) for share in shares]
  assert max(sizes) - min(sizes) <= 1 and sum(sizes) == len(_LABELS)


def test_dirichlet_least_samples():
  shares = partition.dirichlet(
    _LABELS,
    20,
    alpha=0.1,
    least_samples=25,
    rng=np.random.RandomState(0),
  )
  assert min(len(share) for share in shares) >= 25


def test_smaller_alpha_is_more_heterogeneous():
  def classes_per_client(alpha):
    drawn = partition.draw(_LABELS, 'dirichlet', 10, seed=0, alpha=alpha)
    return np.mean([len(np.unique(_LABELS[t])) for t in drawn.train])

  assert classes_per_client(0.1) < classes_per_client(100.0) == 10.0


@pytest.mark.parametrize('balanced', [True, False])
def test_pathological_clients_hold_few_classes(balanced):
  shares = partition.pathological(
    _LABELS,
    20,
    classes_per_client=2,
    balanced=balanced,
    rng=np.random.RandomState(0),
  )
  held = [np.unique(_LABELS[share]) for share in shares]
  assert all(len(classes) == 2 for classes in held)
  # Class i goes to ceil(20 / 10 * 2) = 4 clients: 0 and 1 to the first four.
  assert all(classes.tolist() == [0, 1] for classes in held[:4])
  zeros = [np.sum(_LABELS[share] == 0) for share in shares[:4]]
  total = np.sum(_LABELS == 0)  # 178 = 44 + 44 + 44 + 46
  assert sum(zeros) == total
  if balanced:
    assert zeros == [44, 44, 44, 46]
  else:
    assert len(set(zeros)) > 2


def test_original_test_set_is_shared():
  test = np.arange(1700, 1797)
  drawn = partition.draw(
    _LABELS[:1700], 'dirichlet', 5, seed=0, alpha=1.0, test=test
  )
  assert all(indices is drawn.test[0] for indices in drawn.test)
  assert np.concatenate(drawn.train).size == 1700


def test_save_and_load(tmp_path):
  drawn = partition.draw(_LABELS, 'iid', 4, seed=0)
  drawn.save(str(tmp_path / 'p.npz'))
  loaded = partition.load(str(tmp_path / 'p.npz'))
  for one, two in zip(drawn.train + drawn.test, loaded.train + loaded.test):
    np.testing.assert_array_equal(one, two)


def test_impossible_requests_are_named(tmp_path):
  def draw(name, num_clients, **options):
    return partition.draw(_LABELS, name, num_clients, seed=0, **options)

  with pytest.raises(ValueError, match='known: iid, dirichlet, pathological'):
    draw('natural', 5)
  with pytest.raises(ValueError, match=r'num_clients in \[1, 1797\]'):
    draw('iid', 2000)
  with pytest.raises(ValueError, match='Use fewer clients'):
    draw('dirichlet', 5, alpha=0.5, least_samples=500)
  with pytest.raises(ValueError, match=r'classes_per_client in \[1, 10\]'):
    draw('pathological', 5, classes_per_client=11)
  with pytest.raises(ValueError, match='No client is left for class 5'):
    draw('pathological', 5, classes_per_client=1)
  with pytest.raises(ValueError, match='at least 2 are needed'):
    draw('iid', 1797)
  with pytest.raises(FileNotFoundError, match='No partition file'):
    partition.load(str(tmp_path / 'missing.npz'))
  (tmp_path / 'junk.npz').write_bytes(b'junk')
  with pytest.raises(ValueError, match='is not a partition file'):
    partition.load(str(tmp_path / 'junk.npz'))


@pytest.mark.parametrize(
  'train, test, message',
  [
    ([[0, 1], []], [[2], [3]], 'Client 1 has no train example'),
    ([[0, 1], [1]], [[2], [3]], 'index 1 2 times'),
    ([[0], [1]], [[1], [3]], 'Example 1 is a test example of client 0 and'),
    ([[0], [-1]], [[2], [3]], 'negative train index'),
    ([[0]], [[2], [3]], 'of the same clients'),
  ],
)
def test_invalid_partitions_are_named(train, test, message):
  as_arrays = lambda parts: tuple(np.array(p, np.int64) for p in parts)
  with pytest.raises(ValueError, match=message):
    partition.Partition(as_arrays(train), as_arrays(test))
