"""Robust means, by hand and against NumPy and SciPy."""

import numpy as np
import pytest
from scipy import optimize
from scipy import stats
import tensorflow as tf

from tff_fedsa.maths import robust

_FUNCTIONS = {
  'mean': robust.mean,
  'median': robust.median,
  'trimmed_mean': lambda *a: robust.trimmed_mean(*a, fraction=0.2),
  'geometric_median': robust.geometric_median,
  'krum': lambda *a: robust.krum(*a, fraction=0.2),
  'multi_krum': lambda *a: robust.multi_krum(*a, fraction=0.2),
}


def _of_one_class(rows):
  """Values of clients that all have the only class."""
  rows = np.asarray(rows, np.float32).reshape(len(rows), 1, -1)
  return tf.constant(rows), tf.ones([len(rows), 1], tf.bool)


def _random(num_clients, num_classes=3, dim=4, seed=0):
  rng = np.random.default_rng(seed)
  vectors = rng.standard_normal([num_clients, num_classes, dim])
  held = rng.random([num_clients, num_classes]) < 0.7
  # Nobody looks at what is not held.
  vectors[~held] = 1e9
  return vectors.astype(np.float32), held


def _class_by_class(function, vectors, held):
  return np.stack(
    [function(vectors[held[:, c], c]) for c in range(held.shape[1])]
  )


@pytest.mark.parametrize('num_clients', [9, 10, 21])
@pytest.mark.parametrize(
  'ours, numpys', [(robust.mean, np.mean), (robust.median, np.median)]
)
def test_mean_and_median_are_those_of_numpy(num_clients, ours, numpys):
  vectors, held = _random(num_clients)
  np.testing.assert_allclose(
    ours(vectors, held),
    _class_by_class(lambda rows: numpys(rows, axis=0), vectors, held),
    rtol=1e-5,
    atol=1e-6,
  )


@pytest.mark.parametrize('num_clients, fraction', [(10, 0.2), (20, 0.1)])
def test_trimmed_mean_is_that_of_scipy(num_clients, fraction):
  vectors, _ = _random(num_clients, seed=1)
  held = np.ones(vectors.shape[:2], bool)
  np.testing.assert_allclose(
    robust.trimmed_mean(vectors, held, fraction),
    stats.trim_mean(vectors, fraction, axis=0),
    rtol=1e-5,
    atol=1e-6,
  )


def test_trimmed_mean_by_hand():
  # Of five, one on each side; of four ceil(0.8) = 1; of three the median.
  for values, expected in (
    ([9, 1, 2, 3, -90], 2.0),
    ([1, 2, 4, 100], 3.0),
    ([1, 2, 100], 2.0),
    ([1, 3], 2.0),
  ):
    found = robust.trimmed_mean(*_of_one_class(values), 0.2)
    assert float(found[0, 0]) == expected


def test_geometric_median_is_the_minimum_that_scipy_finds():
  vectors, held = _random(11, seed=2)

  def minimum(rows):
    rows = rows.astype(np.float64)
    return optimize.minimize(
      lambda x: np.linalg.norm(rows - x, axis=1).sum(),
      rows.mean(axis=0),
      method='Nelder-Mead',
      options={'xatol': 1e-9, 'fatol': 1e-12, 'maxiter': 20000},
    ).x

  np.testing.assert_allclose(
    robust.geometric_median(vectors, held),
    _class_by_class(minimum, vectors, held),
    atol=2e-4,
  )


def test_geometric_median_by_hand():
  # The point inside of a triangle is the median of the four.
  rows = [[0, 0], [4, 0], [0, 4], [1, 1]]
  found = robust.geometric_median(*_of_one_class(rows))
  np.testing.assert_allclose(found, [[1, 1]], atol=1e-3)


def _krum_of_numpy(rows, fraction, num_chosen=None):
  count = len(rows)
  suspects = int(np.ceil(fraction * count - 1e-9))
  squares = ((rows[:, np.newaxis] - rows) ** 2).sum(axis=2)
  scores = []
  for i in range(count):
    others = np.sort(np.delete(squares[i], i))
    scores.append(others[: count - suspects - 2].sum())
  best = np.argsort(scores, kind='stable')
  return rows[best[: num_chosen or count - suspects]].mean(axis=0)


@pytest.mark.parametrize('num_clients', [13, 20])
def test_krum_is_that_of_numpy(num_clients):
  vectors, held = _random(num_clients, seed=3)
  assert held.sum(axis=0).min() >= 7
  np.testing.assert_allclose(
    robust.krum(vectors, held, 0.2),
    _class_by_class(lambda r: _krum_of_numpy(r, 0.2, 1), vectors, held),
    rtol=1e-6,
  )
  np.testing.assert_allclose(
    robust.multi_krum(vectors, held, 0.2),
    _class_by_class(lambda r: _krum_of_numpy(r, 0.2), vectors, held),
    rtol=1e-5,
    atol=1e-6,
  )


def test_krum_by_hand():
  # Five values, one suspect: each score is the sum of the two nearest squares:
  # 1 + 4, 1 + 1, 1 + 4, 49 + 64, 90^2 + 91^2.
  rows = [[0], [1], [2], [9], [-90]]
  assert float(robust.krum(*_of_one_class(rows), 0.2)[0, 0]) == 1.0
  assert float(robust.multi_krum(*_of_one_class(rows), 0.2)[0, 0]) == 3.0
  # Fewer than 2 f + 3 values: the median.
  assert float(robust.krum(*_of_one_class(rows[1:]), 0.2)[0, 0]) == 1.5


def test_huge_values_leave_krum_its_digits():
  rows = np.concatenate([np.random.default_rng(0).random([8, 3]), [[9e7] * 3]])
  np.testing.assert_allclose(
    robust.krum(*_of_one_class(rows), 0.2)[0],
    _krum_of_numpy(rows, 0.2, 1),
    rtol=1e-6,
  )


@pytest.mark.parametrize('name', _FUNCTIONS)
def test_few_and_no_contributors(name):
  vectors, held = _of_one_class([[1, 2], [3, 6], [7, 7]])
  function = _FUNCTIONS[name]
  for count, expected in ((0, [0, 0]), (1, [1, 2]), (2, [2, 4])):
    few = held & (tf.range(3)[:, tf.newaxis] < count)
    np.testing.assert_allclose(function(vectors, few), [expected], rtol=1e-5)
  empty = function(tf.zeros([0, 1, 2]), tf.zeros([0, 1], tf.bool))
  np.testing.assert_array_equal(empty, [[0, 0]])


@pytest.mark.parametrize('name', _FUNCTIONS)
def test_four_of_twenty_that_flip_and_scale(name):
  rng = np.random.default_rng(4)
  rows = 5 + 0.1 * rng.standard_normal([20, 8])
  rows[:4] *= -10
  found = np.asarray(_FUNCTIONS[name](*_of_one_class(rows))[0])
  if name == 'mean':
    assert np.all(found < -5)
  else:
    np.testing.assert_allclose(found, 5, atol=0.2)


def test_prototypes_near_their_own_anchor():
  anchors = tf.constant([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]])
  vectors = tf.constant([[1.0, 0.0], [1.0, 0.0], [0.0, 9.0]])
  # The gap is 4: the second lies nearer to the first anchor, the third lies
  # 5 from its own.
  near = robust.near_own_anchor
  np.testing.assert_array_equal(
    near(vectors, anchors, 1.0), [True, False, False]
  )
  np.testing.assert_array_equal(
    near(vectors, anchors, 1.3), [True, False, True]
  )
