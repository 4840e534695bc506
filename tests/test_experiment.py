"""`Experiment`: a frozen description, checked like flags."""

import pathlib

import numpy as np
import pytest

from tff_fedsa import experiment as experiment_lib
from tff_fedsa import settings
from tff_fedsa.algorithms import fedsa
from tff_fedsa.data import task_spec
from tff_fedsa.runs import directory
from tff_fedsa.runs import presets

_Experiment = experiment_lib.Experiment
_ROOT = pathlib.Path(__file__).parents[1]


def test_settings_have_the_names_of_their_flags():
  made = _Experiment(
    task_spec.TaskSpec(num_clients=7, alpha=0.5),
    config=fedsa.FedSAConfig(anchor_decay=0.5),
    feature_dim=64,
    client_learning_rate=0.05,
    partition_seed=3,
    lambda_reg=2,
  )
  assert made.task_spec == task_spec.TaskSpec(num_clients=7, alpha=0.5, seed=3)
  assert made.config == fedsa.FedSAConfig(anchor_decay=0.5, lambda_reg=2)
  assert made.optimizer_config.learning_rate == 0.05
  flags = made.flags()
  assert flags['alpha'] == 0.5 and flags['partition_seed'] == 3
  # Written alike, however they were given.
  assert directory.text(flags['lambda_reg']) == '2.0'
  assert set(flags) == set(made.flag_defaults())
  assert _Experiment.from_flags(flags) == made


@pytest.mark.parametrize('name', presets.names())
def test_every_preset_is_an_experiment(name):
  made = _Experiment.from_preset(name)
  made.check()
  assert _Experiment.from_flags(made.flags()) == made


def test_a_preset_with_changes(tmp_path):
  made = _Experiment.from_preset('fedsa.digits', alpha=0.5)
  assert made == _Experiment.from_preset('fedsa.digits').replace(alpha=0.5)
  path = tmp_path / 'mine.flags'
  path.write_text(
    '--flagfile=fedsa.digits\n--alpha=0.5\n--nokeep_missing\n--augment_flip\n'
  )
  assert _Experiment.from_preset(str(path)) == made.replace(
    keep_missing=False, augment_flip=True
  )
  path.write_text('--alhpa=0.5\n')
  with pytest.raises(settings.SettingsError, match="did you mean 'alpha'"):
    _Experiment.from_preset(str(path))


def test_replace_keeps_the_rest_and_other_methods_begin_anew():
  made = _Experiment(alpha=0.5, lambda_reg=2.0, total_rounds=7)
  assert made.replace(alpha=1.0).config.lambda_reg == 2.0
  local = made.replace(algorithm='local', total_rounds=8)
  assert local == _Experiment(algorithm='local', alpha=0.5, total_rounds=8)
  assert made.replace(task=task_spec.TaskSpec(alpha=3.0)).task_spec.alpha == 3.0
  # A value can go back to its default.
  assert made.replace(lambda_reg=10.0) == _Experiment(alpha=0.5, total_rounds=7)


def test_it_is_frozen_hashable_and_says_what_it_is():
  made = _Experiment(alpha=0.5, algorithm='fedproto')
  with pytest.raises(AttributeError, match=r'replace\(algorithm=…\)'):
    made.algorithm = 'local'
  assert repr(made) == "Experiment(algorithm='fedproto', alpha=0.5)"
  assert eval(repr(made), {'Experiment': _Experiment}) == made
  assert len({made, made.replace(), made.replace(alpha=0.25)}) == 2
  assert made != 'fedproto'


@pytest.mark.parametrize(
  'given, message',
  [
    ({'alhpa': 1.0}, "no setting 'alhpa' (did you mean 'alpha'?)"),
    ({'algorithm': 'fedsb'}, "did you mean 'fedsa'?"),
    ({'alpha': -1.0}, 'alpha > 0, found -1.0'),
    (
      {'algorithm': 'local', 'lambda_reg': 3.0},
      'lambda_reg would be ignored: algorithm=local',
    ),
    (
      {'algorithm': 'local', 'prototypes': 'final'},
      'prototypes would be ignored: algorithm=local',
    ),
    (
      {'client_momentum': 0.5},
      'client_momentum would be ignored: client_optimizer=sgd',
    ),
    ({'partition': 'iid', 'alpha': 0.5}, 'alpha would be ignored'),
    ({'protocol': 'global'}, 'test_set=original'),
    (
      {'algorithm': 'fedavg', 'client_init': 'independent'},
      'client_init would be ignored: all clients begin with the averaged',
    ),
    ({'models': [object()], 'feature_dim': 3}, 'feature_dim would be ignored'),
    ({'task': [object()], 'alpha': 3.0}, 'alpha would be ignored: the task'),
    ({'experiment_name': 'a/b'}, 'without a separator'),
    ({'experiment_name': '..'}, 'without a separator'),
    ({'config': task_spec.TaskSpec()}, 'to be a FedSAConfig'),
  ],
)
def test_what_flags_refuse_is_refused(given, message):
  with pytest.raises(settings.SettingsError) as error:
    _Experiment(**given)
  assert message in str(error.value)


def test_a_setting_that_equals_its_default_says_nothing():
  _Experiment(algorithm='local', lambda_reg=10.0, client_momentum=None)


def test_names_of_runs():
  made = _Experiment(algorithm='fedgh')
  assert made.run_directory.path == 'runs/fedgh'
  named = made.replace(experiment_name='mine', root_output_dir='there')
  assert named.run_directory.path == 'there/mine'
  by_kind = named.replace(directory_layout='by_kind').run_directory
  assert by_kind.path == 'there/results/mine'
  assert by_kind.checkpoints.endswith('there/checkpoints/mine')


def test_parts_are_built_once_and_fit():
  made = _Experiment(
    algorithm='fedproto', num_clients=3, feature_dim=8, family='digits_mlp'
  )
  assert made.process is made.process
  assert made.task.num_clients == 3
  assert [model.name for model in made.models] == ['digits_mlp']
  state = made.initial_state_fn(1)
  np.testing.assert_array_equal(
    state.weights, made.models[0].initial_weights(0)
  )
  assert made.averages_weights is False
  assert made.replace(algorithm='fedavg').averages_weights is True


def test_what_is_averaged_and_what_is_tested():
  made = _Experiment(algorithm='fedproto')
  for changes, weights, models, tests in (
    ({}, False, False, False),
    ({'share_weights': 'extractor'}, True, False, False),
    ({'share_weights': 'model'}, True, True, False),
    ({'share_weights': 'model', 'share_mixing': 0.5}, True, True, False),
    ({'share_weights': 'model', 'share_statistics': False}, True, False, False),
    ({'algorithm': 'fedavg'}, True, True, True),
    ({'protocol': 'global', 'test_set': 'per_domain'}, True, True, True),
  ):
    found = made.replace(**changes)
    assert found.averages_weights == weights
    assert found.averages_models == models
    assert found.tests_averaged == tests


@pytest.mark.slow
def test_a_client_that_is_alone_with_its_architecture(shared_computations):
  experiment = _Experiment(
    num_clients=4,
    max_examples=200,
    feature_dim=8,
    family='digits_mlp*3,digits_cnn',
    algorithm='local',
    share_weights='model',
    total_rounds=1,
    progress=False,
  )
  names = [experiment.architecture_of(i) for i in range(4)]
  assert names == ['digits_mlp'] * 3 + ['digits_cnn']
  result = experiment.run()
  states = [result.store.get(i) for i in range(4)]
  assert [state.architecture for state in states] == [0, 0, 0, 1]
  means = np.split(result.server_state.model.weights, [len(states[0].weights)])
  # The mean of one client, w * n / n, is rounded.
  np.testing.assert_allclose(means[1], states[3].weights, rtol=1e-6)
  assert not np.allclose(means[0], states[0].weights, rtol=1e-3)


def test_local_training_with_shared_models_is_fedavg(shared_computations):
  made = _Experiment(
    num_clients=4,
    clients_per_round=2,
    max_examples=200,
    feature_dim=8,
    family='digits_mlp,digits_cnn',
    total_rounds=3,
    progress=False,
  )
  tiers, fedavg = (
    made.replace(**changes).run().server_state.model.weights
    for changes in (
      {'algorithm': 'local', 'share_weights': 'model'},
      {'algorithm': 'fedavg'},
    )
  )
  np.testing.assert_array_equal(tiers, fedavg)


def test_flags_of_methods_reach_them():
  made = _Experiment.from_flags(
    {
      'algorithm': 'fedtgp',
      'fedtgp_lambda': 2.0,
      'client_learning_rate': 0.5,
    }
  )
  assert made.flags()['fedtgp_lambda'] == 2.0
  assert 'lambda_reg' in made.ignored_flags()
  assert 'fedtgp_lambda' not in made.ignored_flags()
  assert 'anchor_seed' in made.ignored_flags()
