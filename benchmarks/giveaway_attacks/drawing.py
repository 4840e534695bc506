"""Figures of what attacks find."""

from typing import Any

from matplotlib import figure as figure_lib
import numpy as np

from tff_fedsa.reporting import style

# (case, knowledge, attack) -> label and number of its colour.
_CURVES = {
  ('FedSA', 'surrogate', 'distance, LiRA'): 'prototypes, LiRA',
  ('FedSA', 'surrogate', 'parts'): 'prototypes, parts',
  ('FedSA', 'known', 'distance, LiRA'): 'prototypes and the model, LiRA',
  ('FedAvg', 'sent weights', 'loss, LiRA'): 'averaged weights, LiRA',
  ('FedAvg', 'sent weights', 'parts'): 'averaged weights, parts',
  ('FedSA, local ε=8', 'surrogate', 'parts'): 'prototypes, local ε=8, parts',
}
_LEAST = 1e-3


def draw(found: Any) -> dict[str, figure_lib.Figure]:
  """Returns a figure of curves and one of images, of what there is.

  Args:
    found: A `giveaway.Found`.
  """
  figures = {}
  if found.membership:
    figures['membership'] = draw_curves(found.membership)
  if found.inversion:
    figures['inversion'] = draw_images(found.inversion)
  return figures


def draw_curves(membership: Any) -> figure_lib.Figure:
  """Draws curves with logarithmic axes, one panel for each size of client.

  Args:
    membership: (case, knowledge, attack, size) -> `scores.Membership`.
  """
  sizes = sorted({size for *_, size in membership})
  figure = style.new_figure(3.4 * len(sizes), 3.9)
  panels = figure.subplots(1, len(sizes), sharey=True, squeeze=False)[0]
  for axes, size in zip(panels, sizes):
    for color, (key, label) in zip(style.PALETTE, _CURVES.items()):
      if (*key, size) in membership:
        curve = membership[(*key, size)].curve
        axes.plot(
          np.maximum(curve.false_positives, _LEAST / 10),
          np.maximum(curve.true_positives, _LEAST / 10),
          color=color,
          label=label,
        )
    axes.plot([_LEAST, 1], [_LEAST, 1], color='gray', linestyle=':')
    axes.axvline(0.01, color='gray', linewidth=0.6)
    axes.set(
      xscale='log',
      yscale='log',
      xlim=(_LEAST, 1),
      ylim=(_LEAST, 1.05),
      xlabel='false positive rate',
      title=f'{size} images of a class',
    )
    style.tidy(axes)
  panels[0].set_ylabel('true positive rate')
  handles, labels = panels[0].get_legend_handles_labels()
  figure.legend(
    handles, labels, loc='outside lower center', ncols=3, frameon=False
  )
  return figure


def draw_images(inversion: Any) -> figure_lib.Figure:
  """Draws the classes of one client with one image of each class.

  Rows are the training image, the public mean, and the reconstructions.

  Args:
    inversion: (case, knowledge, size) -> `inversion.Images` of each seed.
  """
  smallest = min(size for *_, size in inversion)
  chosen = {
    (case, knowledge): images[0]
    for (case, knowledge, size), images in inversion.items()
    if size == smallest
    and (case == 'FedSA' or (knowledge == 'known' and 'local' in case))
  }
  first = next(iter(chosen.values()))
  rows = {
    'training image': first.choices[:, 0],
    'public mean': first.means,
    **{
      f'{case.removeprefix("FedSA, ")}, {knowledge}'.removeprefix(
        'FedSA, '
      ): images.found
      for (case, knowledge), images in chosen.items()
    },
  }
  columns = min(10, len(first.found))
  figure = style.new_figure(0.8 * columns + 1.6, 0.8 * len(rows))
  grid = figure.subplots(len(rows), columns, squeeze=False)
  for (name, images), panels in zip(rows.items(), grid):
    for axes, image in zip(panels, images):
      axes.imshow(image.mean(axis=-1), cmap='gray', vmin=-1, vmax=1)
      axes.set(xticks=[], yticks=[])
    panels[0].set_ylabel(name, rotation=0, ha='right', va='center')
  return figure
