"""Figures over the settings of a sweep: where does a method gain, and how much.

A setting is a column of the pivot table (`arrangement.Place`), e.g.
`test_classes=own, 20`.
"""

from collections.abc import Iterable, Sequence
import math
from typing import Any

from matplotlib import figure as figure_lib
import numpy as np
import pandas
from scipy import stats

from tff_fedsa.reporting import groups as groups_lib
from tff_fedsa.reporting import names
from tff_fedsa.reporting import style as style_lib

_CONFIDENCE = 0.95
_RECEIVED = 'received_head'
# Parts of the two settings that `own_against_all` compares.
_OWN, _ALL = 'test_classes=own', 'test_classes=all'


def differences(
  groups: Sequence[groups_lib.Group], tested: pandas.DataFrame
) -> figure_lib.Figure:
  """Draws differences to the reference by setting, in percent points.

  The last part of a setting is on the horizontal axis; there is a panel for
  each combination of the others. A line has the classifier that the reference
  is compared by (its main classifier, if the method has it); a dotted line and
  small marks have heads of received models. Lines connect numbers only. Bars
  are 95 % confidence intervals of the mean (t-distribution, paired over
  partitions or seeds), not corrected for the number of comparisons.

  Args:
    groups: Result of `groups.group`, with several settings.
    tested: Result of `significance.compare`.
  """
  settings = sorted({g.place.setting for g in groups}, key=_in_order)
  panels = list(dict.fromkeys(setting[:-1] for setting in settings))
  figure = style_lib.new_figure(4.4 * len(panels) + 2.2, 4.2)
  grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
  styles = _styles(groups)
  drawn: list[str] = []
  for axes, panel in zip(grid, panels):
    places = [setting for setting in settings if setting[:-1] == panel]
    axes.axhline(0.0, color='grey', linewidth=1, linestyle='--')
    is_numeric = all(_in_order(place)[-1][1] < math.inf for place in places)
    for index, (row, style) in enumerate(styles.items()):
      of_row = tested[tested['row'] == row]
      if of_row.empty:
        continue
      drawn.append(row)
      for classifier in (_compared(of_row), _RECEIVED):
        own = of_row[of_row['classifier'] == classifier].set_index('setting')
        x = [i for i, s in enumerate(places) if ', '.join(s) in own.index]
        if not x:
          continue
        found = own.loc[[', '.join(places[i]) for i in x]]
        # Beside each other, so that bars can be told apart.
        shift = (index - (len(styles) - 1) / 2) * 0.5 / max(len(styles), 2)
        line = {**style.line, 'linestyle': '-' if is_numeric else ''}
        if classifier == _RECEIVED:
          line |= {'linestyle': ':' if is_numeric else '', 'markersize': 3}
        axes.errorbar(
          np.array(x) + shift,
          100 * found['difference'].to_numpy(),
          yerr=100 * _interval(found),
          capsize=2,
          linewidth=1.3,
          elinewidth=0.9,
          **line,
        )
    axes.set_xticks(range(len(places)), [place[-1] for place in places])
    axes.set_xlim(-0.5, len(places) - 0.5)
    axes.set_title(', '.join(panel))
    style_lib.tidy(axes)
  reference = tested['reference'].iloc[0]
  title = next(_title(g) for g in groups if g.name == reference)
  grid[0].set_ylabel(f'gain over {title}, percent points')
  _legend(grid[-1], groups, drawn, tested['classifier'])
  return figure


def has_both_tests(groups: Sequence[groups_lib.Group]) -> bool:
  """Returns whether methods were tested on own classes and on all classes.

  Args:
    groups: Result of `groups.group`.
  """
  found = {part for group in groups for part in group.place.setting}
  return {_OWN, _ALL} <= found


def own_against_all(
  groups: Sequence[groups_lib.Group],
  means: pandas.DataFrame,
  statistic: str = 'last',
) -> figure_lib.Figure:
  """Draws accuracy on all classes against accuracy on a client's own classes.

  There is a panel for each setting with both tests, and a mark for each method:
  its `head`, or its main classifier if it has no head. A dotted line leads from
  there to the head of the received model.

  Args:
    groups: Result of `groups.group`; `has_both_tests` of them is true.
    means: Result of `tables.over_seeds`.
    statistic: One of `tables.STATISTICS`.
  """
  by_name = means.set_index(['name', 'classifier'])[f'{statistic}_mean']
  panels: dict[tuple[str, ...], dict[str, dict[str, str]]] = {}
  for group in sorted(groups, key=lambda g: _in_order(g.place.setting)):
    for part in (_OWN, _ALL):
      if part in group.place.setting:
        others = tuple(p for p in group.place.setting if p != part)
        names_of = panels.setdefault(others, {})
        names_of.setdefault(group.place.row, {})[part] = group.name
  whole = {
    others: {row: both for row, both in rows.items() if len(both) > 1}
    for others, rows in panels.items()
  }
  panels = {others: rows for others, rows in whole.items() if rows}
  figure = style_lib.new_figure(3.9 * len(panels) + 2.2, 4.2)
  grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
  styles = _styles(groups)
  classifiers: set[str] = set()
  for axes, (others, rows) in zip(grid, panels.items()):
    lowest = 1.0
    for method, named in rows.items():
      style = styles[method]
      own = means[means['name'] == named[_OWN]]
      mains = list(own[own['is_main'].astype(bool)]['classifier'])
      has = set(own['classifier'])
      marks = []
      for classifier in ('head' if 'head' in has else mains[0], _RECEIVED):
        x = by_name.get((named[_OWN], classifier), math.nan)
        y = by_name.get((named[_ALL], classifier), math.nan)
        if not math.isnan(x + y):
          marks.append((x, y))
          classifiers.add(classifier)
          lowest = min(lowest, x, y)
      axes.plot(*zip(*marks), color=style.color, linestyle=':', linewidth=1.2)
      for mark, size in zip(marks, (60, 20)):
        axes.scatter(*mark, s=size, linewidths=1.4, zorder=3, **style.points)
    axes.axline((lowest, lowest), slope=1, color='grey', ls='--', lw=1)
    axes.set(xlabel='accuracy on own classes', title=', '.join(others))
    style_lib.tidy(axes)
  grid[0].set_ylabel('accuracy on all classes')
  drawn = [row for rows in panels.values() for row in rows]
  _legend(grid[-1], groups, drawn, classifiers)
  return figure


def _in_order(setting: tuple[str, ...]) -> list[tuple[str, float, str]]:
  """Returns a key by which 5 comes before 20, and `a=0.5` before `a=1`."""
  key = []
  for part in setting:
    name, _, value = part.rpartition('=')
    try:
      key.append((name, float(value), ''))
    except ValueError:
      key.append((name, math.inf, value))
  return key


def _compared(of_row: pandas.DataFrame) -> str:
  """Returns the classifier by which a row is compared with the reference."""
  like = of_row[of_row['classifier'] == of_row['against']]
  for own in (like[like['classifier'] == 'head'], of_row[of_row['is_main']]):
    if len(own):
      return own['classifier'].iloc[0]
  return of_row['classifier'].iloc[0]


def _interval(found: pandas.DataFrame) -> np.ndarray:
  """Returns half the width of confidence intervals; NaN of a single pair."""
  n = found['n'].to_numpy(float)
  with np.errstate(invalid='ignore'):
    width = stats.t.ppf(0.5 + _CONFIDENCE / 2, n - 1) / np.sqrt(n)
  return width * found['difference_std'].to_numpy(float)


def _styles(
  groups: Sequence[groups_lib.Group],
) -> dict[str, style_lib.Style]:
  """Returns the style of each row, that of its first setting."""
  first = _first_of_rows(groups)
  return dict(zip(first, style_lib.of_groups([*first.values()])))


def _first_of_rows(
  groups: Sequence[groups_lib.Group],
) -> dict[str, groups_lib.Group]:
  first: dict[str, groups_lib.Group] = {}
  for group in groups:
    first.setdefault(group.place.row, group)
  return first


def _title(group: groups_lib.Group) -> str:
  return names.title(group.place.row, group.algorithm)


def _legend(
  axes: Any,
  groups: Sequence[groups_lib.Group],
  rows: Sequence[str],
  classifiers: Iterable[str],
) -> None:
  """Adds a legend beside axes: methods, and what small marks mean."""
  first, styles = _first_of_rows(groups), _styles(groups)
  handles = []
  for row in dict.fromkeys(rows):
    line = {**styles[row].line, 'linestyle': '-'}
    handles += axes.plot([], [], label=_title(first[row]), **line)
  if _RECEIVED in set(classifiers):
    handles += axes.plot(
      [],
      [],
      label='small: received model',
      color='grey',
      marker='o',
      markersize=3,
      linestyle='',
    )
  style_lib.legend_beside(axes, handles=handles, fontsize=9)
