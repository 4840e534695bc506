"""Accuracy over bytes, from the runs of a sweep with compressions.

  python -m benchmarks.seeds_in_one_process \
      --sweep=flags/sweeps/compress_digits.toml
  python -m benchmarks.compression runs/compress_digits

prints a Markdown table of the last round, mean and standard deviation over
seeds, and the differences to the run of the same method and seeds without
compression. It writes compression.png beside the runs.
"""

from collections.abc import Mapping, Sequence
import os
from typing import NamedTuple

from absl import app
from matplotlib import figure as figure_lib
from matplotlib import lines as lines_lib
from matplotlib import ticker
import numpy as np

from tff_fedsa.algorithms import registry
from tff_fedsa.reporting import runs as runs_lib
from tff_fedsa.reporting import style

_CLASSIFIERS = ('prototype', 'anchor', 'head')
_MARKERS = ('o', 's', '^', 'D', 'v', 'P', 'X', '<', '>', '*')


class Setting(NamedTuple):
  """What the repeats of a run share.

  Attributes:
    algorithm: The method.
    up: Compression of what clients send.
    down: Compression of what they receive.
  """

  algorithm: str
  up: str
  down: str

  @property
  def compression(self) -> str:
    """Both ways in words."""
    if self.down == 'none':
      return self.up
    return f'{self.up}, down {self.down}'


class Repeat(NamedTuple):
  """A run's last row.

  Attributes:
    accuracy: By classifier, in [0, 1].
    kilobytes_up: Bytes / 1000 that a client sent in the round, mean.
    kilobytes_down: Those that it received.
  """

  accuracy: Mapping[str, float]
  kilobytes_up: float
  kilobytes_down: float


Repeats = Mapping[Setting, Mapping[tuple[str, ...], Repeat]]


def collect(found: Sequence[runs_lib.Run]) -> Repeats:
  """Returns the last rows of finished runs, by setting and seeds.

  Args:
    found: Result of `runs.find`.

  Raises:
    ReportError: If a run has not finished.
  """
  repeats: dict[Setting, dict[tuple[str, ...], Repeat]] = {}
  for run in found:
    if run.status != 'finished':
      raise runs_lib.ReportError(
        f'Expected finished runs, found {run.path!r} ({run.status}).'
      )
    last = run.history[-1]
    setting = Setting(
      *(run.flags[n] for n in ('algorithm', 'compress', 'compress_down'))
    )
    seeds = tuple(run.flags[n] for n in ('partition_seed', 'model_seed'))
    repeats.setdefault(setting, {})[seeds] = Repeat(
      {
        name: last[f'{name}_accuracy']
        for name in _CLASSIFIERS
        if f'{name}_accuracy' in last
      },
      last['bytes_up_per_client'] / 1e3,
      last['bytes_down_per_client'] / 1e3,
    )
  order = {name: i for i, name in enumerate(registry.NAMES)}
  return dict(
    sorted(
      repeats.items(),
      key=lambda item: (order[item[0].algorithm], -_kilobytes(item[1])),
    )
  )


def table(repeats: Repeats) -> str:
  """Returns a Markdown table, accuracies in percent.

  Args:
    repeats: Result of `collect`.

  Returns:
    Means ± standard deviations over seeds, and in brackets the mean difference
    to the same seeds without compression, where there are such runs.
  """
  lines = [
    '| method | compression | kB up | kB down | seeds | '
    f'{" | ".join(_CLASSIFIERS)} |',
    '|---' * (5 + len(_CLASSIFIERS)) + '|',
  ]
  for setting, by_seed in repeats.items():
    first = next(iter(by_seed.values()))
    cells = []
    for name in _CLASSIFIERS:
      if name not in first.accuracy:
        cells.append('')
        continue
      percent = [100 * r.accuracy[name] for r in by_seed.values()]
      cell = f'{np.mean(percent):.1f} ± {np.std(percent):.1f}'
      lost = differences(repeats, setting, name)
      if lost and setting[1:] != ('none', 'none'):
        cell += f' ({np.mean(lost):+.1f})'
      cells.append(cell)
    lines.append(
      f'| {registry.get(setting.algorithm).title} | {setting.compression} | '
      f'{first.kilobytes_up:.2f} | {first.kilobytes_down:.2f} | '
      f'{len(by_seed)} | {" | ".join(cells)} |'
    )
  return '\n'.join(lines)


def differences(
  repeats: Repeats, setting: Setting, classifier: str
) -> list[float]:
  """Returns points of accuracy that compression adds, for each seed.

  Args:
    repeats: Result of `collect`.
    setting: One of them.
    classifier: Which accuracy.
  """
  plain = repeats.get(Setting(setting.algorithm, 'none', 'none'), {})
  return [
    100 * (repeat.accuracy[classifier] - plain[seeds].accuracy[classifier])
    for seeds, repeat in repeats[setting].items()
    if seeds in plain
  ]


def draw(repeats: Repeats) -> figure_lib.Figure:
  """Draws accuracy over bytes, a panel for each classifier.

  A colour is a method, a marker a compression. The bytes are those that a
  client sends and receives in a round.

  Args:
    repeats: Result of `collect`.
  """
  compressions = list(dict.fromkeys(s.compression for s in repeats))
  markers = dict(zip(compressions, _MARKERS))
  algorithms = list(dict.fromkeys(s.algorithm for s in repeats))
  figure = style.new_figure(10.5, 4.2)
  panels = figure.subplots(1, len(_CLASSIFIERS), sharex=True, sharey=True)
  for axes, classifier in zip(panels, _CLASSIFIERS):
    for algorithm in algorithms:
      points = [
        (_kilobytes(by_seed), s.compression, _percents(by_seed, classifier))
        for s, by_seed in repeats.items()
        if s.algorithm == algorithm
        and classifier in next(iter(by_seed.values())).accuracy
      ]
      color = style.of_method(algorithm).color
      for kilobytes, compression, percents in points:
        axes.errorbar(
          kilobytes,
          np.mean(percents),
          yerr=np.std(percents),
          color=color,
          capsize=2,
          elinewidth=0.8,
          marker=markers[compression],
          markersize=6,
          linestyle='none',
        )
    axes.set(title=classifier, xscale='log')
    axes.set_xlabel('kB per client and round, up + down')
    axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(ticker.StrMethodFormatter('{x:g}'))
    axes.xaxis.set_minor_formatter(ticker.NullFormatter())
    style.tidy(axes)
  panels[0].set_ylabel('accuracy, percent')
  handles = [
    lines_lib.Line2D(
      [],
      [],
      color=style.of_method(algorithm).color,
      linewidth=4,
      label=registry.get(algorithm).title,
    )
    for algorithm in algorithms
  ]
  handles += [
    lines_lib.Line2D(
      [], [], color='0.3', marker=marker, linestyle='none', label=compression
    )
    for compression, marker in markers.items()
  ]
  figure.legend(
    handles=handles, loc='outside lower center', ncols=5, frameon=False
  )
  return figure


def _kilobytes(by_seed: Mapping[tuple[str, ...], Repeat]) -> float:
  return float(
    np.mean([r.kilobytes_up + r.kilobytes_down for r in by_seed.values()])
  )


def _percents(
  by_seed: Mapping[tuple[str, ...], Repeat], classifier: str
) -> list[float]:
  return [100 * r.accuracy[classifier] for r in by_seed.values()]


def main(argv: Sequence[str]) -> None:
  """Prints the table and writes the figure."""
  if len(argv) != 2:
    raise app.UsageError('Expected one directory of runs.')
  repeats = collect(runs_lib.find([argv[1]], {}))
  print(table(repeats))
  path = os.path.join(argv[1], 'compression.png')
  draw(repeats).savefig(path, dpi=150)
  print(path)


if __name__ == '__main__':
  app.run(main)
