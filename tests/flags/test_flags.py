"""Flags: they teach, they agree with the library, and refuse what is vain."""

import functools
import pathlib

from absl import flags
import numpy as np
import pytest

from flags import generator
from launch import experiment
from tff_fedsa import experiment as experiment_lib
from tff_fedsa import settings
from tff_fedsa.client import local_optimizer
from tff_fedsa.data import datasets
from tff_fedsa.data import partition
from tff_fedsa.models import architectures
from tff_fedsa.models import families

_ROOT = pathlib.Path(__file__).parents[2]
_PRESETS = sorted(path.name for path in (_ROOT / 'flags').glob('*.flags'))


@pytest.fixture
def parse(define):
  """Returns `parse(*arguments) -> ExperimentFlags`."""
  return define(experiment.ExperimentFlags)


def _flag(name):
  return flags.FLAGS[name]


def test_help_names_everything_known(parse):
  parse()
  for name, known in (
    ('dataset', datasets.NAMES),
    ('partition', partition.NAMES),
    ('family', families.names() + architectures.names()),
  ):
    missing = [k for k in known if k not in _flag(name).help]
    # Architectures that tests and documents register are not ours.
    if name == 'family':
      missing = [k for k in missing if k in families.names() or _is_ours(k)]
    assert not missing, f'--{name}'


def _is_ours(architecture):
  build_fn = architectures._ARCHITECTURES[architecture]
  return build_fn.__module__.startswith('tff_fedsa')


@pytest.mark.parametrize('cls', experiment_lib.setting_classes())
def test_defaults_and_bounds_are_those_of_the_library(define, cls):
  parse = define(functools.partial(generator.SettingsFlags, cls))
  group = parse()
  assert group.build() == cls()
  assert group.given() == []
  for setting in settings.fields_of(cls):
    if setting.lower is not None and setting.flag is not None:
      with pytest.raises(flags.IllegalFlagValueError, match=setting.flag):
        parse(f'--{setting.flag}={setting.lower - 1:g}')
    if setting.type is float:
      with pytest.raises(flags.IllegalFlagValueError, match=setting.flag):
        parse(f'--{setting.flag}=nan')


def test_images_are_cached_where_caches_are(parse, monkeypatch, tmp_path):
  def cache_dir(*arguments):
    flags.FLAGS.unparse_flags()
    defined = parse('--dataset=cifar10', *arguments)
    return defined.task_spec().cache_directory()

  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  assert cache_dir() == str(tmp_path / 'tff_fedsa')
  monkeypatch.delenv('XDG_CACHE_HOME')
  monkeypatch.setenv('HOME', str(tmp_path))
  assert cache_dir() == str(tmp_path / '.cache' / 'tff_fedsa')
  assert cache_dir('--data_cache_dir=here') == 'here'
  assert cache_dir('--data_cache_dir=none') is None


@pytest.mark.parametrize('preset', _PRESETS)
def test_presets_parse_and_hold_only_differences(parse, preset):
  lines = (_ROOT / 'flags' / preset).read_text().splitlines()
  included = [line for line in lines if line.startswith('--flagfile=')]
  parse(*included)
  before = {name: flags.FLAGS[name].value for name in flags.FLAGS}
  flags.FLAGS.unparse_flags()
  defined = parse(f'--flagfile=flags/{preset}')
  for line in lines:
    if line.startswith('--') and line not in included:
      name = line[2:].partition('=')[0]
      if name not in before:
        assert name.startswith('no')
        name = name[2:]
      assert flags.FLAGS[name].value != before[name], line
  assert _flag('experiment_name').value == preset.removesuffix('.flags')
  defined.build()


def test_reference_preset_is_the_reference_in_every_choice(parse):
  parse('--flagfile=flags/fedsa.reference.flags')
  expected = {
    'remainder': 'drop',
    'shuffle': False,
    'prototypes': 'running',
    'prototype_weighting': 'clients',
    'keep_missing': False,
    'client_init': 'shared',
    'client_optimizer': 'sgd',
    'client_optimizer_state': 'reset',
    'client_learning_rate': 0.01,
    'client_batch_size': 10,
    'client_epochs_per_round': 1,
    'feature_dim': 512,
    'lambda_reg': 10.0,
    'lambda_mcl': 1.0,
    'lambda_cc': 1.0,
    'anchor_decay': 0.9999,
    'anchor_init': 'random_projection',
    'test_set': 'split',
    'train_fraction': 0.75,
  }
  assert {name: _flag(name).value for name in expected} == expected


@pytest.mark.parametrize(
  'arguments, message',
  [
    (['--client_momentum=0.5'], '--client_momentum would be ignored'),
    (['--client_optimizer=adam', '--client_decay=0.5'], '--client_decay'),
    (
      ['--client_learning_rate_schedule=step'],
      'needs --client_learning_rate_schedule_rounds',
    ),
    (
      [
        '--client_learning_rate_schedule=cosine',
        '--client_learning_rate_schedule_rounds=5',
        '--client_learning_rate_decay_factor=0.5',
      ],
      'cosine falls to 0',
    ),
  ],
)
def test_vain_optimizer_flags_are_refused(parse, arguments, message):
  defined = parse(*arguments)
  with pytest.raises(flags.IllegalFlagValueError, match=message):
    defined.build()


@pytest.mark.parametrize(
  'arguments, message',
  [
    (['--partition=iid', '--alpha=0.5'], '--alpha would be ignored'),
    (['--classes_per_client=3'], '--classes_per_client would be ignored'),
    (['--partition=nid1', '--least_samples=3'], '--least_samples would be'),
    (['--clients_per_domain=a:3'], '--clients_per_domain would be ignored'),
    (['--domain_fraction=0.2'], '--domain_fraction would be ignored'),
    (
      ['--partition=domain', '--clients_per_domain=a:3', '--num_clients=4'],
      '--num_clients would be ignored',
    ),
    (
      ['--partition=domain', '--clients_per_domain=a'],
      "expected domain:clients, separated by commas, found 'a'",
    ),
    (['--max_test_examples=9'], '--max_test_examples would be ignored'),
    (['--data_dir=somewhere'], '--data_dir would be ignored: digits come'),
    (
      ['--dataset=npz', '--data_cache_dir=x'],
      '--data_cache_dir would be ignored',
    ),
    (
      ['--dataset=ham10000', '--download'],
      '--download would be ignored: neither TFDS nor TFF',
    ),
    (
      ['--dataset=tff_emnist', '--alpha=0.5', '--max_examples=9'],
      '--alpha, --max_examples would be ignored: .* has clients of its own',
    ),
    (
      ['--partition_file=x.npz', '--num_clients=5', '--partition_seed=3'],
      '--num_clients, --partition_seed would be ignored',
    ),
    (
      ['--test_set=per_domain', '--train_fraction=0.5'],
      '--train_fraction would be ignored',
    ),
  ],
)
def test_vain_task_flags_are_refused(parse, arguments, message):
  defined = parse(*arguments)
  with pytest.raises(flags.IllegalFlagValueError, match=message):
    defined.task_spec()


@pytest.mark.parametrize(
  'argument',
  [
    '--num_clients=0',
    '--alpha=0',
    '--train_fraction=1',
    '--lambda_reg=-1',
    '--anchor_decay=1.5',
    '--client_learning_rate=-0.1',
    '--remainder=cut',
    '--total_rounds=0',
  ],
)
def test_values_out_of_range_are_refused(parse, argument):
  with pytest.raises(
    flags.IllegalFlagValueError, match=argument[2:].split('=')[0]
  ):
    parse(argument)


@pytest.mark.parametrize('name', ['a/b', '..'])
def test_names_that_are_no_directories_are_refused(parse, name):
  with pytest.raises(flags.IllegalFlagValueError, match='--experiment_name'):
    parse(f'--experiment_name={name}').build()


@pytest.mark.parametrize(
  'name', ['sgd', 'momentum', 'adagrad', 'rmsprop', 'adam', 'adamw', 'yogi']
)
def test_every_optimizer_is_built(parse, name):
  optimizer = parse(f'--client_optimizer={name}').build().optimizer_config
  assert isinstance(optimizer.build(), local_optimizer.LocalOptimizer)


@pytest.mark.parametrize(
  'kind, expected',
  [
    ('step', [1.0, 1.0, 0.5, 0.25]),
    ('exponential', [1.0, 0.5**0.5, 0.5, 0.25]),
    ('cosine', [1.0, 0.5, 0.0, 0.0]),
  ],
)
def test_schedules_by_hand(parse, kind, expected):
  arguments = [
    '--client_learning_rate=1',
    f'--client_learning_rate_schedule={kind}',
    '--client_learning_rate_schedule_rounds=2',
  ]
  if kind != 'cosine':
    arguments.append('--client_learning_rate_decay_factor=0.5')
  learning_rate_fn = parse(*arguments).build().optimizer_config.learning_rate_at
  found = [float(learning_rate_fn(np.float32(r))) for r in (0, 1, 2, 4)]
  np.testing.assert_allclose(found, expected, atol=1e-6)


_OWN_ARCHITECTURE = """
import tensorflow as tf
from tff_fedsa.models import architectures, functional, initializers

@architectures.register_architecture('test_own')
def own(input_shape, num_classes, feature_dim):
  images = tf.keras.Input(input_shape)
  features = tf.keras.layers.Dense(feature_dim)(
    tf.keras.layers.Flatten()(images)
  )
  return functional.KerasClientModel(
    feature_extractor=tf.keras.Model(images, features),
    head=initializers.linear_head(feature_dim, num_classes),
  )
"""


def test_own_architectures_are_imported(parse, tmp_path, monkeypatch):
  (tmp_path / 'own_architectures.py').write_text(_OWN_ARCHITECTURE)
  monkeypatch.syspath_prepend(tmp_path)
  defined = parse(
    '--architecture_modules=own_architectures',
    '--family=test_own,digits_mlp',
    '--feature_dim=4',
  )
  assert [model.name for model in defined.build().models] == [
    'test_own',
    'digits_mlp',
  ]
  defined = parse('--architecture_modules=not_there')
  with pytest.raises(
    flags.IllegalFlagValueError, match="no module 'not_there'"
  ):
    defined.build()
