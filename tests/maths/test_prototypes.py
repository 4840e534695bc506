"""Class means and nearest-class prediction (golden file 6 and by hand)."""

import numpy as np
import pytest
import tensorflow as tf

from tests import golden
from tff_fedsa.maths import prototypes


@pytest.mark.parametrize('size', ['c10d16', 'c10d512', 'c100d64'])
def test_nearest_class_equals_the_reference(size):
  arrays = golden.load('6_eval')
  features = tf.constant(arrays[f'{size}_feats'])
  centers = tf.constant(arrays[f'{size}_global_protos'])  # NaN rows: absent
  present = ~tf.math.is_nan(centers[:, 0])
  golden.assert_close(
    prototypes.mean_squared_distances(features, centers, present),
    arrays[f'{size}_dist'],
  )
  predicted = prototypes.nearest_class(features, centers, present)
  np.testing.assert_array_equal(predicted, arrays[f'{size}_pred'])
  correct = np.sum(predicted.numpy() == arrays[f'{size}_y'])
  assert [correct, len(features)] == arrays[f'{size}_correct_total'].tolist()


def test_nothing_is_predicted_without_prototypes():
  predicted = prototypes.nearest_class(
    tf.zeros([3, 2]), tf.zeros([4, 2]), tf.zeros([4], tf.bool)
  )
  assert predicted.numpy().tolist() == [-1, -1, -1]


def test_class_sums_and_means_by_hand():
  features = tf.constant([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]])
  labels = tf.constant([2, 0, 2, 2])
  weights = tf.constant([1.0, 1.0, 1.0, 0.0])  # the last is not counted
  sums, counts = prototypes.class_sums(features, labels, 3, weights)
  assert sums.numpy().tolist() == [[3, 4], [0, 0], [6, 8]]
  assert counts.numpy().tolist() == [1, 0, 2]
  means = prototypes.class_means(sums, counts)
  assert means.numpy().tolist() == [[3, 4], [0, 0], [3, 4]]


def test_upload_weights():
  counts = tf.constant([0.0, 1.0, 7.0])
  as_list = lambda w: prototypes.upload_weights(counts, w).numpy().tolist()
  assert as_list('clients') == [0.0, 1.0, 1.0]
  assert as_list('examples') == [0.0, 1.0, 7.0]
  with pytest.raises(ValueError, match='known: clients, examples'):
    prototypes.upload_weights(counts, 'none')


def test_type():
  assert str(prototypes.prototypes_type(3, 2)) == (
    '<vectors=float32[3,2],weights=float32[3]>'
  )
