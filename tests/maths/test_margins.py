"""Gaps and margins against the authors' code (golden file 2)."""

import numpy as np
import pytest
import tensorflow as tf

from tests import golden
from tff_fedsa.maths import margins

SIZES = ('c10d512', 'c100d64', 'c10d16')


@pytest.fixture(scope='module')
def arrays():
  return golden.load('2_margins')


def _own_prototypes(arrays, size, case):
  """Returns the client's prototypes as dense rows and counts."""
  anchors = arrays[f'{size}_anchors']
  labels = arrays[f'{size}_{case}_labels']
  # NaN in absent rows: they must not leak.
  prototypes = np.full_like(anchors, np.nan)
  prototypes[labels] = arrays[f'{size}_{case}_protos']
  counts = np.zeros(len(anchors), np.float32)
  counts[labels] = 3.0
  return tf.constant(prototypes), tf.constant(counts)


@pytest.mark.parametrize('size', SIZES)
def test_global_gap(arrays, size):
  gap = margins.class_gap(tf.constant(arrays[f'{size}_anchors']))
  golden.assert_close(gap, arrays[f'{size}_global_gap'])
  golden.assert_close(gap, arrays[f'{size}_global_gap_f64'])


@pytest.mark.parametrize('size', SIZES)
def test_nearest_class_distances(arrays, size):
  nearest = margins.nearest_class_distances(
    tf.constant(arrays[f'{size}_anchors'])
  ).numpy()
  golden.assert_close(
    [nearest.min(), nearest.mean(), nearest.max()],
    arrays[f'{size}_server_min_avg_max'],
  )


@pytest.mark.parametrize('case', ['many', 'wide', 'two', 'one'])
@pytest.mark.parametrize('size', SIZES)
def test_local_gap_and_margin(arrays, size, case):
  prototypes, counts = _own_prototypes(arrays, size, case)
  anchors = tf.constant(arrays[f'{size}_anchors'])
  golden.assert_close(
    margins.local_gap(prototypes, counts), arrays[f'{size}_{case}_local_gap']
  )
  golden.assert_close(
    margins.margin(anchors, prototypes, counts),
    arrays[f'{size}_{case}_eff_gap'],
  )


@pytest.mark.parametrize('size', SIZES)
def test_first_round_has_a_local_gap_of_zero(arrays, size):
  anchors = tf.constant(arrays[f'{size}_anchors'])
  nothing = tf.zeros_like(anchors), tf.zeros(len(anchors))
  assert margins.local_gap(*nothing) == arrays[f'{size}_local_gap_none'] == 0.0
  golden.assert_close(
    margins.margin(anchors, *nothing), arrays[f'{size}_eff_gap_none']
  )


@pytest.mark.parametrize('size', SIZES)
def test_gap_of_no_class_is_minus_infinity(arrays, size):
  anchors = tf.constant(arrays[f'{size}_anchors'])
  gap = margins.class_gap(anchors, tf.zeros(len(anchors), tf.bool))
  assert gap == arrays[f'{size}_empty_local_gap'] == -np.inf


def test_no_gradient_through_the_margin():
  anchors = tf.constant([[0.0, 0.0], [3.0, 4.0]])
  with tf.GradientTape() as tape:
    tape.watch(anchors)
    margin = margins.margin(anchors, anchors, tf.ones(2))
  np.testing.assert_allclose(margin, 5.0, rtol=1e-6)
  assert tape.gradient(margin, anchors) is None
