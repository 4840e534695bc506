"""Confusion and reliability are drawn from sums."""

import numpy as np
import pytest

from tff_fedsa.reporting import classification_figures


def test_confusion_in_percent():
  matrix = np.array([[3, 1, 0], [0, 4, 0]])
  figure = classification_figures.confusion(matrix, ['cat', 'dog'], 'head')
  axes = figure.axes[0]
  # Nothing was left without prediction.
  assert [t.get_text() for t in axes.get_xticklabels()] == ['cat', 'dog']
  assert [t.get_text() for t in axes.texts] == ['75', '25', '100']
  matrix[1, 2] = 4
  figure = classification_figures.confusion(matrix, ['cat', 'dog'], 'head')
  names = [t.get_text() for t in figure.axes[0].get_xticklabels()]
  assert names == ['cat', 'dog', 'none']
  assert figure.axes[0].texts[-1].get_text() == '50'


def test_reliability_by_bins():
  sums = np.zeros([3, 15])
  # Ten examples of confidence 0.5, four right; ten of 0.9, nine right.
  sums[:, 7], sums[:, 13] = [10, 4, 5], [10, 9, 9]
  figure = classification_figures.reliability({'head': sums})
  top, bottom = figure.axes
  np.testing.assert_allclose(
    top.lines[1].get_xydata(), [[0.5, 0.4], [0.9, 0.9]]
  )
  assert top.get_title().endswith('ECE 0.050')
  assert sum(bar.get_height() for bar in bottom.patches) == pytest.approx(1.0)
