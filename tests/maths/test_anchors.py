"""Anchors against the authors' code (golden files 1 and 5) and by hand."""

import numpy as np
import pytest
import tensorflow as tf

from tests import golden
from tff_fedsa.maths import anchors


@pytest.mark.parametrize(
  'case', ['c10d512', 'c100d64', 'c10d16', 'c2d16', 'pert']
)
def test_projection_equals_the_reference(case):
  arrays = golden.load('1_anchors')

  def pair(name, transpose=False):
    found = [arrays.get(f'{case}_{name}{i}') for i in (1, 2)]
    return tuple(
      value if value is None else tf.constant(value.T if transpose else value)
      for value in found
    )

  projected = anchors.project(
    tf.constant(arrays[f'{case}_random_center']),
    kernels=pair('W', transpose=True),  # torch's layout is [out, in]
    biases=pair('b'),
    scales=pair('gamma'),
    offsets=pair('beta'),
  )
  golden.assert_close(projected, arrays[f'{case}_anchors'])


@pytest.mark.parametrize('size', ['c10d16', 'c10d512'])
def test_moving_average_equals_the_reference(size):
  arrays = golden.load('5_server')
  prototypes = arrays[f'{size}_global_protos']
  present = ~np.isnan(prototypes[:, 0])
  current = tf.constant(arrays[f'{size}_anchors_before'])
  for update in (1, 2, 3):
    current = anchors.moving_average(
      current, tf.constant(prototypes), tf.constant(present), decay=0.9999
    )
    if update in (1, 3):
      golden.assert_close(current, arrays[f'{size}_anchors_after{update}'])


@pytest.mark.parametrize('name', anchors.INITIALIZER_NAMES)
def test_initializers_share_norm_and_follow_the_seed(name):
  first = anchors.initial_anchors(10, 512, seed=1, initializer=name)
  again = anchors.initial_anchors(10, 512, seed=1, initializer=name)
  other = anchors.initial_anchors(10, 512, seed=2, initializer=name)
  assert first.shape == (10, 512) and first.dtype == np.float32
  np.testing.assert_array_equal(first, again)
  assert np.abs(first - other).max() > 0.1
  # sqrt(512 / 2) = 16.
  np.testing.assert_allclose(
    np.linalg.norm(first, axis=1).mean(), 16.0, rtol=0.05
  )


def test_scale():
  np.testing.assert_array_equal(
    anchors.initial_anchors(10, 8, scale=0.5),
    0.5 * anchors.initial_anchors(10, 8),
  )


def test_random_projection_is_non_negative_and_half_zero():
  values = anchors.initial_anchors(100, 64, seed=0)
  assert values.min() == 0.0
  assert 0.4 < np.mean(values == 0.0) < 0.6


@pytest.mark.parametrize('num_classes, feature_dim', [(10, 64), (9, 8), (2, 1)])
def test_orthogonal_anchors_are_equally_far_apart(num_classes, feature_dim):
  values = anchors.initial_anchors(
    num_classes, feature_dim, seed=3, initializer='orthogonal'
  )
  cosines = values @ values.T / (feature_dim / 2.0)
  expected = np.full_like(cosines, -1.0 / (num_classes - 1))
  np.fill_diagonal(expected, 1.0)
  np.testing.assert_allclose(cosines, expected, atol=1e-5)


def _distances(values):
  return np.linalg.norm(values[:, np.newaxis] - values, axis=2)


@pytest.mark.parametrize('width, feature_dim', [(50, 16), (3, 16), (50, 4)])
def test_anchors_are_as_far_apart_as_vectors(width, feature_dim):
  vectors = np.random.default_rng(0).standard_normal((5, width)) + 3.0
  values = anchors.from_class_vectors(vectors, feature_dim)
  assert values.shape == (5, feature_dim) and values.dtype == np.float32
  np.testing.assert_allclose(values.mean(axis=0), 0.0, atol=1e-5)
  norms = np.linalg.norm(values, axis=1)
  np.testing.assert_allclose(norms.mean(), np.sqrt(feature_dim / 2), rtol=1e-5)
  ratios = (
    _distances(values)[np.triu_indices(5, 1)]
    / (_distances(vectors)[np.triu_indices(5, 1)])
  )
  np.testing.assert_allclose(ratios, ratios[0], rtol=1e-5)
  again = anchors.from_class_vectors(vectors, feature_dim)
  np.testing.assert_array_equal(again, values)
  other = anchors.from_class_vectors(vectors, feature_dim, seed=1)
  np.testing.assert_allclose(
    _distances(other), _distances(values), rtol=1e-5, atol=1e-5
  )
  assert np.abs(other - values).max() > 0.1


def test_with_few_features_main_components_are_kept():
  vectors = np.random.default_rng(0).standard_normal((30, 20))
  values = anchors.from_class_vectors(vectors, 4)
  centred = vectors - vectors.mean(axis=0)
  basis = np.linalg.eigh(centred.T @ centred)[1][:, -4:]
  kept = _distances(centred @ basis) + np.eye(30)
  ratios = (_distances(values) + np.eye(30)) / kept
  off = ~np.eye(30, dtype=bool)
  np.testing.assert_allclose(ratios[off], ratios[0, 1], rtol=1e-4)


def test_vectors_that_make_no_anchors_are_named():
  vectors = np.eye(4, 6)
  with pytest.raises(ValueError, match=r'feature_dim=0'):
    anchors.from_class_vectors(vectors, 0)
  with pytest.raises(ValueError, match=r'found \[6\]'):
    anchors.from_class_vectors(vectors[0], 8)
  vectors[3] = vectors[1]
  with pytest.raises(ValueError, match='Classes 1 and 3 have the same vector'):
    anchors.from_class_vectors(vectors, 8)
  vectors[2, 0] = np.nan
  with pytest.raises(ValueError, match=r'others for classes \[2\]'):
    anchors.from_class_vectors(vectors, 8)


def test_decay_by_evidence_by_hand():
  weights = np.array([0.0, 1.0, 4.0, 1e6], np.float32)
  decays = anchors.decay_by_evidence(0.6, tf.constant(weights), evidence=4.0)
  # 1 - 0.4 n / (n + 4).
  expected = [[1.0], [0.92], [0.8], [0.6]]
  np.testing.assert_allclose(decays, expected, atol=1e-5)
  moved = anchors.moving_average(
    tf.constant([[2.0, 0.0]] * 4),
    tf.constant([[0.0, 1.0]] * 4),
    tf.constant(weights > 0),
    decays,
  )
  expected = [[2.0, 0.0], [1.84, 0.08], [1.6, 0.2], [1.2, 0.4]]
  np.testing.assert_allclose(moved, expected, atol=1e-5)


@pytest.mark.parametrize('share', [0.0, 0.3, 1.0])
def test_separated_anchors_equal_the_formula(share):
  values = anchors.initial_anchors(4, 6, seed=1)
  norms = np.linalg.norm(values, axis=1, keepdims=True)
  unit = values / norms
  scales, basis = np.linalg.eigh(unit @ unit.T)
  turned = (1 - share) * unit + share * (basis / np.sqrt(scales)) @ (
    basis.T @ unit
  )
  turned /= np.linalg.norm(turned, axis=1, keepdims=True)
  found = anchors.separated(tf.constant(values), share)
  np.testing.assert_allclose(found, norms * turned, atol=1e-5)
  assert (np.sum(found * unit, axis=1) > 0).all()


def test_wholly_separated_anchors_are_orthogonal():
  values = anchors.initial_anchors(10, 16, seed=1)
  values[1] = values[0]  # Any orthogonal directions will do.
  values[2] = 0.0
  found = anchors.separated(tf.constant(values), 1.0).numpy()
  expected = np.diag(np.sum(values**2, axis=1))
  np.testing.assert_allclose(found @ found.T, expected, atol=1e-4)
  # They stay where they are.
  np.testing.assert_allclose(
    anchors.separated(tf.constant(found), 1.0), found, atol=1e-4
  )


def test_impossible_requests_are_named():
  with pytest.raises(ValueError, match='num_classes <= feature_dim'):
    anchors.initial_anchors(10, 8, initializer='orthogonal')
  with pytest.raises(ValueError, match='known: random_projection'):
    anchors.initial_anchors(10, 8, initializer='simplex')
  with pytest.raises(ValueError, match='num_classes >= 2'):
    anchors.initial_anchors(1, 8)
  with pytest.raises(ValueError, match='scale > 0'):
    anchors.initial_anchors(10, 8, scale=0.0)
