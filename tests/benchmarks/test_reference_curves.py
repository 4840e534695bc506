"""Methods learn as the authors' code does, on their partition."""

import numpy as np
import pytest

from tests import programs

reference_curves = programs.load('benchmarks.reference_curves')


# A run takes a minute on two quiet cores. Without anchors, seeds draw initial
# weights only; `python -m benchmarks.reference_curves` takes three for all.
@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize(
  'algorithm, seeds',
  [
    ('fedsa', [0, 1, 2]),
    ('fedproto', [0]),
    ('fedtgp', [0]),
    ('local', [0]),
  ],
)
def test_curve_is_the_reference_within_tolerance(
  in_process_context, tmp_path, algorithm, seeds
):
  runs = reference_curves.train(algorithm, seeds, str(tmp_path))
  reference = reference_curves.reference_accuracy(algorithm)
  difference = np.mean(runs, axis=0) - reference
  allowed = reference_curves.tolerance(algorithm)
  assert allowed[4] == 0.10 and allowed[29] == 0.05 and allowed[30] == 0.02
  if len(seeds) == 1:  # It varies by more than a mean of three.
    allowed[30] = 0.03
  outside = set(np.flatnonzero(np.abs(difference) > allowed))
  # FedTGP's early rounds differ by more from seed to seed, in PyTorch, too, and
  # the authors' run is of one seed: docs/methods.md.
  uncertain = range(2, 13) if algorithm == 'fedtgp' else ()
  assert outside <= set(uncertain), (outside, difference)
