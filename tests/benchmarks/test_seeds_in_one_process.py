"""Seeds that share computations give the numbers of separate runs."""

import pytest

from tests import programs
from tff_fedsa import experiment
from tff_fedsa.runs import errors
from tff_fedsa.runs import metrics
from tff_fedsa.runs import recorders
from tff_fedsa.sweeps import sweep_file

seeds_in_one_process = programs.load('benchmarks.seeds_in_one_process')

_FLAGS = {
  'family': 'digits_mlp,digits_cnn',
  'num_clients': 3,
  'max_examples': 300,
  'alpha': 1.0,
  'feature_dim': 8,
  'total_rounds': 2,
  'validation_fraction': 0.2,
}


def _sweep(**variant):
  return sweep_file.Sweep(
    'sweep',
    _FLAGS,
    {'one': variant},
    (0, 1),
    ('model_seed', 'sampling_seed', 'anchor_seed', 'partition_seed'),
  )


@pytest.mark.slow
def test_numbers_are_those_of_a_run_of_its_own(tmp_path, capsys):
  sweep = _sweep(share_weights='extractor')
  seeds_in_one_process.run_variant(sweep, 'one', str(tmp_path))
  alone = experiment.Experiment(
    **_FLAGS,
    share_weights='extractor',
    **dict.fromkeys(sweep.seed_flags, 1),
  ).run(progress=False)
  found = recorders.read_csv(str(tmp_path / 'one/seed_1/metrics.csv'))
  assert len(found) == len(alone.rows) == 3
  for row, expected in zip(found, alone.rows):
    for name in set(expected) - {*metrics.VOLATILE_COLUMNS}:
      assert row[name] == pytest.approx(expected[name], rel=1e-5), name
  assert (
    found[0]['head_accuracy']
    != recorders.read_csv(str(tmp_path / 'one/seed_0/metrics.csv'))[0][
      'head_accuracy'
    ]
  )
  # What is finished is not run again.
  capsys.readouterr()
  seeds_in_one_process.run_variant(sweep, 'one', str(tmp_path))
  assert capsys.readouterr().out == ''


@pytest.mark.slow
def test_other_first_models_are_refused(tmp_path):
  with pytest.raises(errors.UserError, match='first server model of fedgh has'):
    seeds_in_one_process.run_variant(
      _sweep(algorithm='fedgh'), 'one', str(tmp_path)
    )
