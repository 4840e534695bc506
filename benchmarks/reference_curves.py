"""Compares FedSA with the authors' own run on their partition of digits.

  python -m benchmarks.reference_curves

trains `flags/fedsa.reference_digits32.flags` once per seed (of initial weights
and anchors) with `launch.train`, into --output_dir, where finished runs
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

from absl import app
from absl import flags
from matplotlib import figure as figure_lib
import numpy as np

_SEEDS = flags.DEFINE_list('seeds', ['0', '1', '2'], 'One run for each.')
_OUTPUT_DIR = flags.DEFINE_string(
  'output_dir', 'runs/reference_curves', 'Directory of the runs.'
)

# BUILD: //launch:train //flags:presets //tests/testdata
_REPOSITORY = pathlib.Path(__file__).parents[1]
_PRESET = 'flags/fedsa.reference_digits32.flags'
_REFERENCE = _REPOSITORY / 'tests/testdata/reference_runs/digits.json'
_REFERENCE_RUN = 'FedSA_l10_D32_a0.1_s0'


def reference_accuracy() -> np.ndarray:
  """Returns the authors' accuracy after round r, float64[31], in [0, 1]."""
  runs = json.loads(_REFERENCE.read_text(encoding='utf-8'))
  return np.array(runs[_REFERENCE_RUN]['official_acc'])


def tolerance() -> np.ndarray:
  """Returns how far the mean over seeds may be from it, by round."""
  rounds = np.arange(31)
  # Nobody has a prototype before the first round.
  return np.select(
    [rounds < 1, rounds < 5, rounds < 30], [0.0, 0.10, 0.05], 0.02
  )


def train(seed: str, output_dir: str) -> np.ndarray:
  """Trains one seed, or takes its finished run; returns its accuracies.

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
      f'--flagfile={_PRESET}',
      f'--root_output_dir={root}',
      f'--experiment_name={name}',
      f'--model_seed={seed}',
      f'--anchor_seed={seed}',
    ],
    cwd=_REPOSITORY,
    check=True,
  )
  rows = np.genfromtxt(
    os.path.join(root, name, 'metrics.csv'), delimiter=',', names=True
  )
  return rows['prototype_accuracy']


def draw(runs: np.ndarray) -> figure_lib.Figure:
  """Draws all runs, their mean and the authors' curve with the tolerance.

  Args:
    runs: float64[seeds, 31].
  """
  figure = figure_lib.Figure(figsize=(6.4, 4.2), layout='constrained')
  axes = figure.subplots()
  rounds = np.arange(31)
  reference, allowed = reference_accuracy(), tolerance()
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
    ylabel='nearest-prototype accuracy',
    ylim=(0, 1.01),
    title='FedSA on digits, dirichlet 0.1, FedAvgCNN + ResNet-8',
  )
  axes.spines[['top', 'right']].set_visible(False)
  axes.grid(alpha=0.25)
  axes.legend(loc='lower right', frameon=False)
  return figure


def main(argv: Sequence[str]) -> None:
  """Trains, prints, draws; fails where the tolerance is exceeded."""
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected arguments: {argv[1:]}')
  root = _OUTPUT_DIR.value
  runs = np.stack([train(seed, root) for seed in _SEEDS.value])
  mean, reference, allowed = (
    runs.mean(axis=0),
    reference_accuracy(),
    tolerance(),
  )
  print('round  authors  tff_fedsa  difference  allowed')
  for r in range(31):
    print(
      f'{r:>5}  {reference[r]:>7.3f}  {mean[r]:>9.3f}  '
      f'{mean[r] - reference[r]:>+10.3f}  {allowed[r]:>7.2f}'
    )
  path = os.path.join(root, 'reference_curves.png')
  draw(runs).savefig(path, dpi=130)
  print(f'figure: {path}')
  outside = np.flatnonzero(np.abs(mean - reference) > allowed)
  if outside.size:
    sys.exit(f'outside the tolerance in rounds {outside.tolist()}')


if __name__ == '__main__':
  app.run(main)
