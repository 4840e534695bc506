"""Figures of a run: functions from data to `matplotlib` figures."""

from collections.abc import Mapping, Sequence
import io
import itertools
import os
from typing import Any, Optional

import matplotlib
from matplotlib import figure as figure_lib
from matplotlib import lines as lines_lib
from matplotlib import ticker
import matplotlib.backends.backend_agg
import numpy as np

from tff_fedsa import files
from tff_fedsa.evaluation import client_evaluation
from tff_fedsa.reporting import style
from tff_fedsa.runs import errors

# Colours of `style.PALETTE`. A classifier has one colour in all figures.
_COLORS = {
  'prototype': '#0072B2',
  'anchor': '#D55E00',
  'head': '#009E73',
  'global_head': '#CC79A7',
  'received_head': '#56B4E9',
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
_OTHER_COLORS = [
  color for color in style.PALETTE if color not in _LOSS_COLORS.values()
]
CLASSIFIER_LABELS = {
  'prototype': 'nearest prototype',
  'anchor': 'nearest anchor',
  'head': "client's head",
  'global_head': "server's head",
  'received_head': 'head of the received model',
}
_GLOBAL_CLASSIFIER_LABELS = {**CLASSIFIER_LABELS, 'head': 'head'}
# Styles of thin lines: single domains, or a percentile of clients.
_SPREAD_STYLES = (':', '--', '-.', (0, (1, 4)), (0, (6, 2, 1, 2, 1, 2)))


FORMATS = ('png', 'pdf', 'svg')


def save(figure: figure_lib.Figure, path: str) -> None:
  """Writes a figure, atomically.

  Args:
    figure: The figure.
    path: A file that ends in .png, .pdf or .svg. Text in PDF and SVG stays
      text.

  Raises:
    OSError: If the file cannot be written.
    ValueError: If the path has another ending.
  """
  form = os.path.splitext(path)[1].removeprefix('.')
  if form not in FORMATS:
    raise errors.UserError(
      f'Expected a file that ends in .{", .".join(FORMATS)}, found {path!r}.'
    )
  files.write_bytes(path, encode(figure, form))


def encode(figure: figure_lib.Figure, form: str) -> bytes:
  """Returns the content of a file, the same for the same figure.

  Args:
    figure: The figure.
    form: One of `FORMATS`.
  """
  # Without pyplot there is no global state and no window.
  matplotlib.backends.backend_agg.FigureCanvasAgg(figure)
  content = io.BytesIO()
  # Files without dates, and with fonts that journals accept.
  metadata = {'pdf': {'CreationDate': None}, 'svg': {'Date': None}}.get(form)
  with matplotlib.rc_context(
    {'pdf.fonttype': 42, 'svg.fonttype': 'none', 'svg.hashsalt': 'tff_fedsa'}
  ):
    figure.savefig(content, format=form, dpi=150, metadata=metadata)
  return content.getvalue()


def classifier_color(classifier: str) -> str:
  """Returns the colour of a classifier, the same in all figures.

  Args:
    classifier: One of `client_evaluation.CLASSIFIERS`.
  """
  return _COLORS[classifier]


def _palette(architectures: Sequence[str]) -> dict[str, Any]:
  """Returns a colour for each architecture, in order of appearance."""
  names = list(dict.fromkeys(architectures))
  return dict(zip(names, np.resize(style.PALETTE, len(names))))


def _architecture_legend(
  axes: Any, palette: Mapping[str, Any], marker: str
) -> None:
  handles = [
    lines_lib.Line2D(
      [], [], marker=marker, linestyle='', color=color, label=name
    )
    for name, color in palette.items()
  ]
  style.legend_beside(axes, handles=handles, title='architecture')


def curves(
  history: Sequence[Mapping[str, Any]], title: str = ''
) -> figure_lib.Figure:
  """Draws accuracies, with the spread over clients or domains, and loss terms.

  Args:
    history: Rows with `metrics.COLUMNS`.
    title: Title of the figure.
  """
  figure = style.new_figure(12.5, 4.2)
  left, right = figure.subplots(1, 2)
  rounds = np.array([row['round'] for row in history])
  found = client_evaluation.classifiers_in(history[0])
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
    # One line per domain, if there are domains.
    spread = [n for n in history[0] if n.startswith(f'{main}_accuracy_')]
  else:
    spread = [f'{main}_accuracy_p10']
  for column, dashes in zip(spread, itertools.cycle(_SPREAD_STYLES)):
    of = column.removeprefix(f'{main}_accuracy_')
    left.plot(
      rounds,
      [row[column] for row in history],
      color=_COLORS[base],
      linewidth=0.9,
      linestyle=dashes,
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
    # Clients' own accuracies rise quickly.
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
  # Terms of users' own methods have other colours and styles.
  others = [n for n in names if n not in _LOSS_COLORS]
  for name in names:
    right.plot(
      [row['round'] for row in trained],
      [row[name] for row in trained],
      color=_LOSS_COLORS.get(name)
      or _OTHER_COLORS[others.index(name) % len(_OTHER_COLORS)],
      linestyle='-' if name in _LOSS_COLORS else '--',
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
    style.legend_beside(right, fontsize=9)
  for axes in (left, right):
    style.tidy(axes)
  if title:
    figure.suptitle(title)
  return figure


def partition(
  counts: np.ndarray,
  class_names: Sequence[str],
  architectures: Optional[Sequence[str]] = None,
) -> figure_lib.Figure:
  """Draws the training examples of each client by class.

  Args:
    counts: int[num_clients, num_classes].
    class_names: One per class.
    architectures: Each client's architecture. It sets the colour of bubbles.
  """
  num_clients, num_classes = counts.shape
  height = min(2.4 + 0.26 * num_classes, 16.0)
  figure = style.new_figure(min(3.4 + 0.32 * num_clients, 18.0), height)
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
    title='Training examples per client and class'
    # A figure of few clients is narrow.
    + ('\n' if num_clients < 15 else ' ')
    + f'({counts.sum()} in all, largest bubble {largest})',
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
    per_client: Result of `client_evaluation.build_evaluation`. Clients without
      test examples are left out.
    architectures: Each client's architecture.
    classifier: One of `client_evaluation.CLASSIFIERS`. Default: the main one.
  """
  classifier = classifier or client_evaluation.main_classifier(per_client[0])
  tested = [i for i, counts in enumerate(per_client) if counts['num_examples']]
  per_client = [per_client[i] for i in tested]
  architectures = [architectures[i] for i in tested]
  sizes = np.array([int(client['num_examples']) for client in per_client])
  correct = np.array([int(client[classifier]) for client in per_client])
  accuracies = correct / sizes
  order = np.argsort(accuracies, kind='stable')
  palette = _palette(architectures)
  figure = style.new_figure(min(4.5 + 0.26 * len(order), 18.0), 4.2)
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
    path_effects=style.outline(),
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
  style.tidy(axes)
  axes.grid(axis='x', visible=False)
  return figure
