"""Feature spaces are drawn as they are; odd ones do not break the figure."""

import matplotlib.colors
import numpy as np
import pytest

from tff_fedsa.reporting import feature_space
from tff_fedsa.reporting import figures


def _space(num_classes=4, dim=6, present=None):
  rng = np.random.default_rng(0)
  anchors = rng.normal(size=(num_classes, dim)).astype(np.float32)
  present = np.ones(num_classes, bool) if present is None else present
  prototypes = np.where(present[:, None], anchors + 0.1, 0).astype(np.float32)
  clients = [(prototypes, present.astype(np.float32))] * 2
  names = [str(i) for i in range(num_classes)]
  return anchors, prototypes, present, names, clients


@pytest.mark.parametrize(
  'present', [[True] * 4, [True, False, False, True], [False] * 4]
)
def test_anchors_and_prototypes(present):
  figure = feature_space.draw(*_space(present=np.array(present)))
  stars = [c for c in figure.axes[0].collections if c.get_sizes()[0] == 170]
  circles = [c for c in figure.axes[0].collections if c.get_sizes()[0] == 70]
  assert (len(stars), len(circles)) == (4, sum(present))
  colors = {matplotlib.colors.to_hex(star.get_facecolor()[0]) for star in stars}
  assert len(colors) == 4


def test_prototypes_that_are_not_finite_are_left_out():
  prototypes = np.arange(12, dtype=np.float32).reshape(4, 3)
  prototypes[1, 2] = np.nan
  present = np.array([True, True, True, False])
  np.testing.assert_array_equal(
    feature_space.finite_classes(prototypes, present),
    [True, False, True, False],
  )
  figure = feature_space.draw(None, prototypes, present, 'abcd')
  places = [axes.get_offsets() for axes in figure.axes[0].collections]
  assert np.isfinite(np.concatenate(places)).all()


def test_prototypes_without_anchors():
  present = np.array([True, False, True, True])
  _, *others = _space(present=present)
  figure = feature_space.draw(None, *others)
  (axes,) = figure.axes
  sizes = [c.get_sizes()[0] for c in axes.collections]
  assert sizes.count(170) == 0 and sizes.count(70) == 3
  assert {text.get_text() for text in axes.texts} == {'0', '2', '3'}
  assert axes.get_title().startswith('Prototypes')
  with pytest.raises(ValueError, match='two vectors or more.*found 1 of 3'):
    feature_space.draw(
      None, np.zeros((2, 3)), np.array([True, False]), ['0', '1']
    )


@pytest.mark.parametrize('projection', ['pca', 'tsne'])
def test_feature_spaces(projection, tmp_path):
  random = np.random.default_rng(0)
  centers = 10 * random.normal(size=[3, 5])
  labels = np.repeat([0, 1, 2], 8)
  features = centers[labels] + random.normal(size=[24, 5])
  figure = feature_space.draw(
    centers,
    centers + 0.1,
    np.array([True, True, False]),
    ['a', 'b', 'c'],
    [(centers, np.array([1, 0, 3]))],
    features=[(features, labels)],
    projection=projection,
  )
  (axes,) = figure.axes
  assert [len(c.get_offsets()) for c in axes.collections[:2]] == [2, 24]
  places = np.asarray(axes.collections[1].get_offsets())
  # Classes stay apart.
  means = np.stack([places[labels == label].mean(0) for label in range(3)])
  spread = max(places[labels == i].std(axis=0).max() for i in range(3))
  distances = np.linalg.norm(means[:, None] - means[None], axis=2)
  assert distances[np.triu_indices(3, 1)].min() > 2 * spread
  texts = [text.get_text() for text in axes.get_legend().get_texts()]
  assert 'feature of an example' in texts
  figures.save(figure, str(tmp_path / 'space.png'))


def test_features_alone_have_a_key_of_classes():
  features = np.random.default_rng(0).normal(size=[9, 4])
  figure = feature_space.draw(
    None,
    np.zeros([3, 4]),
    np.zeros(3, bool),
    ['a', 'b', 'c'],
    features=[(features, np.repeat([0, 1, 2], 3))],
  )
  texts = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
  assert texts == ['feature of an example', 'a', 'b', 'c']


def test_many_classes_are_drawn(tmp_path):
  path = tmp_path / 'a.png'
  figures.save(feature_space.draw(*_space(100, 16)), str(path))
  assert path.read_bytes().startswith(b'\x89PNG')


def test_clients_prototypes_that_are_not_finite_are_left_out():
  anchors, prototypes, present, names, _ = _space()
  theirs = prototypes.copy()
  theirs[2] = np.inf
  figure = feature_space.draw(
    None, prototypes, present, names, [(theirs, np.array([1, 0, 2, 3]))]
  )
  small = [c for c in figure.axes[0].collections if c.get_sizes()[0] == 9]
  assert [len(c.get_offsets()) for c in small] == [2]


def test_one_feature_has_no_two_directions():
  with pytest.raises(ValueError, match='two features or more, found 8 of 1'):
    feature_space.draw(*_space(dim=1)[:4])
