"""Figures over the runs of several configurations."""

from collections.abc import Callable, Sequence
from typing import Any

from matplotlib import figure as figure_lib
from matplotlib import ticker
import numpy as np
import pandas

from tff_fedsa.evaluation import client_evaluation
from tff_fedsa.reporting import figures
from tff_fedsa.reporting import groups as groups_lib
from tff_fedsa.reporting import names as names_lib
from tff_fedsa.reporting import runs as runs_lib
from tff_fedsa.reporting import style as style_lib
from tff_fedsa.reporting import tables

# Largest number of markers on a line.
_NUM_MARKERS = 8
# Panels beside each other.
_MOST_COLUMNS = 3


def _label(classifier: str) -> str:
  base = classifier.removeprefix(client_evaluation.GLOBAL_PREFIX)
  if base != classifier:
    return f'averaged model, {base.replace("_", " ")}'
  return figures.CLASSIFIER_LABELS[base]


def _accuracies(group: groups_lib.Group, classifier: str) -> pandas.DataFrame:
  """Returns a row per round and a column per finished run."""
  column = f'{classifier}_accuracy'
  series = [
    pandas.DataFrame(run.history).set_index('round')[column]
    for run in group.finished
    if column in run.history[-1]
  ]
  return pandas.concat(series, axis=1) if series else pandas.DataFrame()


def classifiers_of(group: groups_lib.Group) -> list[str]:
  """Returns the classifiers of a group's finished runs."""
  rows = [run.history[-1] for run in group.finished]
  found = {
    name for row in rows for name in client_evaluation.classifiers_in(row)
  }
  return [name for name in client_evaluation.ALL_CLASSIFIERS if name in found]


def curves(groups: Sequence[groups_lib.Group]) -> figure_lib.Figure:
  """Draws accuracy over rounds: mean and standard deviation over seeds.

  There is one panel per classifier; with several settings, one per setting, of
  the main classifiers. Unfinished runs are single thin lines.

  Args:
    groups: Result of `groups.group`, at least one with a finished run.
  """
  if len({group.setting for group in groups}) > 1:
    return _curves_by_setting(groups)
  found = {name for group in groups for name in classifiers_of(group)}
  names = [n for n in client_evaluation.ALL_CLASSIFIERS if n in found]
  columns = min(len(names), 2)
  rows = -(-len(names) // columns)
  figure = style_lib.new_figure(4.6 * columns + 2.4, 3.8 * rows + 0.4)
  grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
  panels = grid.flatten()
  styles = style_lib.of_groups(groups)
  for axes in panels[len(names) :]:
    axes.set_axis_off()
  lowest, highest = 1.0, 0.0
  for axes, name in zip(panels, names):
    for index, group in enumerate(groups):
      low, high = _curve(axes, group, styles[index], name, index)
      lowest, highest = min(lowest, low), max(highest, high)
    axes.set(title=_label(name), xlabel='round', ylabel=_accuracy_label(name))
    axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    style_lib.tidy(axes)
  panels[0].set_ylim(max(0.0, lowest - 0.05), min(highest + 0.05, 1.01))
  _name_groups(grid[0, -1], groups)
  return figure


def _curves_by_setting(
  groups: Sequence[groups_lib.Group],
) -> figure_lib.Figure:
  settings = list(dict.fromkeys(group.setting for group in groups))
  columns = min(len(settings), _MOST_COLUMNS)
  rows = -(-len(settings) // columns)
  figure = style_lib.new_figure(4.2 * columns + 2.0, 3.8 * rows + 0.4)
  grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
  for axes in grid.flatten()[len(settings) :]:
    axes.set_axis_off()
  shown: dict[str, groups_lib.Group] = {}
  lowest, highest = 1.0, 0.0
  for setting, axes in zip(settings, grid.flatten()):
    members = [group for group in groups if group.setting == setting]
    for index, (group, style) in enumerate(
      zip(members, style_lib.of_groups(members))
    ):
      names = classifiers_of(group)
      if names:
        shown.setdefault(group.place.row, group)
        main = client_evaluation.main_classifier(names)
        low, high = _curve(axes, group, style, main, index)
        lowest, highest = min(lowest, low), max(highest, high)
    axes.set(title=setting, xlabel='round', ylabel='accuracy')
    axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    style_lib.tidy(axes)
  grid[0, 0].set_ylim(max(0.0, lowest - 0.05), min(highest + 0.05, 1.01))
  _name_groups(grid[0, -1], list(shown.values()), by_row=True)
  return figure


def _curve(
  axes: Any,
  group: groups_lib.Group,
  style: style_lib.Style,
  classifier: str,
  index: int,
) -> tuple[float, float]:
  """Draws a group. Returns its range of accuracy after the first rounds."""
  column = f'{classifier}_accuracy'
  for run in group.runs:
    own = [row for row in run.history if column in row]
    if run.status != runs_lib.FINISHED and own:
      axes.plot(
        [row['round'] for row in own],
        [row[column] for row in own],
        **{**style.line, 'marker': 'x', 'linewidth': 0.6, 'markevery': [-1]},
      )
  table = _accuracies(group, classifier)
  if table.empty:
    return 1.0, 0.0
  mean, std = table.mean(axis=1), table.std(axis=1, ddof=1).fillna(0.0)
  axes.plot(
    mean.index,
    mean,
    linewidth=1.6,
    markevery=_marked(len(mean), index),
    **style.line,
  )
  axes.fill_between(
    mean.index,
    mean - std,
    mean + std,
    color=style.color,
    alpha=0.15,
    linewidth=0,
  )
  # The first rounds would use most of the height.
  settled = mean[mean.index >= max(1, mean.index.max() // 6)]
  return float(settled.min()), float((mean + std).max())


def _marked(num_points: int, index: int) -> tuple[int, int]:
  """Returns the points with markers, different for each line."""
  step = max(1, num_points // _NUM_MARKERS)
  return index % step, step


def _accuracy_label(classifier: str) -> str:
  if classifier in client_evaluation.GLOBAL_CLASSIFIERS:
    return 'accuracy'
  return 'accuracy (all test examples)'


def per_client(groups: Sequence[groups_lib.Group]) -> figure_lib.Figure:
  """Draws the spread of accuracies over clients, one box per group.

  A client's accuracy is that of the method's main classifier after the last
  round, mean over seeds. Whiskers reach to the extremes.

  Args:
    groups: Result of `groups.group`. Groups without `per_client.csv` are left
      out.
  """
  labels, boxes, styles = [], [], []
  for group, style in zip(groups, style_lib.of_groups(groups)):
    tables = [
      run.per_client for run in group.finished if run.per_client is not None
    ]
    names = classifiers_of(group)
    if not tables or not names:
      continue
    main = client_evaluation.main_classifier(names)
    counted = main if main in tables[0] else 'head'
    # NaN where a client has no test examples: simulated attackers have none.
    accuracies = np.stack(
      [(table[counted] / table['num_examples']).to_numpy() for table in tables]
    )
    tested = accuracies[:, ~np.isnan(accuracies).all(axis=0)]
    accuracies = np.nanmean(tested, axis=0)
    title = names_lib.title(group.name, group.algorithm)
    labels.append(f'{title} ({_label(counted)})')
    boxes.append(accuracies)
    styles.append(style)
  figure = style_lib.new_figure(8.0, 1.2 + 0.36 * len(boxes))
  axes = figure.subplots()
  places = np.arange(len(boxes), 0, -1)
  drawn = axes.boxplot(
    boxes,
    positions=places,
    vert=False,
    widths=0.6,
    whis=(0, 100),
    patch_artist=True,
    medianprops={'color': 'black', 'linewidth': 1.4},
  )
  for place, values, box, style in zip(places, boxes, drawn['boxes'], styles):
    box.set(facecolor=style.color, alpha=0.35, edgecolor=style.color)
    axes.scatter(
      values,
      np.full(len(values), place),
      s=14,
      **style.points,
      linewidths=0.6,
      zorder=3,
    )
  axes.set_yticks(places, labels)
  axes.set(
    xlabel='accuracy of a client on its test data, mean over seeds',
    title=f'Spread over clients ({len(boxes[0])})' if boxes else '',
  )
  style_lib.tidy(axes)
  axes.grid(axis='y', visible=False)
  return figure


def communication(groups: Sequence[groups_lib.Group]) -> figure_lib.Figure:
  """Draws accuracy over the bytes sent and received by all clients.

  The accuracy is that of the method's main classifier, mean over seeds. A
  method without messages is a line at its last accuracy. There is a panel for
  each setting.

  Args:
    groups: Result of `groups.group`.
  """
  return _by_cost(
    groups,
    tables.megabytes_by_round,
    'sent and received by all clients so far, MB (10$^6$ bytes)',
    xscale='log',
  )


def has_simulated_time(groups: Sequence[groups_lib.Group]) -> bool:
  """Returns whether all finished runs have simulated seconds (docs/field.md).

  Args:
    groups: Result of `groups.group`.
  """
  finished = [run for group in groups for run in group.finished]
  return bool(finished) and all(
    run.history[-1].get('simulated_seconds') for run in finished
  )


def simulated_time(groups: Sequence[groups_lib.Group]) -> figure_lib.Figure:
  """Draws accuracy over simulated seconds, as `communication` over bytes.

  Args:
    groups: Result of `groups.group`; `has_simulated_time` of them is true.
  """
  return _by_cost(groups, _simulated_seconds, 'simulated seconds so far')


def _by_cost(
  groups: Sequence[groups_lib.Group],
  cost_fn: Callable[[runs_lib.Run], pandas.Series],
  label: str,
  xscale: str = 'linear',
) -> figure_lib.Figure:
  settings = list(dict.fromkeys(group.setting for group in groups))
  columns = min(len(settings), _MOST_COLUMNS)
  rows = -(-len(settings) // columns)
  width = 8.6 if len(settings) == 1 else 4.2 * columns + 2.0
  figure = style_lib.new_figure(width, max(4.8, 3.8 * rows))
  grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
  panels = dict(zip(settings, grid.flatten()))
  for axes in grid.flatten()[len(settings) :]:
    axes.set_axis_off()
  for setting, axes in panels.items():
    members = [group for group in groups if group.setting == setting]
    # The setting has its own panel: a method has its own style.
    for group, style in zip(members, style_lib.of_groups(members)):
      _cost_line(axes, group, style, cost_fn)
    axes.set(
      xscale=xscale,
      xlabel=label,
      ylabel='accuracy (all test examples)',
      title=setting,
    )
    style_lib.tidy(axes)
  first = [group for group in groups if group.setting == settings[0]]
  _name_groups(grid[0, -1], first, by_row=len(settings) > 1)
  return figure


def _cost_line(
  axes: Any,
  group: groups_lib.Group,
  style: style_lib.Style,
  cost_fn: Callable[[runs_lib.Run], pandas.Series],
) -> None:
  names = classifiers_of(group)
  if not names:
    return
  table = _accuracies(group, client_evaluation.main_classifier(names))
  costs = pandas.concat([cost_fn(run) for run in group.finished], axis=1)
  spent = costs.mean(axis=1)
  accuracy = table.mean(axis=1).loc[spent.index]
  sends = cost_fn is not tables.megabytes_by_round or any(
    run.history[-1].get('bytes_up_per_client') for run in group.finished
  )
  if sends:
    axes.plot(spent, accuracy, linewidth=1.4, markevery=[-1], **style.line)
    return
  last = accuracy.iloc[-1]
  axes.axhline(last, color=style.color, linewidth=1, linestyle=':')
  axes.annotate(
    f'{names_lib.title(group.place.row, group.algorithm)}: nothing is sent',
    (0.01, last),
    xycoords=axes.get_yaxis_transform(),
    xytext=(0, 3),
    textcoords='offset points',
    color=style.color,
    fontsize=9,
    path_effects=style_lib.outline(),
  )


def _simulated_seconds(run: runs_lib.Run) -> pandas.Series:
  """Returns simulated seconds so far by round, without round 0."""
  table = pandas.DataFrame(run.history).set_index('round')
  return table[table.index > 0]['simulated_seconds']


def _name_groups(
  axes: Any, groups: Sequence[groups_lib.Group], *, by_row: bool = False
) -> None:
  """Adds a legend beside axes, by rows if the columns have panels."""
  handles = [
    axes.plot(
      [],
      [],
      linewidth=1.6,
      label=names_lib.title(
        group.place.row if by_row else group.name, group.algorithm
      ),
      **style.line,
    )[0]
    for group, style in zip(groups, style_lib.of_groups(groups))
    if any(run.history for run in group.runs)
  ]
  style_lib.legend_beside(axes, handles=handles, fontsize=9)
