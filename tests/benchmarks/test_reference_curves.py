"""Methods learn as the authors' code does, on their partition."""

import numpy as np
import pytest

from tests import programs

reference_curves = programs.load('benchmarks.reference_curves')


# A run takes a minute on two quiet cores. Without anchors, seeds draw initial
# weights only, and clients alone have learned most after 15 rounds.
# `python -m benchmarks.reference_curves` takes three seeds and 30 rounds.
@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize(
  'algorithm, seeds, rounds',
  [
    ('fedsa', [0, 1, 2], 30),
    ('fedproto', [0], 30),
    ('fedtgp', [0], 30),
    ('local', [0], 15),
  ],
)
def test_curve_is_the_reference_within_tolerance(
  in_process_context, tmp_path, algorithm, seeds, rounds
):
  runs = reference_curves.train(algorithm, seeds, str(tmp_path), rounds)
  reference = reference_curves.reference_accuracy(algorithm)[: rounds + 1]
  difference = np.mean(runs, axis=0) - reference
  allowed = reference_curves.tolerance(algorithm)
  assert allowed[4] == 0.10 and allowed[29] == 0.05 and allowed[30] == 0.02
  if len(seeds) == 1:  # It varies by more than a mean of three.
    allowed[rounds] = 0.03
  outside = set(np.flatnonzero(np.abs(difference) > allowed[: rounds + 1]))
  # FedTGP's early rounds differ by more from seed to seed, in PyTorch, too, and
  # the authors' run is of one seed: docs/methods.md.
  uncertain = range(2, 13) if algorithm == 'fedtgp' else ()
  assert outside <= set(uncertain), (outside, difference)
