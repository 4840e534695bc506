"""Figures of a feature space: anchors, prototypes and features in 2-D."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Optional

import matplotlib
from matplotlib import figure as figure_lib
from matplotlib import lines as lines_lib
import numpy as np

from tff_fedsa.reporting import projections
from tff_fedsa.reporting import style
from tff_fedsa.runs import errors

# More names would cover each other.
_MOST_NAMES = 30


class _Places(NamedTuple):
  """Points of the feature space, in two dimensions.

  Attributes:
    clients: Per client `(places, labels)` of its prototypes.
    features: Per client `(places, labels)` of examples.
    prototypes: `(places, labels)` of global prototypes.
    anchors: float[num_classes, 2], or None without anchors.
  """

  clients: Sequence[tuple[np.ndarray, np.ndarray]]
  features: Sequence[tuple[np.ndarray, np.ndarray]]
  prototypes: tuple[np.ndarray, np.ndarray]
  anchors: Optional[np.ndarray]


def finite_classes(prototypes: np.ndarray, present: np.ndarray) -> np.ndarray:
  """Returns the classes with a prototype that can be drawn.

  Args:
    prototypes: float[num_classes, feature_dim]. They are not finite if the
      server's training diverged.
    present: bool[num_classes], which of them there are.

  Returns:
    bool[num_classes].
  """
  return np.logical_and(present, np.isfinite(prototypes).all(axis=1))


def draw(
  anchors: Optional[np.ndarray],
  prototypes: np.ndarray,
  present: np.ndarray,
  class_names: Sequence[str],
  client_prototypes: Sequence[tuple[np.ndarray, np.ndarray]] = (),
  *,
  features: Sequence[tuple[np.ndarray, np.ndarray]] = (),
  projection: str = 'pca',
  title: str = '',
) -> figure_lib.Figure:
  """Draws the feature space in 2-D: anchors, prototypes, features.

  `pca` projects on the two directions in which anchors and present prototypes
  vary most. Without anchors the directions also depend on the clients'
  prototypes, and without any of these on the features. `tsne` keeps neighbours
  near each other. Its larger distances mean nothing.

  Args:
    anchors: float[num_classes, feature_dim], or None without anchors.
    prototypes: float[num_classes, feature_dim], global prototypes.
    present: bool[num_classes], whether a class has a global prototype.
      Prototypes that are not finite are left out.
    class_names: One per class.
    client_prototypes: Per client `(vectors, counts)`, drawn as small dots.
    features: Per client `(vectors, labels)` of examples, drawn as crosses.
    projection: `pca` or `tsne`.
    title: Title of the figure. Default: a description.

  Raises:
    ValueError: If there are no two directions: fewer than two vectors, or only
      one feature.
  """
  labels = np.flatnonzero(finite_classes(prototypes, present))
  held = [
    np.flatnonzero(finite_classes(vectors, counts > 0))
    for vectors, counts in client_prototypes
  ]
  theirs = [vectors[own] for own, (vectors, _) in zip(held, client_prototypes)]
  examples = [vectors for vectors, _ in features]
  fitted = [prototypes[labels], *(theirs if anchors is None else [anchors])]
  if sum(map(len, fitted)) < 2:
    fitted += examples
  vectors = np.concatenate(fitted)
  if min(vectors.shape) < 2:
    raise errors.UserError(
      'Expected two vectors or more, of two features or more, found '
      f'{vectors.shape[0]} of {vectors.shape[1]}.'
    )
  parts = [*theirs, *examples, prototypes[labels]]
  if anchors is not None:
    parts.append(anchors)
  found, axis_labels = (
    projections.tsne(parts)
    if projection == 'tsne'
    else projections.pca(parts, vectors)
  )
  remaining = iter(found)
  places = _Places(
    clients=[(next(remaining), own) for own in held],
    features=[(next(remaining), own) for _, own in features],
    prototypes=(next(remaining), labels),
    anchors=next(remaining, None),
  )
  colors = class_colors(len(class_names))
  figure = style.new_figure(8.2, 6.2)
  axes = figure.subplots()
  _draw_small(axes, places, colors)
  _draw_large(axes, places, colors)
  if len(class_names) <= _MOST_NAMES:
    _name_classes(axes, places, class_names)
  _add_legend(axes, places, class_names, colors)
  kind = 't-SNE' if projection == 'tsne' else 'PCA'
  what = 'Prototypes' if anchors is None else 'Anchors and prototypes'
  axes.set(
    xlabel=axis_labels[0],
    ylabel=axis_labels[1],
    title=title or f'{what}, feature space in 2-D ({kind})',
  )
  # Distances have a meaning, so both axes have the same scale.
  axes.set_aspect('equal', adjustable='datalim')
  style.tidy(axes)
  return figure


def class_colors(num_classes: int) -> list[Any]:
  """Returns a colour for each class (or client)."""
  if num_classes <= 10:
    return [
      matplotlib.colormaps['tab10'](label) for label in range(num_classes)
    ]
  cmap = matplotlib.colormaps['nipy_spectral']
  return [cmap(label / (num_classes - 1)) for label in range(num_classes)]


def _draw_small(axes: Any, places: _Places, colors: Sequence[Any]) -> None:
  """Draws clients' prototypes as dots, and features as crosses."""
  for (x, y), labels in ((found.T, own) for found, own in places.clients):
    own_colors = [colors[label] for label in labels]
    axes.scatter(x, y, s=9, c=own_colors, alpha=0.45, linewidths=0)
  for (x, y), labels in ((found.T, own) for found, own in places.features):
    own_colors = [colors[label] for label in labels]
    axes.scatter(
      x, y, s=12, marker='x', c=own_colors, alpha=0.5, linewidths=0.7
    )


def _draw_large(axes: Any, places: _Places, colors: Sequence[Any]) -> None:
  """Draws global prototypes as circles, anchors as stars, and lines between."""
  edge = {'edgecolors': 'black', 'linewidths': 0.6}
  for place, label in zip(*places.prototypes):
    axes.scatter(*place, s=70, color=colors[label], zorder=3, **edge)
  if places.anchors is None:
    return
  for place, label in zip(*places.prototypes):
    ends = np.stack([places.anchors[label], place])
    axes.plot(*ends.T, color=colors[label], linewidth=1, alpha=0.7)
  for place, color in zip(places.anchors, colors):
    axes.scatter(*place, s=170, color=color, marker='*', zorder=4, **edge)


def _name_classes(
  axes: Any, places: _Places, class_names: Sequence[str]
) -> None:
  """Writes the name of each class beside its anchor or prototype."""
  named = places.prototypes
  if places.anchors is not None:
    named = places.anchors, np.arange(len(class_names))
  for place, label in zip(*named):
    axes.annotate(
      class_names[label],
      place,
      xytext=(7, 6),
      textcoords='offset points',
      fontsize=9,
      path_effects=style.outline(),
      zorder=5,
    )


def _add_legend(
  axes: Any, places: _Places, class_names: Sequence[str], colors: Sequence[Any]
) -> None:
  keys: list[tuple[str, int, str, Any]] = []
  if places.anchors is not None:
    keys.append(('*', 13, 'anchor', 'grey'))
  if len(places.prototypes[1]):
    keys.append(('o', 8, 'global prototype', 'grey'))
  if places.clients:
    keys.append(('o', 3, "client's prototype", 'grey'))
  if places.features:
    keys.append(('x', 4, 'feature of an example', 'grey'))
  is_named = places.anchors is not None or len(places.prototypes[1])
  if not is_named and len(class_names) <= _MOST_NAMES:
    # Nothing else in the figure names the classes.
    keys += [('s', 6, n, color) for n, color in zip(class_names, colors)]
  handles = [
    lines_lib.Line2D(
      [],
      [],
      marker=marker,
      markersize=size,
      linestyle='',
      color=color,
      label=label,
    )
    for marker, size, label, color in keys
  ]
  style.legend_beside(axes, handles=handles)
