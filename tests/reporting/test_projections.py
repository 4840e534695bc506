"""Projections agree with linear algebra; their signs are fixed."""

import numpy as np
import pytest

from tff_fedsa.reporting import projections


def test_pca_is_that_of_the_singular_values():
  vectors = np.random.default_rng(0).normal(size=[9, 5]).astype(np.float32)
  others = vectors[:3] + 1
  found, labels = projections.pca([vectors, others], vectors)
  center = vectors.mean(axis=0)
  _, scales, directions = np.linalg.svd(vectors - center, full_matrices=False)
  for places, part in zip(found, (vectors, others)):
    expected = (part - center) @ directions[:2].T
    np.testing.assert_allclose(np.abs(places), np.abs(expected), atol=1e-5)
  shares = scales**2 / np.sum(scales**2)
  assert labels[0].endswith(f'({shares[0]:.0%} of variance)')
  assert labels[1].endswith(f'({shares[1]:.0%})')


@pytest.mark.parametrize('sign', [1, -1])
def test_signs_of_pca_are_fixed(sign):
  # Along the first feature, then along the second.
  vectors = sign * np.array([[3.0, 0, 0], [-3, 0, 0], [0, -1, 0], [0, 1, 0]])
  (places,), _ = projections.pca([vectors], vectors)
  np.testing.assert_allclose(places, vectors[:, :2], atol=1e-12)


def test_a_part_may_be_empty():
  vectors = np.eye(3)
  found, _ = projections.pca([vectors[:0], vectors], vectors)
  assert [places.shape for places in found] == [(0, 2), (3, 2)]


def test_tsne_keeps_parts_apart():
  random = np.random.default_rng(0)
  parts = [random.normal(size=[n, 4]) for n in (3, 0, 5)]
  found, _ = projections.tsne(parts)
  assert [places.shape for places in found] == [(3, 2), (0, 2), (5, 2)]
