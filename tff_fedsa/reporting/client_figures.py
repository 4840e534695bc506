"""Figures of clients: gains over Local, and agreement of architectures."""

from collections.abc import Sequence
import math
from typing import Any

from matplotlib import figure as figure_lib
import numpy as np

from tff_fedsa.reporting import fairness
from tff_fedsa.reporting import feature_space
from tff_fedsa.reporting import groups as groups_lib
from tff_fedsa.reporting import names
from tff_fedsa.reporting import projections
from tff_fedsa.reporting import style as style_lib

_MOST_PANELS = 4
# Prototypes of more clients are not compared.
_MOST_CLIENTS = 100


def has_gains(groups: Sequence[groups_lib.Group]) -> bool:
  """Returns whether runs have runs of Local beside them.

  Args:
    groups: Result of `groups.group`.
  """
  return bool(fairness.over_runs(groups)['gain'].notna().any())


def gains(groups: Sequence[groups_lib.Group]) -> figure_lib.Figure:
  """Draws each client's accuracy against its accuracy with Local.

  There is one panel for each configuration, and one mark for each client of
  each seed. Clients above the diagonal gain from the others.

  Args:
    groups: Result of `groups.group`; `has_gains` of them is true.
  """
  styles = dict(zip([g.name for g in groups], style_lib.of_groups(groups)))
  panels = []
  for group in groups:
    if group.algorithm == fairness.ALONE:
      continue
    pairs = []
    alone = fairness.runs_alone(group, groups)
    for run in group.finished:
      gained = fairness.gains(run, alone)
      own = fairness.accuracies(run)
      if gained is not None and own is not None:
        pairs.append(np.stack([own[gained.index] - gained, own[gained.index]]))
    if pairs:
      panels.append((group, np.concatenate(pairs, axis=1)))
  # A row for each method, if there are several settings.
  rows_of = list(dict.fromkeys(group.place.row for group, _ in panels))
  panels.sort(key=lambda panel: rows_of.index(panel[0].place.row))
  num_settings = len({group.setting for group, _ in panels})
  columns = num_settings if num_settings > 1 else len(panels)
  columns = min(columns, _MOST_PANELS)
  rows = -(-len(panels) // columns)
  figure = style_lib.new_figure(3.1 * columns + 0.4, 3.3 * rows + 0.3)
  grid = figure.subplots(rows, columns, squeeze=False).flatten()
  for axes in grid[len(panels) :]:
    axes.set_axis_off()
  for axes, (group, (x, y)) in zip(grid, panels):
    style = styles[group.name]
    name, setting = group.name, []
    if num_settings > 1:
      name, setting = group.place.row, [group.setting]
    axes.plot([0, 1], [0, 1], color='grey', linewidth=1, linestyle='--')
    axes.scatter(
      x,
      y,
      s=22,
      **style.points,
      alpha=0.6,
      linewidths=0.7,
    )
    axes.set(
      title='\n'.join(
        [
          names.title(name, group.algorithm),
          *setting,
          f'{np.mean(y > x):.0%} gain, {np.mean(y < x):.0%} lose',
        ]
      ),
      xlabel='accuracy with Local',
      ylabel='accuracy',
      xlim=(-0.03, 1.03),
      ylim=(-0.03, 1.03),
      aspect='equal',
    )
    style_lib.tidy(axes)
  return figure


def features_by_architecture(
  features: Sequence[tuple[np.ndarray, np.ndarray]],
  architectures: Sequence[str],
  class_names: Sequence[str],
  title: str = '',
) -> figure_lib.Figure:
  """Draws features of examples by t-SNE, all architectures in one space.

  The first row has a panel for each architecture, coloured by class: where
  architectures agree, a class has one place in all panels. The second row has
  the same places, coloured by client.

  Args:
    features: Per client `(vectors, labels)` of examples.
    architectures: Architecture of each of these clients.
    class_names: One per class.
    title: Title of the figure.

  Raises:
    ValueError: If there are fewer than two examples.
  """
  placed, _ = projections.tsne([vectors for vectors, _ in features])
  of_classes = feature_space.class_colors(len(class_names))
  of_clients = feature_space.class_colors(len(features))
  found = list(dict.fromkeys(architectures))
  figure = style_lib.new_figure(3.3 * len(found) + 1.4, 6.6)
  grid = figure.subplots(2, len(found), sharex=True, sharey=True, squeeze=False)
  everything = np.concatenate(placed)
  for (top, bottom), architecture in zip(grid.T, found):
    for axes in (top, bottom):
      axes.scatter(*everything.T, s=4, color='#e6e6e6', linewidths=0)
      axes.set(xticks=[], yticks=[], xlabel='t-SNE, first')
    for client, (places, (_, labels)) in enumerate(zip(placed, features)):
      if architectures[client] != architecture or not len(places):
        continue
      own = [of_classes[label] for label in labels]
      top.scatter(*places.T, s=9, c=own, linewidths=0)
      bottom.scatter(
        *places.T,
        s=9,
        color=of_clients[client],
        linewidths=0,
        label=f'client {client}',
      )
    top.set_title(f'{architecture}, by class')
    bottom.set_title(f'{architecture}, by client')
    bottom.legend(fontsize=7, markerscale=2, loc='best', framealpha=0.7)
  grid[0, 0].set_ylabel('t-SNE, second')
  grid[1, 0].set_ylabel('t-SNE, second')
  if len(class_names) <= 20:
    handles = [
      grid[0, 0].scatter([], [], color=color, label=name)
      for color, name in zip(of_classes, class_names)
    ]
    style_lib.legend_beside(grid[0, -1], handles=handles, title='class')
  if title:
    figure.suptitle(title)
  return figure


def prototype_distances(
  client_prototypes: Sequence[tuple[np.ndarray, np.ndarray]],
  architectures: Sequence[str],
) -> tuple[list[str], np.ndarray]:
  """Returns how far prototypes of one class lie apart, by architecture.

  The value of two architectures is the mean distance of prototypes of the same
  class of two different clients, divided by the mean distance of prototypes of
  different classes, over all clients. So 0 is agreement, and 1 means that a
  class of one architecture is as far from the same class of the other as from
  any other class. The time is quadratic in clients: the first 100 count.

  Args:
    client_prototypes: Per client `(vectors, counts)`.
    architectures: Architecture of each client.

  Returns:
    Names of architectures, and float64[architectures, architectures]; NaN where
    there are no two such clients.
  """
  found = list(dict.fromkeys(architectures))
  same = np.zeros([len(found)] * 2)
  pairs = np.zeros([len(found)] * 2)
  others, num_others = 0.0, 0
  held = [
    feature_space.finite_classes(vectors, counts > 0)
    for vectors, counts in client_prototypes
  ]
  for i, (own, _) in enumerate(client_prototypes[:_MOST_CLIENTS]):
    for j in range(i):
      theirs = client_prototypes[j][0]
      between = np.linalg.norm(
        own[held[i]][:, np.newaxis] - theirs[held[j]], axis=2
      )
      is_same = np.equal.outer(np.flatnonzero(held[i]), np.flatnonzero(held[j]))
      place = found.index(architectures[i]), found.index(architectures[j])
      for cell in {place, place[::-1]}:
        same[cell] += between[is_same].sum()
        pairs[cell] += is_same.sum()
      others += between[~is_same].sum()
      num_others += int((~is_same).sum())
  with np.errstate(invalid='ignore', divide='ignore'):
    scale = others / num_others if num_others else math.nan
    return found, same / pairs / scale


def draw_prototype_distances(
  client_prototypes: Sequence[tuple[np.ndarray, np.ndarray]],
  architectures: Sequence[str],
  title: str = '',
) -> figure_lib.Figure:
  """Draws `prototype_distances` as a heat map.

  Args:
    client_prototypes: Per client `(vectors, counts)`.
    architectures: Architecture of each client.
    title: Title of the figure.
  """
  found, values = prototype_distances(client_prototypes, architectures)
  side = 3.0 + 0.8 * len(found)
  figure = style_lib.new_figure(side + 1.6, side)
  axes: Any = figure.subplots()
  image = axes.imshow(values, cmap='viridis_r', vmin=0, vmax=1)
  for (row, column), value in np.ndenumerate(values):
    axes.text(
      column,
      row,
      '–' if math.isnan(value) else f'{value:.2f}',
      ha='center',
      va='center',
      path_effects=style_lib.outline(),
    )
  places = range(len(found))
  axes.set_xticks(places, found, rotation=30, ha='right')
  axes.set_yticks(places, found)
  axes.set_title(
    (f'{title}\n' if title else '') + 'distance of prototypes of one class,\n'
    'relative to those of different classes'
  )
  figure.colorbar(image, ax=axes, shrink=0.8)
  return figure
