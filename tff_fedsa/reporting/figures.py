"""Figures of a run, each a function from data to a `matplotlib` figure."""

from collections.abc import Mapping, Sequence
import itertools
from typing import Any, Optional

import matplotlib
from matplotlib import figure as figure_lib
from matplotlib import lines as lines_lib
from matplotlib import patheffects
from matplotlib import ticker
import matplotlib.backends.backend_agg
import numpy as np

from tff_fedsa.evaluation import client_evaluation

# Okabe and Ito's palette: distinguishable for colour-blind readers.
_COLORS = {
  'prototype': '#0072B2',
  'anchor': '#D55E00',
  'head': '#009E73',
  'global_head': '#CC79A7',
}
# A term has the same place and colour in every figure.
_LOSS_COLORS = {
  'loss': '#000000',
  'loss_cross_entropy': '#0072B2',
  'loss_regularization': '#D55E00',
  'loss_contrastive': '#009E73',
  'loss_calibration': '#CC79A7',
  'loss_distillation': '#56B4E9',
}
PALETTE = (
  '#0072B2',
  '#E69F00',
  '#009E73',
  '#CC79A7',
  '#56B4E9',
  '#D55E00',
  '#F0E442',
  '#000000',
  '#999999',
  '#882255',
)
CLASSIFIER_LABELS = {
  'prototype': 'nearest prototype',
  'anchor': 'nearest anchor',
  'head': "client's head",
  'global_head': "server's head",
}
_GLOBAL_CLASSIFIER_LABELS = {**CLASSIFIER_LABELS, 'head': 'head'}
# Of thin lines: single domains, or a percentile of clients.
_SPREAD_STYLES = (':', '--', '-.', (0, (1, 4)), (0, (6, 2, 1, 2, 1, 2)))


def save(figure: figure_lib.Figure, path: str) -> None:
  """Writes a figure as PNG."""
  # Without pyplot there is no global state and no window.
  matplotlib.backends.backend_agg.FigureCanvasAgg(figure)
  figure.savefig(path, dpi=150)


def new_figure(width: float, height: float) -> figure_lib.Figure:
  """Returns an empty figure of so many inches."""
  return figure_lib.Figure(figsize=(width, height), layout='constrained')


def _outline() -> list[patheffects.AbstractPathEffect]:
  """Makes text readable over marks and lines."""
  return [patheffects.withStroke(linewidth=2.5, foreground='white')]


def tidy(axes: Any) -> None:
  """Gives axes the style of all figures."""
  axes.spines[['top', 'right']].set_visible(False)
  axes.grid(alpha=0.25, linewidth=0.6)
  axes.set_axisbelow(True)


def _palette(architectures: Sequence[str]) -> dict[str, Any]:
  """Returns a colour for each architecture, in order of appearance."""
  names = list(dict.fromkeys(architectures))
  return dict(zip(names, np.resize(PALETTE, len(names))))


def _architecture_legend(
  axes: Any, palette: Mapping[str, Any], marker: str
) -> None:
  handles = [
    lines_lib.Line2D(
      [], [], marker=marker, linestyle='', color=color, label=name
    )
    for name, color in palette.items()
  ]
  axes.legend(
    handles=handles,
    loc='upper left',
    bbox_to_anchor=(1.0, 1.0),
    frameon=False,
    title='architecture',
  )


def curves(
  history: Sequence[Mapping[str, Any]], title: str = ''
) -> figure_lib.Figure:
  """Draws accuracies, with the spread over clients or domains, and loss terms.

  Args:
    history: Rows with `metrics.COLUMNS`.
    title: Above the figure.
  """
  figure = new_figure(12.5, 4.2)
  left, right = figure.subplots(1, 2)
  rounds = np.array([row['round'] for row in history])
  known = (
    *client_evaluation.CLASSIFIERS,
    *client_evaluation.GLOBAL_CLASSIFIERS,
  )
  found = [n for n in known if f'{n}_accuracy' in history[0]]
  main = client_evaluation.main_classifier(found)
  is_global = main in client_evaluation.GLOBAL_CLASSIFIERS
  labels = _GLOBAL_CLASSIFIER_LABELS if is_global else CLASSIFIER_LABELS
  for name in found:
    base = name.removeprefix(client_evaluation.GLOBAL_PREFIX)
    micro = np.array([row[f'{name}_accuracy'] for row in history])
    left.plot(
      rounds,
      micro,
      color=_COLORS[base],
      label=f'{labels[base]} (last {micro[-1]:.3f})',
    )
  base = main.removeprefix(client_evaluation.GLOBAL_PREFIX)
  if is_global:
    # One line per domain, if there are any.
    spread = [n for n in history[0] if n.startswith(f'{main}_accuracy_')]
  else:
    spread = [f'{main}_accuracy_p10']
  for column, style in zip(spread, itertools.cycle(_SPREAD_STYLES)):
    of = column.removeprefix(f'{main}_accuracy_')
    left.plot(
      rounds,
      [row[column] for row in history],
      color=_COLORS[base],
      linewidth=0.9,
      linestyle=style,
      label=f'{labels[base]}, '
      + (of if is_global else '10th percentile of clients'),
    )
  left.set(
    xlabel='round',
    ylabel='accuracy on '
    + ('the global test set' if is_global else 'own test data'),
    ylim=(0, 1.01),
    title='Averaged model' if is_global else 'All clients',
  )
  left.legend(
    # Clients' own accuracies are high soon.
    loc='best' if is_global else 'lower right',
    framealpha=0.7,
    edgecolor='none',
    fontsize=9,
  )
  for axes in (left, right):
    axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
  trained = [row for row in history if 'loss' in row]
  terms = [n for n in (trained[0] if trained else {}) if n.startswith('loss')]
  names = [n for n in _LOSS_COLORS if n in terms]
  names += [n for n in terms if n not in _LOSS_COLORS]
  for name in names:
    right.plot(
      [row['round'] for row in trained],
      [row[name] for row in trained],
      color=_LOSS_COLORS.get(name, '#999999'),
      linewidth=2.0 if name == 'loss' else 1.2,
      label=name.removeprefix('loss_').replace('_', ' ')
      if name != 'loss'
      else 'objective (weighted sum)',
    )
  right.set(
    xlabel='round',
    ylabel='mean over training examples',
    yscale='log',
    title='Loss terms, unweighted',
  )
  if names:
    right.legend(
      loc='upper left',
      bbox_to_anchor=(1.0, 1.0),
      frameon=False,
      fontsize=9,
    )
  for axes in (left, right):
    tidy(axes)
  if title:
    figure.suptitle(title)
  return figure


def partition(
  counts: np.ndarray,
  class_names: Sequence[str],
  architectures: Optional[Sequence[str]] = None,
) -> figure_lib.Figure:
  """Draws how many examples of each class each client trains on.

  Args:
    counts: int[num_clients, num_classes].
    class_names: One per class.
    architectures: Each client's architecture, which colours its bubbles.
  """
  num_clients, num_classes = counts.shape
  height = min(2.4 + 0.26 * num_classes, 16.0)
  figure = new_figure(min(3.4 + 0.32 * num_clients, 18.0), height)
  axes = figure.subplots()
  clients, classes = np.nonzero(counts)
  values = counts[clients, classes]
  largest = values.max()
  # The largest bubble just touches its neighbours.
  cell = min(14.0, 700.0 / max(num_clients, num_classes))
  areas = values / largest * cell**2
  colors: str | list[str] = _COLORS['prototype']
  if architectures is not None:
    palette = _palette(architectures)
    colors = [palette[architectures[client]] for client in clients]
  axes.scatter(clients, classes, s=areas, c=colors, alpha=0.75, linewidths=0)
  axes.set(
    xlabel='client',
    ylabel='class',
    xlim=(-0.8, num_clients - 0.2),
    ylim=(num_classes - 0.2, -0.8),
    title=f'Training examples per client and class '
    f'({counts.sum()} in all, largest bubble {largest})',
  )
  if num_classes <= 30:
    axes.set_yticks(range(num_classes), class_names)
  if num_clients <= 40:
    axes.set_xticks(range(num_clients))
  axes.spines[['top', 'right']].set_visible(False)
  axes.grid(alpha=0.2, linewidth=0.5)
  axes.set_axisbelow(True)
  if architectures is not None:
    _architecture_legend(axes, palette, 'o')
  return figure


def per_client_accuracy(
  per_client: Sequence[Mapping[str, Any]],
  architectures: Sequence[str],
  classifier: Optional[str] = None,
) -> figure_lib.Figure:
  """Draws each client's accuracy, sorted, coloured by architecture.

  Args:
    per_client: Of `client_evaluation.build_evaluation`.
    architectures: Each client's architecture.
    classifier: One of `client_evaluation.CLASSIFIERS`; the main one by default.
  """
  classifier = classifier or client_evaluation.main_classifier(per_client[0])
  sizes = np.array([int(client['num_examples']) for client in per_client])
  correct = np.array([int(client[classifier]) for client in per_client])
  accuracies = correct / sizes
  order = np.argsort(accuracies, kind='stable')
  palette = _palette(architectures)
  figure = new_figure(min(4.5 + 0.26 * len(order), 18.0), 4.2)
  axes = figure.subplots()
  axes.bar(
    range(len(order)),
    accuracies[order],
    color=[palette[architectures[client]] for client in order],
  )
  micro = correct.sum() / sizes.sum()
  axes.axhline(micro, color='black', linewidth=1, linestyle='--')
  axes.annotate(
    f'all examples {micro:.3f}',
    (0, micro),
    xytext=(0, 3),
    textcoords='offset points',
    fontsize=9,
    path_effects=_outline(),
  )
  axes.set(
    xlabel='client (sorted)',
    ylabel='accuracy on own test data',
    ylim=(0, 1.05),
    title=f'Accuracy per client, {CLASSIFIER_LABELS[classifier]}',
  )
  if len(order) <= 40:
    axes.set_xticks(range(len(order)), order)
  _architecture_legend(axes, palette, 's')
  tidy(axes)
  axes.grid(axis='x', visible=False)
  return figure


def finite_classes(prototypes: np.ndarray, present: np.ndarray) -> np.ndarray:
  """Returns which classes have a prototype that can be drawn.

  Args:
    prototypes: float[num_classes, feature_dim]; not finite where a server's
      training diverged.
    present: bool[num_classes], which of them there are.

  Returns:
    bool[num_classes].
  """
  return np.logical_and(present, np.isfinite(prototypes).all(axis=1))


def anchors_and_prototypes(
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

  The projection `pca` is on the two directions in which the anchors and the
  prototypes present vary most; the clients' prototypes, too, where there are no
  anchors; the features, where there is none of these. `tsne` puts what is near
  in 512 dimensions near in two, says nothing of larger distances, and places
  all vectors together.

  Args:
    anchors: float[num_classes, feature_dim]; None where there are none.
    prototypes: float[num_classes, feature_dim], global ones.
    present: bool[num_classes], which of them there are; those that are not
      finite, of a server whose training diverged, are left out.
    class_names: One per class.
    client_prototypes: Per client `(vectors, counts)`, drawn as small dots.
    features: Per client `(vectors, labels)` of examples, drawn as crosses.
    projection: `pca` or `tsne`.
    title: Above the figure.

  Raises:
    ValueError: If there are fewer than two vectors, which have no directions.
  """
  client_prototypes = list(client_prototypes)
  present = finite_classes(prototypes, present)
  fitted = prototypes[present]
  if anchors is not None:
    fitted = np.concatenate([anchors, fitted])
  else:
    theirs = [vectors[counts > 0] for vectors, counts in client_prototypes]
    fitted = np.concatenate([fitted, *theirs])
  if features and len(fitted) < 2:
    fitted = np.concatenate([vectors for vectors, _ in features])
  if len(fitted) < 2:
    raise ValueError(f'Expected two vectors or more, found {len(fitted)}.')
  held = [np.flatnonzero(counts > 0) for _, counts in client_prototypes]
  parts = [vectors[own] for own, (vectors, _) in zip(held, client_prototypes)]
  parts += [vectors for vectors, _ in features]
  parts.append(prototypes[present])
  if anchors is not None:
    parts.append(anchors)
  places, axis_labels = (
    _tsne(parts) if projection == 'tsne' else _pca(parts, fitted)
  )
  num_classes = len(class_names)
  cmap = matplotlib.colormaps['tab10' if num_classes <= 10 else 'nipy_spectral']
  colors = [
    cmap(i if num_classes <= 10 else i / max(num_classes - 1, 1))
    for i in range(num_classes)
  ]
  figure = new_figure(8.2, 6.2)
  axes = figure.subplots()
  remaining = iter(places)
  for own in held:
    x, y = next(remaining).T
    axes.scatter(
      x, y, s=9, c=[colors[c] for c in own], alpha=0.45, linewidths=0
    )
  for _, labels in features:
    x, y = next(remaining).T
    axes.scatter(
      x,
      y,
      s=12,
      marker='x',
      c=[colors[c] for c in labels],
      alpha=0.5,
      linewidths=0.7,
    )
  prototype_places = np.zeros((num_classes, 2))
  prototype_places[present] = next(remaining)
  for label in np.flatnonzero(present):
    x, y = prototype_places[label]
    axes.scatter(
      x,
      y,
      s=70,
      color=colors[label],
      marker='o',
      edgecolors='black',
      linewidths=0.6,
      zorder=3,
    )
  named, named_places = np.flatnonzero(present), prototype_places
  if anchors is not None:
    named, named_places = np.arange(num_classes), next(remaining)
    for label in range(num_classes):
      if present[label]:
        axes.plot(
          *np.stack([named_places[label], prototype_places[label]]).T,
          color=colors[label],
          linewidth=1,
          alpha=0.7,
        )
      x, y = named_places[label]
      axes.scatter(
        x,
        y,
        s=170,
        color=colors[label],
        marker='*',
        edgecolors='black',
        linewidths=0.6,
        zorder=4,
      )
  if num_classes <= 30:
    for label in named:
      axes.annotate(
        class_names[label],
        named_places[label],
        xytext=(7, 6),
        textcoords='offset points',
        fontsize=9,
        path_effects=_outline(),
        zorder=5,
      )
  marks = []
  if anchors is not None:
    marks.append(('*', 13, 'anchor'))
  if present.any():
    marks.append(('o', 8, 'global prototype'))
  if client_prototypes:
    marks.append(('o', 3, "client's prototype"))
  if features:
    marks.append(('x', 4, 'feature of an example'))
  keys: list[Any] = [(*mark, 'grey') for mark in marks]
  if not named.size and num_classes <= 30:
    # Nothing in the figure says which class is which.
    keys += [('s', 6, n, color) for n, color in zip(class_names, colors)]
  axes.legend(
    handles=[
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
    ],
    loc='upper left',
    bbox_to_anchor=(1.0, 1.0),
    frameon=False,
  )
  kind = 't-SNE' if projection == 'tsne' else 'PCA'
  what = 'Prototypes' if anchors is None else 'Anchors and prototypes'
  axes.set(
    xlabel=axis_labels[0],
    ylabel=axis_labels[1],
    title=title or f'{what}, feature space in 2-D ({kind})',
  )
  # Distances mean something, so both axes have one scale.
  axes.set_aspect('equal', adjustable='datalim')
  tidy(axes)
  return figure


def _pca(
  parts: Sequence[np.ndarray], fitted: np.ndarray
) -> tuple[list[np.ndarray], tuple[str, str]]:
  center = fitted.mean(axis=0)
  _, scales, directions = np.linalg.svd(fitted - center, full_matrices=False)
  explained = scales[:2] ** 2 / np.sum(scales**2)
  return [(vectors - center) @ directions[:2].T for vectors in parts], (
    f'first principal direction ({explained[0]:.0%} of variance)',
    f'second principal direction ({explained[1]:.0%})',
  )


def _tsne(
  parts: Sequence[np.ndarray],
) -> tuple[list[np.ndarray], tuple[str, str]]:
  from sklearn import manifold  # Slow to import.

  vectors = np.concatenate(parts)
  placed = manifold.TSNE(
    perplexity=min(30.0, (len(vectors) - 1) / 3),
    init='pca',
    random_state=0,
  ).fit_transform(vectors)
  ends = np.cumsum([len(part) for part in parts])
  return np.split(placed, ends[:-1]), ('t-SNE, first', 't-SNE, second')
