"""Flags of methods: they agree with the library, and refuse what is vain."""

import pathlib

from absl import flags
import numpy as np
import pytest

from launch import experiment
from tff_fedsa import settings
from tff_fedsa.algorithms import fedkd
from tff_fedsa.algorithms import fedtgp
from tff_fedsa.algorithms import registry
from tff_fedsa.client import local_training
from tff_fedsa.maths import prototypes

_ROOT = pathlib.Path(__file__).parents[2]
_SMALL = ('--feature_dim=8', '--family=digits_mlp', '--num_clients=4')


@pytest.fixture
def parse(define):
  """Returns `parse(*arguments) -> ExperimentFlags`, of a small run."""
  return define(experiment.ExperimentFlags, *_SMALL)


@pytest.fixture
def built(monkeypatch):
  """Arguments that the registry gets."""
  calls = {}

  def build(name, models, config, **options):
    calls.update(options, name=name, config=config)

  monkeypatch.setattr(registry, 'build', build)
  return calls


@pytest.mark.parametrize('name', registry.NAMES)
def test_defaults_are_those_of_the_library(parse, built, name):
  _ = parse(f'--algorithm={name}').build().process
  assert built['name'] == name
  assert built['config'] == registry.get(name).config()
  assert built['class_means'] == prototypes.ClassMeanConfig()
  assert built['local'] == local_training.LocalTrainingConfig()
  assert built['max_participants'] == 4  # All clients take part.


def test_flags_reach_the_builder(parse, built):
  _ = (
    parse(
      '--algorithm=fedtgp',
      '--fedtgp_lambda=2',
      '--fedtgp_server_epochs=3',
      '--fedtgp_max_margin=4',
      '--fedtgp_reference_order',
      '--client_learning_rate=0.5',
      '--model_seed=6',
    )
    .build()
    .process
  )
  assert built['config'] == fedtgp.FedTGPConfig(
    lambda_=2, server_epochs=3, max_margin=4, reference_order=True
  )
  # Unless it has a flag of its own, the server's rate is the clients'.
  assert built['config'].server_learning_rate is None
  assert built['optimizer'].learning_rate == 0.5
  assert built['model_seed'] == 6


def test_weights_are_averaged_in_protocol_global(parse, built):
  defined = parse(
    '--protocol=global', '--test_set=per_domain', '--model_seed=6'
  )
  _ = defined.build().process
  np.testing.assert_array_equal(
    built['averaging'].initial_weights,
    defined.build().models[0].initial_weights(6),
  )


def test_they_are_not_in_protocol_personal(parse, built):
  _ = parse('--algorithm=fedprox', '--fedprox_mu=0.5').build().process
  assert built['averaging'] is None and built['config'].mu == 0.5


@pytest.mark.parametrize(
  'arguments, message',
  [
    (['--protocol=global'], 'needs --test_set=original, or --test_set=per_do'),
    (
      ['--share_weights=model', '--client_init=independent'],
      '--client_init would be ignored: all clients begin with the averaged',
    ),
    (
      ['--algorithm=fedavg', '--share_weights=extractor'],
      '--share_weights would be ignored: FedAvg averages whole models',
    ),
    (['--noshare_statistics'], 'be ignored: --share_weights=none'),
    (['--share_mixing=0.5'], 'be ignored: --share_weights=none'),
    (
      ['--algorithm=fedavg', '--share_mixing=0.5'],
      '--share_mixing would be ignored: FedAvg averages whole models',
    ),
    (
      [
        '--protocol=global',
        '--test_set=per_domain',
        '--share_weights=model',
        '--share_mixing=0.5',
      ],
      'statistics included, and --share_mixing=1',
    ),
    (
      [
        '--protocol=global',
        '--test_set=per_domain',
        '--share_weights=extractor',
      ],
      'protocol=global tests whole averaged models: it needs --share_weights=',
    ),
    (
      ['--algorithm=fedavg', '--client_init=independent'],
      '--client_init would be ignored: all clients begin with the averaged',
    ),
  ],
)
def test_what_does_not_fit_averaging_is_refused(parse, arguments, message):
  defined = parse(*arguments)
  with pytest.raises(flags.IllegalFlagValueError, match=message):
    defined.build()
  with pytest.raises(flags.IllegalFlagValueError, match=message):
    _ = defined.build().task


@pytest.mark.parametrize(
  'arguments, shares_all',
  [
    (['--protocol=global', '--test_set=per_domain'], True),
    (['--algorithm=fedavg'], True),
    (['--share_weights=model'], True),
    (['--share_weights=model', '--noshare_statistics'], False),
    (['--algorithm=lg_fedavg', '--share_weights=extractor'], False),
  ],
)
def test_weights_are_averaged_within_architectures(
  parse, arguments, shares_all
):
  made = parse(*arguments, '--family=digits_mlp,digits_cnn_bn').build()
  tiers = made.process.tiers
  assert tiers.names == ('digits_mlp', 'digits_cnn_bn')
  sizes = [model.num_weights for model in made.models]
  assert (list(tiers.sizes) == sizes) == shares_all


def test_fedpcl_is_built_for_the_clients_of_a_round(parse, built):
  _ = parse('--algorithm=fedpcl', '--clients_per_round=3').build().process
  assert built['max_participants'] == 3


def test_flags_of_shared_models_reach_the_builder(parse, built):
  _ = (
    parse(
      '--algorithm=fedkd',
      '--fedkd_shared_model=digits_cnn',
      '--fedkd_shared_learning_rate=0.5',
      '--fedkd_energy_start=0.25',
      '--fedkd_energy_end=0.75',
      '--fedkd_energy_rounds=7',
      '--fedkd_clip_norm=0',
      '--fedkd_weighting=clients',
      '--fedkd_reference_compression',
      '--model_seed=6',
    )
    .build()
    .process
  )
  expected = {
    'shared_model': 'digits_cnn',
    'shared_learning_rate': 0.5,
    'energy_start': 0.25,
    'energy_end': 0.75,
    'energy_rounds': 7,
    'clip_norm': 0.0,
    'weighting': 'clients',
    'reference_losses': False,
    'reference_compression': True,
  }
  assert built['config'] == fedkd.FedKDConfig(**expected)
  assert built['model_seed'] == 6


def test_the_servers_rate_may_differ(parse, built):
  rate = '--fedtgp_server_learning_rate=0.25'
  _ = parse('--algorithm=fedtgp', rate).build().process
  assert built['config'].server_learning_rate == 0.25


@pytest.mark.parametrize(
  'arguments, message',
  [
    (['--algorithm=fedproto', '--lambda_reg=1'], '--lambda_reg'),
    (['--algorithm=fedproto', '--anchor_seed=1'], '--anchor_seed'),
    (['--fedproto_lambda=1'], '--fedproto_lambda'),
    (['--algorithm=fedgh', '--fedtgp_server_epochs=1'], '--fedtgp_server'),
    (['--algorithm=local', '--nokeep_missing'], '--keep_missing'),
    (['--algorithm=fedtgp', '--prototypes=final'], '--prototypes'),
    (
      ['--algorithm=lg_fedavg', '--prototype_weighting=examples'],
      '--prototype_weighting',
    ),
  ],
)
def test_flags_of_other_methods_are_refused(parse, arguments, message):
  defined = parse(*arguments)
  because = f'{message}.* would be ignored: --algorithm='
  with pytest.raises(flags.IllegalFlagValueError, match=because):
    _ = defined.build().process


def test_anchors_come_from_a_file(parse, built, tmp_path):
  path = tmp_path / 'anchors.npy'
  np.save(path, np.eye(10, 8, dtype=np.float32))
  _ = parse(f'--anchor_file={path}').build().process
  found = built['config'].initial_anchors(10, 8)
  np.testing.assert_array_equal(found, np.eye(10, 8))


def test_a_wrong_anchor_file_is_named(parse, tmp_path):
  path = tmp_path / 'anchors.npy'
  with pytest.raises(FileNotFoundError, match='no anchor_file=.*anchors.npy'):
    _ = parse(f'--anchor_file={path}').build().process
  path.write_text('not numbers')
  with pytest.raises(
    settings.SettingsError, match='anchor_file=.* is not a .npy file'
  ):
    _ = parse(f'--anchor_file={path}').build().process


def test_runs_are_named_after_the_algorithm(parse):
  defined = parse('--algorithm=fedgh')
  assert defined.build().run_directory.path == 'runs/fedgh'
  defined = parse('--algorithm=fedgh', '--experiment_name=mine')
  assert defined.build().run_directory.path == 'runs/mine'
