"""Figures of the metrics beside accuracy: confusion and reliability."""

from collections.abc import Mapping, Sequence

from matplotlib import figure as figure_lib
import numpy as np

from tff_fedsa.reporting import figures
from tff_fedsa.reporting import style

# Numbers of more classes would not be readable.
_MOST_NUMBERS = 20
_MOST_NAMES = 40


def confusion(
  matrix: np.ndarray, class_names: Sequence[str], classifier: str
) -> figure_lib.Figure:
  """Draws which classes are taken for which, in percent of a label's examples.

  Args:
    matrix: int[num_classes, num_classes + 1], examples by label and prediction;
      the last column is for no prediction.
    class_names: One per class.
    classifier: Name of the classifier, for the title.
  """
  if not matrix[:, -1].any():
    matrix = matrix[:, :-1]
  totals = matrix.sum(axis=1, keepdims=True)
  shares = matrix / np.maximum(totals, 1)
  num_classes, num_columns = matrix.shape
  side = min(2.6 + 0.42 * num_columns, 12.0)
  figure = style.new_figure(side + 1.0, side)
  axes = figure.subplots()
  image = axes.imshow(shares, cmap='Blues', vmin=0, vmax=1)
  if num_classes <= _MOST_NUMBERS:
    for (row, column), share in np.ndenumerate(shares):
      if matrix[row, column]:
        axes.text(
          column,
          row,
          f'{100 * share:.0f}',
          ha='center',
          va='center',
          fontsize=8,
          color='white' if share > 0.55 else 'black',
        )
  names = [*class_names, 'none'][:num_columns]
  if num_classes <= _MOST_NAMES:
    is_long = max(map(len, names)) > 3
    axes.set_xticks(
      range(num_columns),
      names,
      rotation=45 if is_long else 0,
      ha='right' if is_long else 'center',
    )
    axes.set_yticks(range(num_classes), names[:num_classes])
  axes.set(
    xlabel='predicted class',
    ylabel='class',
    title=f'Confusion, {figures.CLASSIFIER_LABELS[classifier]}\n'
    f'percent of a class, {int(totals.sum())} test examples',
  )
  figure.colorbar(image, ax=axes, shrink=0.8, label='share of the class')
  return figure


def reliability(
  calibrations: Mapping[str, np.ndarray],
) -> figure_lib.Figure:
  """Draws accuracy by confidence, a panel for each classifier.

  Args:
    calibrations: By classifier, float[3, bins]: examples, correct ones and sum
      of confidence by bin of confidence, see `classification.zeros`.
  """
  figure = style.new_figure(3.9 * len(calibrations) + 0.6, 4.4)
  grid = figure.subplots(
    2, len(calibrations), sharex=True, squeeze=False, height_ratios=(3, 1)
  )
  for (name, sums), (top, bottom) in zip(calibrations.items(), grid.T):
    examples, correct, confidence = sums
    edges = np.linspace(0, 1, len(examples) + 1)
    filled = examples > 0
    color = figures.classifier_color(name)
    top.plot([0, 1], [0, 1], color='grey', linewidth=1, linestyle='--')
    top.plot(
      confidence[filled] / examples[filled],
      correct[filled] / examples[filled],
      marker='o',
      markersize=5,
      linewidth=1.4,
      color=color,
    )
    error = np.abs(correct - confidence).sum() / max(examples.sum(), 1)
    top.set(
      title=f'{figures.CLASSIFIER_LABELS[name]}\nECE {error:.3f}',
      xlim=(0, 1),
      ylim=(0, 1.02),
    )
    bottom.bar(
      edges[:-1],
      examples / max(examples.sum(), 1),
      width=np.diff(edges),
      align='edge',
      color=color,
      edgecolor='white',
    )
    bottom.set(xlabel='confidence (largest probability)', ylim=(0, 1))
    for axes in (top, bottom):
      style.tidy(axes)
  grid[0, 0].set_ylabel('accuracy')
  grid[1, 0].set_ylabel('share')
  return figure
