"""Flags of methods: they agree with the library, and refuse what is vain."""

import pathlib

from absl import flags
import pytest

from flags import algorithm_flags
from launch import experiment
from tff_fedsa import prototypes
from tff_fedsa.algorithms import registry

# BUILD: //flags:presets //tests/testdata
_ROOT = pathlib.Path(__file__).parents[2]
_SMALL = ('--feature_dim=8', '--family=digits_mlp', '--num_clients=4')


@pytest.fixture
def parse(monkeypatch):
  """Returns `parse(*arguments) -> ExperimentFlags`, on flags of its own."""
  monkeypatch.chdir(_ROOT)
  before = set(flags.FLAGS)
  defined = experiment.ExperimentFlags()

  def parse_arguments(*arguments):
    flags.FLAGS(['program', *_SMALL, *arguments])
    return defined

  yield parse_arguments
  flags.FLAGS.unparse_flags()
  for name in set(flags.FLAGS) - before:
    delattr(flags.FLAGS, name)


@pytest.fixture
def built(monkeypatch):
  """What the registry is asked to build."""
  calls = {}

  def build(name, models, **options):
    calls.update(options, name=name)

  monkeypatch.setattr(registry, 'build', build)
  return calls


def test_names_are_those_of_the_registry():
  assert set(algorithm_flags.NAMES) == set(registry.NAMES)


@pytest.mark.parametrize('name', registry.NAMES)
def test_defaults_are_those_of_the_library(parse, built, name):
  _ = parse(f'--algorithm={name}').process
  assert built['name'] == name
  for parameter, default in registry.hyperparameters(name).items():
    if parameter == 'loss_weights':
      assert built[parameter] == type(built[parameter])()
    elif default is not None:  # None stands for what is made then.
      assert built[parameter] == default, parameter
  assert built['local'].batch_size == 10


def test_weightings_are_those_of_the_library(parse):
  parse()
  found = flags.FLAGS['lg_fedavg_weighting'].parser.enum_values
  assert set(found) == set(prototypes.WEIGHTINGS)


def test_flags_reach_the_builder(parse, built):
  _ = parse(
    '--algorithm=fedtgp',
    '--fedtgp_lambda=2',
    '--fedtgp_server_epochs=3',
    '--fedtgp_max_margin=4',
    '--fedtgp_reference_order',
    '--client_learning_rate=0.5',
    '--model_seed=6',
  ).process
  assert built['regularization_weight'] == 2
  assert built['server_epochs'] == 3
  assert built['max_margin'] == 4
  assert built['reference_order'] is True
  # Unless it has a flag of its own, the server's rate is the clients'.
  assert built['server_learning_rate'] == 0.5
  assert built['model_seed'] == 6


def test_the_servers_rate_may_differ(parse, built):
  rate = '--fedtgp_server_learning_rate=0.25'
  _ = parse('--algorithm=fedtgp', rate).process
  assert built['server_learning_rate'] == 0.25


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
    _ = defined.process


def test_runs_are_named_after_the_algorithm(parse):
  defined = parse('--algorithm=fedgh')
  build = defined.run_dir_flags.build
  assert build(defined.algorithm_flags.name) == 'runs/fedgh'
  defined = parse('--algorithm=fedgh', '--experiment_name=mine')
  assert build(defined.algorithm_flags.name) == 'runs/mine'
