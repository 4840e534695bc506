"""Seeds that share computations give the numbers of separate runs."""

import pytest

from tests import programs
from tff_fedsa import experiment
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
    (
      *('model_seed', 'sampling_seed', 'anchor_seed', 'partition_seed'),
      *(['dp_seed'] if 'dp' in variant else []),
    ),
  )


def _seed_flags(sweep, variant):
  ignored = experiment.Experiment(**_FLAGS, **variant).ignored_flags()
  return set(sweep.seed_flags) - set(ignored)


@pytest.mark.slow
@pytest.mark.parametrize(
  'variant',
  [
    {'share_weights': 'extractor'},
    # The first server model depends on the seed.
    {'algorithm': 'fedgh'},
    # The computation of the noise holds the seed.
    {'dp': 'central', 'dp_noise_multiplier': 0.01},
  ],
  ids=lambda variant: next(iter(variant.values())),
)
def test_numbers_are_those_of_a_run_of_its_own(variant, tmp_path, capsys):
  sweep = _sweep(**variant)
  seeds_in_one_process.run_variant(sweep, 'one', str(tmp_path))
  alone = experiment.Experiment(
    **_FLAGS,
    **variant,
    **dict.fromkeys(_seed_flags(sweep, variant), 1),
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


def test_the_runtime_starts_before_data_are_read(tmp_path, monkeypatch):
  """TFDS reads with TensorFlow, whose threads can't be limited afterwards."""

  def ended(self):
    raise InterruptedError

  monkeypatch.setattr(experiment.Experiment, 'start_runtime', ended)
  monkeypatch.setattr(experiment.Experiment, 'task', None)
  with pytest.raises(InterruptedError):
    seeds_in_one_process.run_variant(_sweep(), 'one', str(tmp_path))
