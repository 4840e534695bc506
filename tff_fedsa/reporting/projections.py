"""Projections of a feature space to two dimensions."""

from collections.abc import Sequence

import numpy as np


def pca(
  parts: Sequence[np.ndarray], fitted: np.ndarray
) -> tuple[list[np.ndarray], tuple[str, str]]:
  """Projects on the two directions of largest variance.

  Signs are fixed: the largest component of a direction is positive.

  Args:
    parts: Arrays float[?, feature_dim] of vectors to project.
    fitted: float[num_vectors, feature_dim], the vectors that define the
      directions, at least two with at least two dimensions.

  Returns:
    Arrays float[?, 2], and labels of the two axes.
  """
  from sklearn import decomposition  # Slow to import.

  found = decomposition.PCA(n_components=2, svd_solver='full').fit(fitted)
  directions = found.components_
  largest = np.abs(directions).argmax(axis=1)
  directions *= np.sign(directions[[0, 1], largest])[:, np.newaxis]
  explained = found.explained_variance_ratio_
  # `transform` refuses a client without vectors.
  return [(vectors - found.mean_) @ directions.T for vectors in parts], (
    f'first principal direction ({explained[0]:.0%} of variance)',
    f'second principal direction ({explained[1]:.0%})',
  )


def tsne(
  parts: Sequence[np.ndarray],
) -> tuple[list[np.ndarray], tuple[str, str]]:
  """Places vectors by t-SNE, all parts together.

  Args:
    parts: Arrays float[?, feature_dim] of vectors.

  Returns:
    Arrays float[?, 2], and labels of the two axes.
  """
  from sklearn import manifold  # Slow to import.

  vectors = np.concatenate(parts)
  placed = manifold.TSNE(
    perplexity=min(30.0, (len(vectors) - 1) / 3),
    init='pca',
    random_state=0,
  ).fit_transform(vectors)
  ends = np.cumsum([len(part) for part in parts])
  return np.split(placed, ends[:-1]), ('t-SNE, first', 't-SNE, second')
