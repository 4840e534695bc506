"""Partitions: parity with the reference, and properties."""

import numpy as np
import pytest
from sklearn import datasets

from tests import golden
from tff_fedsa.data import partition
from tff_fedsa.data.partitions import client_dirichlet
from tff_fedsa.data.partitions import dirichlet
from tff_fedsa.data.partitions import domain
from tff_fedsa.data.partitions import draws
from tff_fedsa.data.partitions import extended_dirichlet
from tff_fedsa.data.partitions import long_tail
from tff_fedsa.data.partitions import nid1
from tff_fedsa.data.partitions import pathological
from tff_fedsa.data.partitions import quantity

_LABELS = datasets.load_digits().target
_REFERENCE = golden.TESTDATA / 'reference_runs' / 'digits_a0.1_s0.npz'
# Three domains of 599 examples each.
_DOMAINS = np.arange(len(_LABELS)) % 3
_OPTIONS = {
  'iid': {},
  'dirichlet': dict(alpha=0.5),
  'pathological': dict(classes_per_client=2),
  'extended_dirichlet': dict(classes_per_client=4, alpha=1.0),
  'client_dirichlet': dict(alpha=1.0),
  'nid1': dict(alpha=0.2),
  'quantity_skew': dict(alpha=1.0),
  'domain': dict(domains=_DOMAINS, clients_per_domain=(5, 3, 2)),
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
  assert drawn.num_clients == 10 and not drawn.global_test
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
  shares = quantity.iid(_LABELS, 7, rng=np.random.RandomState(0))
  sizes = [len(share) for share in shares]
  assert max(sizes) - min(sizes) <= 1 and sum(sizes) == len(_LABELS)


def test_dirichlet_least_samples():
  shares = dirichlet.dirichlet(
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
  shares = pathological.pathological(
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


def _counts(shares, num_classes=10):
  return np.stack(
    [np.bincount(_LABELS[share], minlength=num_classes) for share in shares]
  )


def _assert_all_once(shares):
  np.testing.assert_array_equal(
    np.sort(np.concatenate(shares)), np.arange(len(_LABELS))
  )


@pytest.mark.parametrize('num_clients, k', [(20, 2), (5, 2), (7, 10)])
def test_extended_dirichlet_clients_hold_few_classes(num_clients, k):
  shares = extended_dirichlet.extended_dirichlet(
    _LABELS,
    num_clients,
    classes_per_client=k,
    alpha=10.0,
    least_samples=5,
    rng=np.random.RandomState(0),
  )
  _assert_all_once(shares)
  counts = _counts(shares)
  assert (counts > 0).sum(axis=1).max() <= k
  # k * M / C holders per class on average, and half of them at least.
  assert (counts > 0).sum(axis=0).min() >= max(k * num_clients // 20, 1)
  assert counts.sum(axis=1).min() >= 5


def test_holders_share_their_class_even_if_they_are_full():
  # Class 0 is most of the data and has one holder, who is full after class 1.
  labels = np.array([1] * 20 + [0] * 5 + [2] * 20)
  holders = np.array([[1, 0], [1, 0], [1, 1]], bool)
  shares = dirichlet.dirichlet(
    labels,
    2,
    alpha=1.0,
    least_samples=1,
    holders=holders,
    rng=np.random.RandomState(0),
  )
  assert np.bincount(labels[shares[0]], minlength=3)[:2].tolist() == [5, 20]
  # 25 of 45 are more than half: all of class 2 is the other's.
  np.testing.assert_array_equal(np.sort(shares[1]), np.arange(25, 45))


def test_client_dirichlet_is_between_one_class_and_the_whole_mix():
  def shares(alpha):
    drawn = client_dirichlet.client_dirichlet(
      _LABELS, 20, alpha=alpha, rng=np.random.RandomState(0)
    )
    _assert_all_once(drawn)
    sizes = [len(share) for share in drawn]
    assert max(sizes) - min(sizes) <= 1
    return drawn

  # Even where all of Dir(alpha) underflows; only the last turns get what is
  # left. Shares are in the order of the turns.
  drawn = shares(1e-6)
  assert all(len(set(_LABELS[share[:8]])) == 1 for share in drawn)
  assert len({_LABELS[share[0]] for share in drawn}) > 3
  mixes = _counts(shares(1e6)) / (len(_LABELS) / 20)
  # 90 examples of 10 classes each: 0.1, give or take three times 0.03.
  assert 0.0 < mixes.min() and mixes.max() < 0.22


@pytest.mark.parametrize('num_clients', [4, 10, 25])
def test_nid1_chunks_are_equal(num_clients):
  shares = nid1.nid1(
    _LABELS, num_clients, alpha=0.5, rng=np.random.RandomState(1)
  )
  _assert_all_once(shares)
  sizes = [len(share) for share in shares]
  assert len(sizes) == num_clients and max(sizes) - min(sizes) <= 1
  # Label skew, as the classes of a chunk are one worker's or two's.
  mixes = _counts(shares) / np.array(sizes)[:, np.newaxis]
  assert np.abs(mixes - 0.1).sum(axis=1).mean() / 2 > 0.25


def test_nid1_groups_share_no_example():
  # 25 clients are groups of 10, 10 and 5 workers: 40 %, 40 % and 20 % of the
  # shuffled examples. The first 10 chunks are those of the first group.
  rng = np.random.RandomState(1)
  first_group = rng.permutation(len(_LABELS))[: int(0.4 * len(_LABELS))]
  shares = nid1.nid1(_LABELS, 25, alpha=0.5, rng=np.random.RandomState(1))
  chunks = np.concatenate(shares[:9])
  assert np.isin(chunks, first_group).all()
  assert not np.isin(np.concatenate(shares[10:]), first_group).any()


def test_quantity_skew_is_of_sizes_only():
  shares = quantity.quantity_skew(
    _LABELS, 8, alpha=0.5, least_samples=20, rng=np.random.RandomState(0)
  )
  _assert_all_once(shares)
  sizes = np.array([len(share) for share in shares])
  assert sizes.min() >= 20 and sizes.max() > 4 * sizes.min()
  large = _counts(shares)[sizes.argmax()] / sizes.max()
  assert large.max() < 0.15
  with pytest.raises(ValueError, match='8 clients of at least 300 examples'):
    quantity.quantity_skew(
      _LABELS, 8, alpha=0.5, least_samples=300, rng=np.random.RandomState(0)
    )


@pytest.mark.parametrize('rho', [1, 10, 50, 100])
def test_long_tail_counts_by_the_formula(rho):
  labels = np.repeat(np.arange(10), 500)
  kept = long_tail.long_tail(labels, rho=rho, rng=np.random.RandomState(0))
  counts = np.bincount(labels[kept])
  expected = [int(500 * (1 / rho) ** (c / 9) + 1e-9) for c in range(10)]
  assert counts.tolist() == expected
  assert counts[0] == 500 and counts[-1] == 500 // rho
  assert np.all(np.diff(kept) > 0)


def test_long_tail_of_uneven_classes_keeps_what_there_is():
  labels = np.array([0] * 40 + [1] * 100 + [2] * 50)
  kept = long_tail.long_tail(labels, rho=4, rng=np.random.RandomState(0))
  # n_max = 100 gives 100, 50, 25; class 0 has 40.
  assert np.bincount(labels[kept]).tolist() == [40, 50, 25]


@pytest.mark.parametrize('name', partition.NAMES)
def test_long_tail_before_any_partition(name):
  drawn = partition.draw(
    _LABELS, name, 10, seed=0, long_tail_rho=4, **_OPTIONS[name]
  )
  everything = np.concatenate(drawn.train + drawn.test)
  assert np.unique(everything).size == everything.size
  largest = np.bincount(_LABELS).max()
  expected = [int(largest * 0.25 ** (c / 9) + 1e-9) for c in range(10)]
  expected = np.minimum(expected, np.bincount(_LABELS))
  np.testing.assert_array_equal(np.bincount(_LABELS[everything]), expected)


def test_domain_clients_have_one_domain():
  shares = domain.domain(_DOMAINS, (3, 0, 2), rng=np.random.RandomState(0))
  assert [len(share) for share in shares] == [200, 200, 199, 300, 299]
  assert [set(_DOMAINS[share]) for share in shares] == [{0}] * 3 + [{2}] * 2
  assert np.unique(np.concatenate(shares)).size == 1198


def test_domain_clients_have_a_number_of_examples():
  shares = domain.domain(
    _DOMAINS,
    (3, 1, 2),
    examples_per_client=(120, 50, 299),
    rng=np.random.RandomState(0),
  )
  assert [len(share) for share in shares] == [120] * 3 + [50] + [299] * 2
  assert np.unique(np.concatenate(shares)).size == 1008
  with pytest.raises(ValueError, match='Domain 2 has 599 examples .* need 600'):
    domain.domain(
      _DOMAINS,
      (3, 1, 2),
      examples_per_client=(120, 50, 300),
      rng=np.random.RandomState(0),
    )


@pytest.mark.parametrize('name', partition.NAMES)
def test_a_pool_is_all_that_is_dealt_out(name):
  pool = np.random.RandomState(0).permutation(len(_LABELS))[:900]
  drawn = partition.draw(
    _LABELS,
    name,
    5,
    seed=0,
    pool=pool,
    test=lambda train: np.setdiff1d(np.arange(1797), pool)[: len(train)],
    **{**_OPTIONS[name], 'clients_per_domain': (2, 2, 1)},
  )
  np.testing.assert_array_equal(
    np.sort(np.concatenate(drawn.train)), np.sort(pool)
  )
  assert [len(test) for test in drawn.test] == [
    min(len(train), 897) for train in drawn.train
  ]


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


def test_shared_test_sets_are_shared_again_when_loaded(tmp_path):
  test = {'one': np.array([8, 9]), 'other one': np.array([7])}
  drawn = partition.Partition(
    (np.array([0, 1]), np.array([2]), np.array([3])),
    (test['one'], test['one'], test['other one']),
    test,
  )
  drawn.save(str(tmp_path / 'p.npz'))
  loaded = partition.load(str(tmp_path / 'p.npz'))
  assert list(loaded.global_test) == ['one', 'other one']
  assert loaded.test[0] is loaded.test[1] is loaded.global_test['one']
  assert loaded.global_test['other one'].tolist() == [7]


def test_impossible_requests_are_named(tmp_path, monkeypatch):
  def draw(name, num_clients, **options):
    return partition.draw(_LABELS, name, num_clients, seed=0, **options)

  with pytest.raises(ValueError, match='known: iid, dirichlet, pathological'):
    draw('natural', 5)
  with pytest.raises(ValueError, match=r'num_clients in \[1, 1797\]'):
    draw('iid', 2000)
  for name in ('dirichlet', 'extended_dirichlet', 'quantity_skew'):
    with pytest.raises(
      ValueError, match='5 clients of at least 500 examples .* need 2500'
    ):
      draw(name, 5, alpha=0.5, least_samples=500)
  monkeypatch.setattr(draws, 'MAX_DRAWS', 20)
  with pytest.raises(ValueError, match='No Dirichlet draw of 20'):
    draw('dirichlet', 50, alpha=0.01, least_samples=30)
  with pytest.raises(ValueError, match=r'classes_per_client in \[1, 10\]'):
    draw('pathological', 5, classes_per_client=11)
  with pytest.raises(ValueError, match='No client is left for class 5'):
    draw('pathological', 5, classes_per_client=1)
  with pytest.raises(ValueError, match='at least 2 are needed'):
    draw('iid', 1797)
  with pytest.raises(ValueError, match='needs domains'):
    draw('domain', 5)
  with pytest.raises(ValueError, match=r'classes_per_client in \[1, 10\]'):
    draw('extended_dirichlet', 5, classes_per_client=11)
  with pytest.raises(ValueError, match='4 clients of 2 classes cannot hold'):
    draw('extended_dirichlet', 4, classes_per_client=2)
  with pytest.raises(FileNotFoundError, match='No partition file'):
    partition.load(str(tmp_path / 'missing.npz'))
  (tmp_path / 'junk.npz').write_bytes(b'junk')
  with pytest.raises(ValueError, match="junk.npz' is not an .npz file"):
    partition.load(str(tmp_path / 'junk.npz'))


@pytest.mark.parametrize(
  'train, test, message',
  [
    ([[0, 1], []], [[2], [3]], 'Client 1 has no train example'),
    ([[0, 1], [1]], [[2], [3]], 'index 1 2 times'),
    ([[0], [1]], [[1], [3]], 'Example 1 is a test example of client 0 and'),
    ([[0], [-1]], [[2], [3]], 'Client 1 has a negative train example index'),
    ([[0.5]], [[2]], 'Client 0 has train examples that are no indices'),
    ([[[0]]], [[2]], r'Client 0 has train examples of shape \(1, 1\)'),
    ([[2**64 - 1]], [[2]], 'Client 0 has a negative train example index'),
    ([[0]], [[2], [3]], 'of the same clients'),
    ([[0]], [[2, 2]], 'Client 0 has a test index twice'),
  ],
)
def test_invalid_partitions_are_named(train, test, message):
  with pytest.raises(ValueError, match=message):
    partition.Partition(tuple(train), tuple(test))


@pytest.mark.parametrize(
  'labels', [_LABELS * 1_000_003, _LABELS.astype('u1'), _LABELS.astype(str)]
)
def test_labels_of_any_kind_are_dealt_out_alike(labels):
  expected = partition.draw(_LABELS, 'dirichlet', 5, seed=0)
  drawn = partition.draw(labels, 'dirichlet', 5, seed=0)
  for ours, theirs in zip(drawn.train, expected.train, strict=True):
    np.testing.assert_array_equal(ours, theirs)


def test_global_tests_are_no_train_examples():
  with pytest.raises(ValueError, match="of global test 'all' and a train"):
    partition.Partition(
      (np.array([0, 1]),), (np.array([2]),), {'all': np.array([1, 2])}
    )
