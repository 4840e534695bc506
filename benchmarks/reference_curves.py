"""Compares a method with the authors' run on their partition of digits.

  python -m benchmarks.reference_curves --algorithm=fedproto

trains `flags/<algorithm>.reference_digits32.flags` once per seed (of initial
weights and anchors) with `launch.train`, into --output_dir, where finished runs
are taken as they are; prints the mean over seeds beside the authors' curve and
draws both. Initial weights differ between frameworks, so curves are compared,
not digits: within 0.10 in rounds 1-4, 0.05 in 5-29 and 0.02 at 30. About two
minutes per seed on two cores.
"""

from collections.abc import Sequence
import json
import os
import pathlib
import subprocess
import sys
from typing import NamedTuple

from absl import app
from absl import flags
from matplotlib import figure as figure_lib
import numpy as np

_ALGORITHM = flags.DEFINE_enum(
  'algorithm',
  'fedsa',
  ['fedsa', 'fedproto', 'fedtgp', 'local'],
  'The method; the authors ran these.',
)
_SEEDS = flags.DEFINE_list('seeds', ['0', '1', '2'], 'One run for each.')
_OUTPUT_DIR = flags.DEFINE_string(
  'output_dir',
  None,
  'Directory of the runs. Default: runs/reference_curves/<algorithm>.',
)
_REPOSITORY = pathlib.Path(__file__).parents[1]
_REFERENCE = _REPOSITORY / 'tests/testdata/reference_runs/digits.json'


class _Method(NamedTuple):
  """A method's name in the authors' runs, and the classifier they report."""

  title: str
  run: str
  classifier: str = 'prototype'


_METHODS = {
  'fedsa': _Method('FedSA', 'FedSA_l10_D32_a0.1_s0'),
  'fedproto': _Method('FedProto', 'FedProto_l10_D32_a0.1_s0'),
  'fedtgp': _Method('FedTGP', 'FedTGP_l10_D32_a0.1_s0'),
  'local': _Method('Local', 'Local_l0_D32_a0.1_s0', 'head'),
}


def reference_accuracy(algorithm: str) -> np.ndarray:
  """Returns the authors' accuracy after round r, float64[31], in [0, 1]."""
  runs = json.loads(_REFERENCE.read_text(encoding='utf-8'))
  return np.array(runs[_METHODS[algorithm].run]['official_acc'])


def tolerance(algorithm: str) -> np.ndarray:
  """Returns the tolerance of the mean over seeds, by round."""
  rounds = np.arange(31)
  # No client has prototypes before the first round. Untrained heads guess.
  untrained = 0.0 if _METHODS[algorithm].classifier == 'prototype' else 1.0
  return np.select(
    [rounds < 1, rounds < 5, rounds < 30], [untrained, 0.10, 0.05], 0.02
  )


def train(algorithm: str, seed: str, output_dir: str) -> np.ndarray:
  """Trains one seed, or reads its finished run, and returns its accuracies.

  Raises:
    subprocess.CalledProcessError: If training fails.
  """
  name = f'seed_{seed}'
  root = os.path.abspath(output_dir)
  subprocess.run(
    [
      sys.executable,
      '-m',
      'launch.train',
      f'--flagfile=flags/{algorithm}.reference_digits32.flags',
      f'--root_output_dir={root}',
      f'--experiment_name={name}',
      f'--model_seed={seed}',
      *([f'--anchor_seed={seed}'] if algorithm == 'fedsa' else []),
    ],
    cwd=_REPOSITORY,
    check=True,
  )
  rows = np.genfromtxt(
    os.path.join(root, name, 'metrics.csv'), delimiter=',', names=True
  )
  return rows[f'{_METHODS[algorithm].classifier}_accuracy']


def draw(algorithm: str, runs: np.ndarray) -> figure_lib.Figure:
  """Draws all runs, their mean, and the authors' curve with the tolerance.

  Args:
    algorithm: The method.
    runs: float64[seeds, 31].
  """
  figure = figure_lib.Figure(figsize=(6.4, 4.2), layout='constrained')
  axes = figure.subplots()
  rounds = np.arange(31)
  reference, allowed = reference_accuracy(algorithm), tolerance(algorithm)
  method = _METHODS[algorithm]
  axes.fill_between(
    rounds,
    reference - allowed,
    reference + allowed,
    color='#BBBBBB',
    alpha=0.5,
    linewidth=0,
    label='agreed tolerance',
  )
  axes.plot(rounds, reference, color='black', label="authors' code, one seed")
  axes.plot(rounds, runs.T, color='#0072B2', alpha=0.35, linewidth=0.8)
  axes.plot(
    rounds,
    runs.mean(axis=0),
    color='#0072B2',
    label=f'tff_fedsa, mean of {len(runs)} seeds',
  )
  axes.set(
    xlabel='round',
    ylabel=f'{method.classifier} accuracy',
    ylim=(0, 1.01),
    title=f'{method.title} on digits, dirichlet 0.1, FedAvgCNN + ResNet-8',
  )
  axes.spines[['top', 'right']].set_visible(False)
  axes.grid(alpha=0.25)
  axes.legend(loc='lower right', frameon=False)
  return figure


def main(argv: Sequence[str]) -> None:
  """Trains, prints and draws. Fails if the tolerance is exceeded."""
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected arguments: {argv[1:]}')
  algorithm = _ALGORITHM.value
  root = _OUTPUT_DIR.value or f'runs/reference_curves/{algorithm}'
  runs = np.stack([train(algorithm, seed, root) for seed in _SEEDS.value])
  mean, reference, allowed = (
    runs.mean(axis=0),
    reference_accuracy(algorithm),
    tolerance(algorithm),
  )
  print('round  authors  tff_fedsa  difference  allowed')
  for r in range(31):
    print(
      f'{r:>5}  {reference[r]:>7.3f}  {mean[r]:>9.3f}  '
      f'{mean[r] - reference[r]:>+10.3f}  {allowed[r]:>7.2f}'
    )
  path = os.path.join(root, 'reference_curves.png')
  draw(algorithm, runs).savefig(path, dpi=130)
  print(f'figure: {path}')
  outside = np.flatnonzero(np.abs(mean - reference) > allowed)
  if outside.size:
    sys.exit(f'outside the tolerance in rounds {outside.tolist()}')


if __name__ == '__main__':
  app.run(main)
