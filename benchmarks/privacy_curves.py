"""Accuracy over epsilon, from the runs of a sweep with differential privacy.

  tff-fedsa sweep --sweep=dp_digits
  tff-fedsa sweep --sweep=dp_digits_frozen
  tff-fedsa sweep --sweep=dp_digits_kinds
  D=runs/dp_digits
  python -m benchmarks.privacy_curves $D ${D}_frozen ${D}_kinds

prints a Markdown table of the last round, mean and standard deviation over
seeds, and writes privacy_curves.png into the first directory. A run without
noise stands at infinity. The figure shows noise of the server (central) with a
fixed clipping norm.
"""

import collections
from collections.abc import Mapping, Sequence
import itertools
import math
import os
from typing import NamedTuple

from absl import app
from matplotlib import figure as figure_lib
import numpy as np

from tff_fedsa.algorithms import registry
from tff_fedsa.reporting import runs as runs_lib
from tff_fedsa.reporting import style

_CLASSIFIERS = ('prototype', 'anchor', 'head')
_LINES = ('-', '--', '-.', ':')


class Setting(NamedTuple):
  """What the repeats of a run share.

  Attributes:
    algorithm: The method.
    is_frozen: Whether its anchors never move.
    noise: Who adds noise, and whether the clipping norm adapts; `none` without
      noise.
    cohort: Clients of a simulated round, of which population, as text; empty
      without a simulated cohort.
    epsilon: Epsilon after the last round.
  """

  algorithm: str
  is_frozen: bool
  noise: str
  cohort: str
  epsilon: float

  @property
  def title(self) -> str:
    """Name of the method."""
    title = registry.get(self.algorithm).title
    return f'{title}, frozen anchors' if self.is_frozen else title


def collect(
  found: Sequence[runs_lib.Run],
) -> dict[Setting, dict[str, list[float]]]:
  """Returns the last accuracies of finished runs, by setting and classifier.

  Args:
    found: Result of `runs.find`.

  Raises:
    ReportError: If a run has no differential privacy or has not finished.
  """
  accuracies: dict[Setting, dict[str, list[float]]] = {}
  for run in found:
    if run.status != 'finished' or 'dp_epsilon' not in run.history[-1]:
      raise runs_lib.ReportError(
        f'Expected finished runs with --dp, found {run.path!r} ({run.status}).'
      )
    last = run.history[-1]
    noise, cohort = 'none', ''
    if math.isfinite(last['dp_epsilon']):
      noise = run.flags['dp']
      if run.flags.get('dp_clip_quantile'):
        noise += ', adaptive clipping'
      if run.flags.get('dp_cohort'):
        cohort = f'{run.flags["dp_cohort"]} of {run.flags["dp_population"]}'
    algorithm = run.flags['algorithm']
    setting = Setting(
      algorithm,
      algorithm == 'fedsa' and float(run.flags.get('anchor_decay', 0)) == 1.0,
      noise,
      cohort,
      float(f'{last["dp_epsilon"]:.2g}'),
    )
    by_classifier = accuracies.setdefault(
      setting, collections.defaultdict(list)
    )
    for name in _CLASSIFIERS:
      if f'{name}_accuracy' in last:
        by_classifier[name].append(last[f'{name}_accuracy'])
  return dict(sorted(accuracies.items()))


def table(
  accuracies: Mapping[Setting, Mapping[str, Sequence[float]]],
) -> str:
  """Returns a Markdown table of means and standard deviations, in percent."""
  lines = [
    '| method | noise | cohort | epsilon | seeds | '
    f'{" | ".join(_CLASSIFIERS)} |',
    '|---' * (5 + len(_CLASSIFIERS)) + '|',
  ]
  for setting, by_classifier in accuracies.items():
    cells = []
    for name in _CLASSIFIERS:
      percent = 100 * np.array(by_classifier.get(name, []))
      cells.append(
        f'{percent.mean():.1f} ± {percent.std():.1f}' if len(percent) else ''
      )
    seeds = max(map(len, by_classifier.values()))
    lines.append(
      f'| {setting.title} | {setting.noise} | {setting.cohort} | '
      f'{setting.epsilon:g} | {seeds} | {" | ".join(cells)} |'
    )
  return '\n'.join(lines)


def draw(
  accuracies: Mapping[Setting, Mapping[str, Sequence[float]]],
) -> figure_lib.Figure:
  """Draws one panel for each classifier, one line for each method and cohort.

  Args:
    accuracies: Result of `collect`.
  """
  accuracies = {
    setting: by_classifier
    for setting, by_classifier in accuracies.items()
    if setting.noise in ('none', 'central')
  }
  epsilons = sorted({setting.epsilon for setting in accuracies})
  cohorts = sorted(
    {s.cohort for s in accuracies} - {''}, key=lambda c: -int(c.split()[0])
  )
  figure = style.new_figure(10.0, 3.4)
  panels = figure.subplots(1, len(_CLASSIFIERS), sharey=True)
  for axes, classifier in zip(panels, _CLASSIFIERS):
    methods = dict.fromkeys(s[:2] for s in accuracies)
    for (algorithm, is_frozen), (cohort, line) in itertools.product(
      methods, zip(cohorts, _LINES)
    ):
      points = {
        s.epsilon: by_classifier[classifier]
        for s, by_classifier in accuracies.items()
        if s[:2] == (algorithm, is_frozen)
        and s.cohort in (cohort, '')
        and classifier in by_classifier
      }
      # Runs without noise say nothing of a cohort.
      if not any(map(math.isfinite, points)):
        continue
      title = next(
        s.title for s in accuracies if s[:2] == (algorithm, is_frozen)
      )
      look = dict(style.of_method(algorithm, ':' if is_frozen else line).line)
      look |= {'color': '0.4', 'marker': 'x'} if is_frozen else {}
      # Lines that lie on each other would hide each other.
      shift = 0.05 * len(axes.containers)
      places = [shift + epsilons.index(epsilon) for epsilon in sorted(points)]
      values = [points[epsilon] for epsilon in sorted(points)]
      axes.errorbar(
        places,
        [np.mean(v) for v in values],
        yerr=[np.std(v) for v in values],
        capsize=2,
        label=f'{title}, {cohort}',
        **look,
      )
    axes.set(title=classifier, xlabel='epsilon')
    axes.set_xticks(
      range(len(epsilons)),
      ['∞' if math.isinf(e) else f'{e:g}' for e in epsilons],
    )
    style.tidy(axes)
  panels[0].set_ylabel('accuracy')
  handles, labels = panels[0].get_legend_handles_labels()
  figure.legend(
    handles, labels, loc='outside lower center', ncols=4, frameon=False
  )
  return figure


def main(argv: Sequence[str]) -> None:
  """Prints the table and writes the figure."""
  if len(argv) < 2:
    raise app.UsageError('Expected directories of runs.')
  accuracies = collect(runs_lib.find(argv[1:], {}))
  print(table(accuracies))
  path = os.path.join(argv[1], 'privacy_curves.png')
  draw(accuracies).savefig(path, dpi=150)
  print(path)


if __name__ == '__main__':
  app.run(main)
