"""TFF's own processes and aggregators: in process as in the stock runtime.

The quick cases; `tests/benchmarks/test_tff_processes.py` runs all, slowly.
"""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from benchmarks import tff_cases
from tests import programs

tff_processes = programs.load('benchmarks.tff_processes')

_CASES = tff_cases.cases()


@pytest.mark.parametrize(
  'name',
  [
    'build_weighted_fed_prox, functional',
    'build_fed_kmeans',
    'MeanFactory',
    'zeroing_factory, adaptive',
    'clipping_factory, adaptive',
    'gaussian_adaptive, no noise',
    'EncodedSumFactory',
  ],
)
def test_same_result(name, runtimes):
  results, run = [], _CASES[name].build()
  for runtime in ('native', 'in_process'):
    with runtimes.default(runtime):
      leaves = tf.nest.flatten(run())
      results.append([np.asarray(leaf) for leaf in leaves])
  assert tff_processes.is_right(_CASES[name], *results)


def test_dp_noise_is_drawn_anew_in_each_round(in_process_context):
  factory = tff.aggregators.DifferentiallyPrivateFactory.gaussian_fixed(
    noise_multiplier=1.0, clients_per_round=2, clip=1.0
  )
  process = factory.create(tff.TensorType(np.float32, [1000]))
  values = [np.zeros(1000, np.float32)] * 2
  state = process.initialize()
  first = process.next(state, values).result
  second = process.next(state, values).result
  assert np.std(first) == pytest.approx(0.5, rel=0.2)
  assert not np.array_equal(first, second)
