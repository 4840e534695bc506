"""Figures over runs show what they are given."""

import os

import matplotlib.image
import numpy as np
import pytest

from tests.reporting import made_up
from tff_fedsa.reporting import comparison_figures
from tff_fedsa.reporting import figures
from tff_fedsa.reporting import groups as groups_lib
from tff_fedsa.reporting import runs


@pytest.fixture
def groups(tmp_path):
  made_up.write_repeats(tmp_path, 'fedsa', [0.8, 0.9, 0.7])
  made_up.write_repeats(
    tmp_path, 'local', [0.6, 0.7], algorithm='local', bytes_up=0
  )
  made_up.write(
    tmp_path / 'local/seed_2',
    [0.1, 0.4],
    finished=False,
    algorithm='local',
    model_seed='2',
    sampling_seed='2',
  )
  return groups_lib.group(runs.find([str(tmp_path)], made_up.DEFAULTS))


def _saved(figure, tmp_path):
  path = os.path.join(tmp_path, 'figure.png')
  figures.save(figure, path)
  image = matplotlib.image.imread(path)[..., :3]
  assert image.std() > 0.01
  return image


def test_curves_are_means_with_bands(groups, tmp_path):
  figure = comparison_figures.curves(groups)
  prototype, head = figure.axes[:2]
  fedsa = prototype.lines[0]
  np.testing.assert_array_equal(fedsa.get_xdata(), [0, 1, 2, 3])
  np.testing.assert_allclose(fedsa.get_ydata(), [0.1, 0.6, 0.5, 0.8])
  (band,) = prototype.collections[0].get_paths()
  vertices = band.vertices
  last = vertices[vertices[:, 0] == 3][:, 1]
  np.testing.assert_allclose([last.min(), last.max()], [0.7, 0.9])
  # What was not finished is there as far as it got.
  assert any(list(line.get_ydata()) == [0.1, 0.4] for line in head.lines)
  names = [text.get_text() for text in head.get_legend().get_texts()]
  assert names == ['FedSA', 'Local']
  for axes in figure.axes:
    assert axes.get_xlabel() == 'round'
    assert axes.xaxis.get_tick_params().get('labelbottom', True)
  _saved(figure, tmp_path)


def test_boxes_are_of_clients(groups, tmp_path):
  figure = comparison_figures.per_client(groups)
  (axes,) = figure.axes
  labels = [label.get_text() for label in axes.get_yticklabels()]
  assert labels == ['FedSA (nearest prototype)', 'Local (nearest prototype)']
  offsets = axes.collections[0].get_offsets()
  np.testing.assert_allclose(offsets[:, 0], [1.0, 0.9, 0.8, 0.1])
  _saved(figure, tmp_path)


def test_communication_is_cumulative(groups, tmp_path):
  figure = comparison_figures.communication(groups)
  (axes,) = figure.axes
  megabytes = np.array([1, 2, 3]) * 4 * 1000 / 1e6
  np.testing.assert_allclose(axes.lines[0].get_xdata(), megabytes)
  np.testing.assert_allclose(axes.lines[0].get_ydata(), [0.6, 0.5, 0.8])
  # Nothing is sent: a line across.
  np.testing.assert_allclose(axes.lines[1].get_ydata(), [0.65, 0.65])
  _saved(figure, tmp_path)


def test_settings_have_panels(tmp_path):
  for alpha in ('0.1', '0.5'):
    for method in ('fedsa', 'local'):
      made_up.write_repeats(
        tmp_path,
        f'{method},alpha={alpha}',
        [0.8, 0.9],
        algorithm=method,
        alpha=alpha,
        simulated=2.0,
        bytes_up=600 if method == 'fedsa' else 0,
      )
  groups = groups_lib.group(
    runs.find([str(tmp_path)], made_up.DEFAULTS), measurement=['alpha']
  )
  assert comparison_figures.has_simulated_time(groups)
  for draw_fn in (
    comparison_figures.curves,
    comparison_figures.communication,
    comparison_figures.simulated_time,
  ):
    figure = draw_fn(groups)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ['alpha=0.1', 'alpha=0.5']
    names = [
      text.get_text() for text in figure.axes[1].get_legend().get_texts()
    ]
    assert names == ['FedSA', 'Local']
  # One seed after the other: 2, 4 and 6 seconds.
  np.testing.assert_allclose(figure.axes[0].lines[0].get_xdata(), [2, 4, 6])
  _saved(figure, tmp_path)
