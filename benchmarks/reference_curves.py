"""Compares a method with the authors' run on their partition of digits.

  python -m benchmarks.reference_curves --algorithm=fedproto

trains `flags/<algorithm>.reference_digits32.flags` once per seed (of initial
weights and anchors) into --output_dir, where finished runs are taken as they
are; prints the mean over seeds beside the authors' curve and draws both.
Initial weights differ between frameworks, so curves are compared, not digits:
within 0.10 in rounds 1-4, 0.05 in 5-29 and 0.02 at 30.
"""

from collections.abc import Sequence
import contextlib
import json
import os
import pathlib
import sys
from typing import NamedTuple

from absl import app
from absl import flags
from matplotlib import figure as figure_lib
import numpy as np

from launch import runner

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


def train(
  algorithm: str,
  seeds: Sequence[int],
  output_dir: str,
  total_rounds: int = 30,
) -> np.ndarray:
  """Trains each seed, or reads its finished run.

  The seeds share traces.

  Args:
    algorithm: The method.
    seeds: Seeds of initial weights, and of anchors if the method has them.
    output_dir: Directory of the runs.
    total_rounds: Rounds of each run; the authors' have 30.

  Returns:
    The accuracy after each round, float64[seeds, total_rounds + 1], in [0, 1].
  """
  # Slow to import: not for --help.
  from benchmarks import shared_traces
  from tff_fedsa import experiment

  root = os.path.abspath(output_dir)
  accuracies = []
  # The preset names files of the repository.
  with contextlib.chdir(_REPOSITORY):
    base = experiment.Experiment.from_arguments(
      [f'--flagfile=flags/{algorithm}.reference_digits32.flags']
    )
    names = ['model_seed', *(['anchor_seed'] if algorithm == 'fedsa' else [])]
    for seed in seeds:
      seeded = base.replace(
        **dict.fromkeys(names, seed), total_rounds=total_rounds
      )
      shared_traces.share_traces(base, seeded)
      path = os.path.join(root, f'seed_{seed}')
      seeded.run(path, progress=False)
      rows = np.genfromtxt(
        os.path.join(path, 'metrics.csv'), delimiter=',', names=True
      )
      accuracies.append(rows[f'{_METHODS[algorithm].classifier}_accuracy'])
  return np.stack(accuracies)


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
  runs = train(algorithm, [int(seed) for seed in _SEEDS.value], root)
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
  runner.run(main)
