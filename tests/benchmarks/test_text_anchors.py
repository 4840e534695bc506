"""Anchors from names of classes, from either kind of file."""

import json

import numpy as np

from tests import programs

text_anchors = programs.load('benchmarks.text_anchors')

_VECTORS = {
  'cat': [1.0, 0.0, 0.0],
  'dog': [0.9, 0.2, 0.0],
  'ship': [0.0, 0.0, 1.0],
  'sea': [0.0, 1.0, 0.0],
  # A phrase is no word of a text file.
  'sea dog': [9.0, 9.0, 9.0],
}


def test_both_kinds_of_files_give_the_same_anchors(tmp_path):
  text, package = tmp_path / 'words.txt', tmp_path / 'words.json'
  text.write_text(
    ''.join(
      f'{word} {" ".join(map(str, numbers))}\n'
      for word, numbers in _VECTORS.items()
      if ' ' not in word
    )
  )
  # The package stores a norm and an index behind each vector.
  padded = {word: [*n, 1.0, 5] for word, n in _VECTORS.items()}
  package.write_text(json.dumps({'dimensions': 3, 'vectors': padded}))
  classes = ['cat', 'dog', 'sea_ship']
  anchors = text_anchors.anchors_of(classes, str(text), 4)
  assert anchors.shape == (3, 4) and anchors.dtype == np.float32
  np.testing.assert_array_equal(
    anchors, text_anchors.anchors_of(classes, str(package), 4)
  )
  # A class of two words has the mean of their vectors.
  rows = np.array([[1.0, 0.0, 0.0], [0.9, 0.2, 0.0], [0.0, 0.5, 0.5]])
  expected = np.linalg.norm(rows[:, np.newaxis] - rows, axis=-1)
  found = np.linalg.norm(anchors[:, np.newaxis] - anchors, axis=-1)
  np.testing.assert_allclose(
    found / found.max(), expected / expected.max(), atol=1e-5
  )
  assert text_anchors.nearest(classes, anchors) == [
    ('cat', 'dog'),
    ('dog', 'cat'),
    ('sea_ship', 'dog'),
  ]
