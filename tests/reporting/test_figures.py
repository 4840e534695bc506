"""Figures hold what they are given; odd runs do not break them."""

import collections

import numpy as np
import pytest

from tff_fedsa.evaluation import client_evaluation
from tff_fedsa.reporting import figures
from tff_fedsa.reporting import style


def _history(rounds, losses=True):
  history = []
  for round_num in rounds:
    row = {'round': round_num}
    for classifier in client_evaluation.CLASSIFIERS:
      row[f'{classifier}_accuracy'] = 1 - 1 / (round_num + 2)
      row[f'{classifier}_accuracy_p10'] = 0.1
    if losses and round_num:
      row |= {'loss_contrastive': 1.0 / round_num, 'loss': 3.0 / round_num}
    history.append(row)
  return history


def test_curves_show_every_row():
  figure = figures.curves(_history([0, 5, 10]), 'a title')
  left, right = figure.axes
  assert len(left.lines) == len(client_evaluation.CLASSIFIERS) + 1
  np.testing.assert_array_equal(left.lines[0].get_xdata(), [0, 5, 10])
  np.testing.assert_allclose(left.lines[0].get_ydata(), [1 / 2, 6 / 7, 11 / 12])
  # Before training there is no loss; the objective comes first.
  np.testing.assert_array_equal(right.lines[0].get_xdata(), [5, 10])
  labels = [text.get_text() for text in right.get_legend().get_texts()]
  assert labels == ['objective (weighted sum)', 'contrastive']


def test_curves_of_an_averaged_model_show_every_domain():
  history = [
    {
      'round': round_num,
      'global_test_prototype_accuracy': 0.9,
      'global_test_head_accuracy': 0.5,
      'global_test_head_accuracy_amazon': 0.25,
      'global_test_head_accuracy_dslr': 0.75,
    }
    for round_num in range(3)
  ]
  left, _ = figures.curves(history).axes
  labels = [text.get_text() for text in left.get_legend().get_texts()]
  assert labels == [
    'nearest prototype (last 0.900)',
    'head (last 0.500)',
    'head, amazon',
    'head, dslr',
  ]
  assert [line.get_ydata()[0] for line in left.lines] == [0.9, 0.5, 0.25, 0.75]
  assert left.get_title() == 'Averaged model'


def test_bubbles_are_where_examples_are():
  counts = np.array([[3, 0, 12], [0, 0, 0], [0, 5, 0]])
  figure = figures.partition(counts, ['a', 'b', 'c'], ['m', 'n', 'm'])
  (bubbles,) = figure.axes[0].collections
  places = {tuple(place) for place in bubbles.get_offsets().tolist()}
  assert places == {(0, 0), (0, 2), (2, 1)}
  areas = dict(
    zip(map(tuple, bubbles.get_offsets().tolist()), bubbles.get_sizes())
  )
  assert areas[0, 2] == pytest.approx(4 * areas[0, 0])


def test_per_client_bars():
  per_client = [
    collections.OrderedDict(num_examples=10, prototype=p, anchor=5, head=9)
    for p in (2, 8, 5)
  ]
  figure = figures.per_client_accuracy(per_client, ['m', 'n', 'm'])
  heights = sorted(
    round(patch.get_height(), 3)
    for axes in figure.axes
    for patch in axes.patches
  )
  dots = [
    value
    for axes in figure.axes
    for line in axes.lines
    for value in np.atleast_1d(line.get_ydata())
  ]
  dots += [
    y
    for axes in figure.axes
    for c in axes.collections
    for _, y in c.get_offsets()
  ]
  found = np.round(heights + dots, 3)
  for accuracy in (0.2, 0.8, 0.5):
    assert accuracy in found


def test_methods_draw_the_classifiers_that_they_have():
  history = [
    {'round': r, 'head_accuracy': 0.5, 'head_accuracy_p10': 0.1} for r in (0, 1)
  ]
  figure = figures.curves(history)
  labels = [t.get_text() for t in figure.axes[0].get_legend().get_texts()]
  assert labels == [
    "client's head (last 0.500)",
    "client's head, 10th percentile of clients",
  ]
  # The second one has no test examples.
  figure = figures.per_client_accuracy(
    [{'num_examples': 4, 'head': 2}, {'num_examples': 0, 'head': 0}], ['m', 'm']
  )
  (bar,) = figure.axes[0].patches
  assert bar.get_height() == 0.5


@pytest.mark.parametrize(
  'history', [_history([0], losses=False), _history([0, 1])]
)
def test_short_runs_are_drawn(tmp_path, history):
  path = tmp_path / 'x.png'
  figures.save(figures.curves(history), str(path))
  assert path.read_bytes().startswith(b'\x89PNG')


def test_many_clients_and_classes_are_drawn(tmp_path):
  rng = np.random.default_rng(0)
  counts = rng.integers(0, 3, (200, 100))
  names = [str(i) for i in range(100)]
  figure = figures.partition(counts, names)
  figures.save(figure, str(tmp_path / 'p.png'))
  assert max(figure.get_size_inches()) <= 18


def test_formats_of_files(tmp_path):
  starts = {'png': b'\x89PNG', 'pdf': b'%PDF', 'svg': b'<?xml'}
  for form, start in starts.items():
    path = tmp_path / f'x.{form}'
    figures.save(_small(), str(path))
    content = path.read_bytes()
    assert content.startswith(start)
    # Equal figures give equal files.
    assert content == figures.encode(_small(), form)
  # Text stays text.
  assert b'>round</text>' in (tmp_path / 'x.svg').read_bytes()
  with pytest.raises(ValueError, match='ends in .png, .pdf, .svg'):
    figures.save(_small(), str(tmp_path / 'x.gif'))


def _small():
  figure = style.new_figure(2, 2)
  figure.subplots().set_xlabel('round')
  return figure
