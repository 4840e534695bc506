"""The common style of all figures."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from matplotlib import figure as figure_lib
from matplotlib import patheffects

from tff_fedsa.algorithms import registry
from tff_fedsa.reporting import groups as groups_lib
from tff_fedsa.reporting import names

# Colours of Okabe and Ito, which colour-blind readers can distinguish, without
# their yellow, which is too light for lines on white, and others. There is one
# for each method.
PALETTE = (
  '#0072B2',
  '#E69F00',
  '#009E73',
  '#CC79A7',
  '#56B4E9',
  '#D55E00',
  '#332288',
  '#000000',
  '#999999',
  '#882255',
  '#808000',
  '#DDCC77',
  '#6B2A00',
)
_MARKERS = ('o', 's', '^', 'D', 'v', 'P', 'X', '<', '>', '*', 'p', 'h', 'd')
_LINE_STYLES = ('-', '--', '-.', ':')


class Style(NamedTuple):
  """Style of a configuration.

  Attributes:
    color: Color of line, box and markers.
    marker: Marker of the line.
    is_hollow: True if the marker is filled with white.
    linestyle: Style of its line.
  """

  color: str
  marker: str
  is_hollow: bool = False
  linestyle: str = '-'

  @property
  def line(self) -> dict[str, Any]:
    """Arguments of `Axes.plot`."""
    return {
      'color': self.color,
      'marker': self.marker,
      'markerfacecolor': 'white' if self.is_hollow else self.color,
      'markersize': 5,
      'linestyle': self.linestyle,
    }

  @property
  def points(self) -> dict[str, Any]:
    """Arguments of `Axes.scatter`."""
    return {
      'marker': self.marker,
      'facecolor': 'white' if self.is_hollow else self.color,
      'edgecolor': self.color,
    }


def of_method(algorithm: str, linestyle: str = '-') -> Style:
  """Returns the style of a method, the same in all figures.

  Args:
    algorithm: One of `registry.NAMES`.
    linestyle: Style of its line.
  """
  number = registry.NAMES.index(algorithm)
  return Style(PALETTE[number], _MARKERS[number], linestyle=linestyle)


def of_groups(groups: Sequence[groups_lib.Group]) -> list[Style]:
  """Returns a style for each configuration.

  A method has its own colour and marker. In a sweep over several methods,
  settings differ in the style of the line. Variants of a method have colours
  and markers of their own, the same in each setting. They have colours of
  methods in the figure only if no others are left.

  Args:
    groups: Result of `groups.group`.
  """
  algorithms = [group.algorithm for group in groups]
  settings: list[tuple[str, ...]] = []
  styles: list[Style | None] = []
  variants: list[str] = []
  rows = [group.place.row or group.name for group in groups]
  for group, row in zip(groups, rows):
    known = group.algorithm in registry.NAMES
    own = names.setting(group.name, group.algorithm)
    if known and (own == () or algorithms.count(group.algorithm) == 1):
      styles.append(of_method(group.algorithm))
    elif known and own is not None and len(set(algorithms)) > 1:
      if own not in settings:
        settings.append(own)
      linestyle = _LINE_STYLES[settings.index(own) % len(_LINE_STYLES)]
      styles.append(of_method(group.algorithm, linestyle))
    else:
      if row not in variants:
        variants.append(row)
      styles.append(None)
  taken = {style.color for style in styles if style is not None}
  free = [i for i, color in enumerate(PALETTE) if color not in taken]
  return [
    style or _of_variant(variants.index(row), free or range(len(PALETTE)))
    for style, row in zip(styles, rows)
  ]


def _of_variant(number: int, colors: Sequence[int]) -> Style:
  """Returns a style that no method has, in one of the palette's colours."""
  repeats, index = divmod(number, len(colors))
  # Hollow markers; others where colours repeat.
  marker = (colors[index] + repeats) % len(_MARKERS)
  return Style(
    PALETTE[colors[index]],
    _MARKERS[marker],
    is_hollow=True,
    linestyle=_LINE_STYLES[1 + repeats % (len(_LINE_STYLES) - 1)],
  )


def new_figure(width: float, height: float) -> figure_lib.Figure:
  """Returns an empty figure with a size in inches."""
  return figure_lib.Figure(figsize=(width, height), layout='constrained')


def outline() -> list[patheffects.AbstractPathEffect]:
  """Returns effects that make text readable above marks and lines."""
  return [patheffects.withStroke(linewidth=2.5, foreground='white')]


def legend_beside(axes: Any, **options: Any) -> None:
  """Adds a legend at the right of axes.

  Args:
    axes: The axes.
    **options: More of `Axes.legend`, e.g. `handles`.
  """
  axes.legend(
    loc='upper left', bbox_to_anchor=(1.0, 1.0), frameon=False, **options
  )


def tidy(axes: Any) -> None:
  """Applies the common style to axes."""
  axes.spines[['top', 'right']].set_visible(False)
  axes.grid(alpha=0.25, linewidth=0.6)
  axes.set_axisbelow(True)
