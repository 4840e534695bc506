"""Who gains: accuracy by architecture, and of the weakest clients."""

from collections.abc import Sequence
from typing import Any, Optional

from matplotlib import figure as figure_lib
import numpy as np
import pandas

from tff_fedsa.reporting import groups as groups_lib
from tff_fedsa.reporting import names as names_lib
from tff_fedsa.reporting import style as style_lib
from tff_fedsa.reporting import tables

# A client's own model, after its training and as it was received. Nearest
# prototypes and anchors exist in some methods only.
_MODELS = {'head': '', 'received_head': ', as received'}
ALL = 'all clients'
WORST = 'worst 10 %'
BYTES = 'kB per round'

EXPLANATION = (
  "Accuracy of the clients' own models after the last round, by architecture; "
  f'mean over runs. *{WORST}*: mean of the worst tenth of the clients. *As '
  'received*: the averaged model with which a client would begin the next '
  'round. *kB*: sent and received by a client in a round.'
)


def by_architecture(
  groups: Sequence[groups_lib.Group],
) -> tuple[pandas.DataFrame, pandas.DataFrame]:
  """Returns the accuracy of clients' models after the last round.

  A method has one row, and a second one if clients receive weights: the model
  with which they would begin the next round.

  Args:
    groups: Result of `groups.group`.

  Returns:
    Two tables: means over runs, and standard deviations (of the sample; those
    of one run are NaN). Both have the columns `ALL`, one per architecture, and
    `WORST` (mean over the worst tenth of the clients), accuracies in [0, 1]
    that count test examples. The first one also has `method` and `BYTES`, the
    mean kB (10^3 bytes) that a client sends and receives in a round. The tables
    are empty if no run has accuracies of clients.
  """
  rows, deviations = [], []
  for group in groups:
    for classifier, suffix in _MODELS.items():
      found = [
        (run, clients)
        for run in group.finished
        if (clients := run.per_client) is not None and classifier in clients
      ]
      if not found:
        continue
      own = pandas.DataFrame(
        [_accuracies(clients, classifier) for _, clients in found]
      )
      sent = [
        run.history[-1].get('bytes_up_per_client', 0)
        + run.history[-1].get('bytes_down_per_client', 0)
        for run, _ in found
      ]
      title = names_lib.title(group.name, group.algorithm)
      rows.append(
        {
          'method': title + suffix,
          **own.mean().to_dict(),
          BYTES: float(np.mean(sent)) / 1e3,
        }
      )
      deviations.append(own.std())
  table = pandas.DataFrame(rows)
  last = [name for name in (WORST, BYTES) if name in table]
  means = table[[name for name in table if name not in last] + last]
  return means, pandas.DataFrame(deviations)


def _accuracies(per_client: pandas.DataFrame, classifier: str) -> pandas.Series:
  by_name = per_client.groupby('architecture', sort=False)[
    [classifier, 'num_examples']
  ].sum()
  accuracies = by_name[classifier] / by_name['num_examples'].clip(lower=1)
  total = per_client[classifier].sum() / per_client['num_examples'].sum()
  return pandas.concat(
    [
      pandas.Series({ALL: total}),
      accuracies,
      pandas.Series({WORST: tables.worst_tenth(per_client, classifier)}),
    ]
  )


def draw(table: pandas.DataFrame, title: str) -> figure_lib.Figure:
  """Draws accuracies as bars, one group for each column of the table.

  Args:
    table: Means of `by_architecture`.
    title: Title of the figure.
  """
  places = [name for name in table if name not in ('method', BYTES)]
  figure = style_lib.new_figure(2.2 * len(places) + 3.4, 4.2)
  axes: Any = figure.subplots()
  width = 0.84 / len(table)
  for index, (_, row) in enumerate(table.iterrows()):
    label = f'{row["method"]} ({row[BYTES]:.1f} kB)'
    bars = axes.bar(
      np.arange(len(places)) + (index - (len(table) - 1) / 2) * width,
      [row[name] for name in places],
      width * 0.94,
      color=style_lib.PALETTE[index % len(style_lib.PALETTE)],
      label=label,
    )
    axes.bar_label(
      bars,
      [f'{100 * row[name]:.0f}' if row[name] >= 0 else '' for name in places],
      fontsize=8,
      padding=1,
    )
  lowest = min(float(table[name].min()) for name in places)
  axes.set_ylim(max(0.0, lowest - 0.1), 1.0)
  axes.set_xticks(np.arange(len(places)), places)
  axes.set(ylabel='accuracy of the clients’ models', title=title)
  style_lib.tidy(axes)
  axes.grid(axis='x', visible=False)
  style_lib.legend_beside(
    axes, title='method (sent and received per round)', fontsize=9
  )
  return figure


def names_in(table: pandas.DataFrame) -> list[str]:
  """Returns the architectures in the means of `by_architecture`."""
  return [n for n in table if n not in ('method', ALL, WORST, BYTES)]


def to_text(
  table: pandas.DataFrame, deviations: Optional[pandas.DataFrame] = None
) -> pandas.DataFrame:
  """Returns accuracies as cells of text, in percent.

  Args:
    table: Means of `by_architecture`.
    deviations: Its standard deviations. Default: only means are written. A cell
      of one run has none.
  """
  cells = table.copy()
  for name in table:
    if name == BYTES:
      cells[name] = table[name].map('{:.1f}'.format)
    elif name != 'method':
      cells[name] = (100 * table[name]).map('{:.1f}'.format)
      if deviations is not None:
        is_known = deviations[name].notna()
        texts = (100 * deviations[name]).map(' ± {:.1f}'.format)
        cells.loc[is_known, name] += texts[is_known]
      # No client of this architecture.
      cells.loc[table[name].isna(), name] = '–'
  return cells
