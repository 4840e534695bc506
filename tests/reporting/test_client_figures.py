"""Figures of clients show what they are given."""

import numpy as np
import pytest

from tests.reporting import made_up
from tff_fedsa.reporting import client_figures
from tff_fedsa.reporting import groups as groups_lib
from tff_fedsa.reporting import projections
from tff_fedsa.reporting import runs


def test_gains_are_marks_above_the_diagonal(tmp_path):
  made_up.write_repeats(tmp_path, 'fedsa', [0.7], correct=(10, 9, 8, 1))
  made_up.write_repeats(
    tmp_path, 'local', [0.6], algorithm='local', correct=(9, 9, 4, 2)
  )
  groups = groups_lib.group(runs.find([str(tmp_path)], made_up.DEFAULTS))
  assert client_figures.has_gains(groups)
  assert not client_figures.has_gains(groups[:1])
  (axes,) = client_figures.gains(groups).axes
  np.testing.assert_allclose(
    axes.collections[0].get_offsets(),
    [[0.9, 1.0], [0.9, 0.9], [0.4, 0.8], [0.2, 0.1]],
  )
  assert axes.get_title() == 'FedSA\n50% gain, 25% lose'


def test_gains_in_several_settings_name_them_on_lines_of_their_own(tmp_path):
  for alpha in ('0.1', '0.5'):
    for name, algorithm in (('moving_anchors', 'fedsa'), ('local', 'local')):
      made_up.write_repeats(
        tmp_path,
        f'alpha={alpha},{name}',
        [0.7],
        algorithm=algorithm,
        alpha=alpha,
        correct=(10, 9, 8, 1),
      )
  groups = groups_lib.group(
    runs.find([str(tmp_path)], made_up.DEFAULTS), measurement=['alpha']
  )
  titles = [axes.get_title() for axes in client_figures.gains(groups).axes]
  assert titles == [
    f'moving_anchors\nalpha={alpha}\n0% gain, 0% lose' for alpha in (0.1, 0.5)
  ]


def _clients():
  """Classes at 0 and 10; the second architecture is 3 away."""
  centers = np.array([[0.0, 0.0], [10.0, 0.0]])
  vectors = [centers, centers + [0, 1], centers + [0, 3]]
  return [(own, np.ones(2)) for own in vectors], ['a', 'a', 'b']


def test_distances_of_prototypes_by_hand():
  prototypes, architectures = _clients()
  names, found = client_figures.prototype_distances(prototypes, architectures)
  assert names == ['a', 'b']
  # Of different classes: 10 long and 1, 2 or 3 wide, twice each pair.
  others = np.mean(np.hypot(10, [1, 3, 2]))
  assert found[0, 0] == pytest.approx(1 / others)
  assert found[0, 1] == found[1, 0] == pytest.approx(2.5 / others)
  # There is one client only.
  assert np.isnan(found[1, 1])
  # A class without examples does not count.
  vectors, _ = prototypes[2]
  prototypes[2] = np.full_like(vectors, 7.0), np.zeros(2)
  _, found = client_figures.prototype_distances(prototypes, architectures)
  assert np.isnan(found[0, 1]) and not np.isnan(found[0, 0])
  figure = client_figures.draw_prototype_distances(prototypes, architectures)
  written = [text.get_text() for text in figure.axes[0].texts]
  assert written == [f'{found[0, 0]:.2f}', '–', '–', '–']


def test_features_have_a_panel_for_each_architecture(monkeypatch):
  # t-SNE takes seconds; tests of projections run it.
  monkeypatch.setattr(
    projections, 'tsne', lambda parts: ([p[:, :2] for p in parts], ('x', 'y'))
  )
  rng = np.random.default_rng(0)
  features = [
    (rng.standard_normal([12, 4]), np.arange(12) % 3) for _ in range(3)
  ]
  figure = client_figures.features_by_architecture(
    features, ['a', 'b', 'a'], ['x', 'y', 'z']
  )
  assert [axes.get_title() for axes in figure.axes] == [
    'a, by class',
    'b, by class',
    'a, by client',
    'b, by client',
  ]
  of_a, of_b = figure.axes[2:]
  assert [t.get_text() for t in of_a.get_legend().get_texts()] == [
    'client 0',
    'client 2',
  ]
  # All examples in grey, then those of its clients.
  assert [len(c.get_offsets()) for c in of_b.collections] == [36, 12]
