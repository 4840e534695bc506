"""Runs the small presets with available data.

  python -m benchmarks.small_presets --tfds_dir=$TFDS_DATA_DIR --office_dir=DIR

Trains each preset of --presets with `launch.train` into --output_dir, where
finished runs are taken as they are; prints a table of the last round and draws
all curves in one figure. Up to ten minutes each on two cores.
"""

from collections.abc import Mapping, Sequence
import os
import pathlib
import subprocess
import sys
from typing import Any

from absl import app
from absl import flags
from matplotlib import figure as figure_lib
from matplotlib import ticker
import pandas

_PRESETS = flags.DEFINE_list(
  'presets',
  [
    'fedsa.digits',
    'fedsa.fashion_mnist_dir01_small',
    'fedsa.cifar10_dir01_small',
    'fedsa.cifar10_dir05_small',
    'paper/cifar10_htfe8.small',
    'fedhpro/cifar10_nid1_02.small',
    'fedhpro/cifar10_nid2.small',
    'fedhpro/cifar10_lt10.small',
    'fedhpro/cifar10_lt50.small',
    'fedhpro/cifar10_lt100.small',
    'fedhpro/office_caltech10.small',
  ],
  'Names below flags/, without .flags.',
)
_TFDS_DIR = flags.DEFINE_string(
  'tfds_dir', None, "The other presets' data, as TFDS."
)
_OFFICE_DIR = flags.DEFINE_string(
  'office_dir', None, "The folder of Office-Caltech10's domains."
)
_DATASET = flags.DEFINE_string(
  'dataset', None, "Data set in --tfds_dir that replaces the presets' own."
)
_OUTPUT_DIR = flags.DEFINE_string(
  'output_dir', 'runs/small_presets', 'Directory of the runs.'
)
_REPOSITORY = pathlib.Path(__file__).parents[1]
_CLASSIFIERS = ('prototype', 'anchor', 'head')


def train(preset: str) -> pandas.DataFrame:
  """Trains a preset, or reads its finished run, and returns its metrics.

  Raises:
    subprocess.CalledProcessError: If training fails.
  """
  root = os.path.abspath(_OUTPUT_DIR.value)
  name = '.'.join([preset.replace('/', '.'), *_instead()])
  data_dir = next(
    where
    for what, where in (
      ('digits', None),  # Always available.
      ('office', _OFFICE_DIR.value),
      ('', _TFDS_DIR.value),
    )
    if what in preset
  )
  subprocess.run(
    [
      sys.executable,
      '-m',
      'launch.train',
      f'--flagfile=flags/{preset}.flags',
      f'--root_output_dir={root}',
      f'--experiment_name={name}',
      *([f'--data_dir={os.path.abspath(data_dir)}'] if data_dir else []),
      *(f'--dataset={dataset}' for dataset in _instead()),
    ],
    cwd=_REPOSITORY,
    check=True,
  )
  return pandas.read_csv(os.path.join(root, name, 'metrics.csv'))


def _instead() -> list[str]:
  return [_DATASET.value] if _DATASET.value else []


def accuracy(metrics: pandas.DataFrame, classifier: str) -> pandas.Series:
  """Returns a classifier's accuracies by round, for both protocols."""
  personal = f'{classifier}_accuracy'
  return metrics[personal if personal in metrics else f'global_test_{personal}']


def draw(runs: Mapping[str, pandas.DataFrame]) -> figure_lib.Figure:
  """Draws the curves of all runs, one panel each."""
  num_rows = -(-len(runs) // 3)
  figure = figure_lib.Figure(
    figsize=(9.6, 2.6 * num_rows), layout='constrained'
  )
  panels: Any = figure.subplots(num_rows, 3, squeeze=False).ravel()
  for panel in panels[len(runs) :]:
    panel.remove()
  for panel, (preset, metrics) in zip(panels, runs.items()):
    for classifier in _CLASSIFIERS:
      panel.plot(
        metrics['round'], accuracy(metrics, classifier), label=classifier
      )
    panel.set(title=preset, xlabel='round', ylim=(0, 1))
    panel.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    panel.spines[['top', 'right']].set_visible(False)
    panel.grid(alpha=0.25)
  panels[0].set_ylabel('accuracy')
  panels[0].legend(frameon=False)
  return figure


def main(argv: Sequence[str]) -> None:
  """Trains, prints, draws."""
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected arguments: {argv[1:]}')
  runs = {preset: train(preset) for preset in _PRESETS.value}
  print(
    '| preset | rounds | prototype | anchor | head | training | memory |\n'
    '|---|---|---|---|---|---|---|'
  )
  for preset, metrics in runs.items():
    last = metrics.index[-1]
    accuracies = ' | '.join(
      f'{accuracy(metrics, classifier)[last]:.3f}'
      for classifier in _CLASSIFIERS
    )
    seconds = metrics['seconds_training'] + metrics['seconds_evaluation']
    memory = metrics['memory_peak_mb'][last] / 1e3
    print(
      f'| `{preset}` | {metrics["round"][last]} | {accuracies} | '
      f'{seconds.sum():.0f} s | {memory:.1f} GB |'
    )
  path = os.path.join(_OUTPUT_DIR.value, 'small_presets.png')
  draw(runs).savefig(path, dpi=100)
  print(f'figure: {path}')


if __name__ == '__main__':
  app.run(main)
