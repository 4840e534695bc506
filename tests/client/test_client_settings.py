"""Settings of single clients: read, looked up, and obeyed."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tests.algorithms import clients
from tff_fedsa import experiment as experiment_lib
from tff_fedsa import settings
from tff_fedsa.algorithms import feddistill
from tff_fedsa.algorithms import fedgen
from tff_fedsa.algorithms import fedpcl
from tff_fedsa.algorithms import fedproto
from tff_fedsa.algorithms import fedprox
from tff_fedsa.algorithms import fedsa
from tff_fedsa.algorithms import local as local_lib
from tff_fedsa.client import client_settings
from tff_fedsa.client import local_optimizer
from tff_fedsa.client import local_training
from tff_fedsa.client import optimizer_config
from tff_fedsa.field import field_config
from tff_fedsa.field import outcomes
from tff_fedsa.runs import directory
from tff_fedsa.runs import running

_HEADER = (
  'client,client_learning_rate,client_epochs_per_round,client_batch_size'
)


def _write(tmp_path, *rows, header=_HEADER):
  path = tmp_path / 'clients.csv'
  path.write_text('\n'.join([header, *rows]) + '\n')
  return str(path)


def test_cells_replace_the_values_of_flags(tmp_path):
  path = _write(tmp_path, '2,0.5,3,', '0,,,7')
  found = client_settings.read(path, num_epochs=2, batch_size=10)
  np.testing.assert_array_equal(
    found.learning_rate, np.float32([np.nan, np.nan, 0.5, np.nan])
  )
  assert found.num_epochs.tolist() == [2, 2, 3, 2]
  assert found.batch_size.tolist() == [7, 10, 10, 10]
  assert found.epochs_multiple == 6
  assert found.epochs_of(5).tolist() == [2, 2, 3, 2, 2]
  assert found.epochs_of(1).tolist() == [2]
  values = [
    int(client_settings.of_client(found.batch_size, tf.constant(i)))
    for i in (0, 1, 99)
  ]
  assert values == [7, 10, 10]


@pytest.mark.parametrize(
  ('rows', 'header', 'match'),
  [
    (['0,1,1,1', '0,1,1,1'], _HEADER, 'line 3: client 0 has a row already'),
    (['5,1,1,1'], _HEADER, 'there is no client 5'),
    (['0,1,0,1'], _HEADER, r'client_epochs_per_round: expected .* >= 1'),
    (['0,-1,1,1'], _HEADER, 'client_learning_rate: expected a number >= 0'),
    (['0,x'], 'client,lambda_reg', 'line 2, lambda_reg: expected a number'),
    (['0'], 'client', 'expected columns of client_optimizer.*, found none'),
    (['0,1,997,1', '1,1,991,1'], _HEADER, 'least common multiple 988027'),
  ],
)
def test_wrong_files_are_refused(tmp_path, rows, header, match):
  path = _write(tmp_path, *rows, header=header)
  with pytest.raises(ValueError, match=match):
    client_settings.read(path, num_epochs=1, batch_size=10, num_clients=3)


def test_they_are_given_in_python_too(tmp_path):
  path = _write(tmp_path, '2,0.5,3,', '0,,,7')
  given = {
    2: {'client_learning_rate': 0.5, 'client_epochs_per_round': np.int64(3)},
    0: {'client_batch_size': 7},
  }
  described = experiment_lib.Experiment(client_settings=given)
  again = experiment_lib.Experiment(
    client_settings=described.flags()['client_settings']
  )
  assert again == described
  assert not described.local.files
  found = described.local.of_clients(3)
  of_file = client_settings.read(path, num_epochs=1, batch_size=10)
  for name in ('learning_rate', 'num_epochs', 'batch_size'):
    np.testing.assert_array_equal(
      getattr(found, name), getattr(of_file, name), err_msg=name
    )


@pytest.mark.parametrize(
  ('given', 'error', 'match'),
  [
    (lambda client: {}, TypeError, r'found a function: call it for each'),
    ([1, 2], TypeError, 'as a dict of dicts'),
    ('{"1": 2}', ValueError, 'expected JSON text such as'),
    ('{"1":', ValueError, 'expected JSON text such as'),
    ({-1: {'client_batch_size': 2}}, ValueError, "'-1': expected an integer"),
    (
      {0: {'client_batch_size': 2.5}},
      ValueError,
      'client 0, client_batch_size',
    ),
  ],
)
def test_what_is_no_settings_is_refused(given, error, match):
  with pytest.raises(error, match=match):
    local_training.LocalTrainingConfig(client_settings=given).of_clients()


def test_a_file_is_read_once(tmp_path, monkeypatch):
  path = _write(tmp_path, '0,,1,')
  config = local_training.LocalTrainingConfig(client_settings=path)
  assert config.of_clients().num_epochs.tolist() == [1, 1]
  with monkeypatch.context() as patched:
    patched.setattr(client_settings.client_table, 'read', None)
    assert config.of_clients(1).num_epochs.tolist() == [1, 1]
  _write(tmp_path, '0,,20,')
  assert config.of_clients().num_epochs.tolist() == [20, 1]


def test_batches_of_one_size_are_needed_elsewhere():
  with pytest.raises(settings.SettingsError, match='remainder=short'):
    local_training.LocalTrainingConfig(
      client_settings='any.csv', remainder='wrap'
    )


@pytest.mark.usefixtures('in_process_context')
def test_clients_train_by_their_own_settings(tmp_path):
  model = clients.tiny_mlp()
  examples = clients.random_examples(3, 23)
  optimizer = local_optimizer.LocalOptimizer(
    tff.learning.optimizers.build_sgdm(0.01),
    learning_rate_fn=lambda round_num: 0.01 / (1.0 + round_num),
  )

  def train(rate=0.01, **local):
    process = local_lib.build_local(
      [model],
      input_spec=clients.SPEC,
      optimizer=optimizer
      if rate == 0.01
      else local_optimizer.LocalOptimizer(
        tff.learning.optimizers.build_sgdm(rate),
        learning_rate_fn=lambda round_num: rate / (1.0 + round_num),
      ),
      local=local_training.LocalTrainingConfig(**local),
    )
    _, states, measured = clients.run(process, [model], examples)
    return [state.weights for state in states], measured['client_work']

  path = _write(tmp_path, '0,,,', '1,0.04,3,4')
  mixed, measured = train(client_settings=path)
  plain, _ = train()
  other, _ = train(0.04, num_epochs=3, batch_size=4)
  np.testing.assert_array_equal(mixed[0], plain[0])
  np.testing.assert_allclose(mixed[1], other[1], rtol=0, atol=1e-7)
  np.testing.assert_array_equal(mixed[2], plain[2])
  assert np.max(np.abs(mixed[1] - plain[1])) > 1e-3
  assert measured['examples'] == 23 + 3 * 23 + 23


def _examples():
  (examples,) = clients.random_examples(1, 23)
  return {name: tf.constant(array) for name, array in examples.items()}


_OPTIMIZERS = optimizer_config.OptimizerConfig(optimizer_state='keep')


def test_clients_have_their_own_optimizers_and_weights_of_the_loss():
  model = clients.tiny_mlp()
  examples = _examples()
  rng = np.random.default_rng(1)
  context = {
    'anchors': tf.constant(rng.normal(size=[10, 16]), tf.float32),
    'margin': tf.constant(1.0),
  }

  def build(own, optimizer='sgd', **weights):
    config = local_training.LocalTrainingConfig(client_settings=own)
    optimizers = dataclasses.replace(_OPTIMIZERS, optimizer=optimizer)
    built = optimizers.build_of_clients(config.of_clients(optimizer=optimizer))
    train = local_training.build_local_training(
      model,
      fedsa.build_objective(10, 16, fedsa.FedSAConfig(**weights)),
      built,
      clients.SPEC,
      config,
    )

    @tf.function(autograph=False)
    def train_twice(weights, vector, client):
      for round_num in range(2):
        result = train(
          weights, vector, examples, context, tf.stack([0, client]), round_num
        )
        weights, vector = result.weights, result.optimizer
      return weights

    first = built.initial_vector(model.trainable_specs)
    return lambda client: train_twice(
      model.initial_weights(0), first, tf.constant(client)
    ).numpy()

  mixed = build(
    {
      0: {'client_optimizer': 'adam'},
      1: {'lambda_reg': 0.5, 'lambda_cc': 0},
    }
  )
  plain = build(None)
  np.testing.assert_allclose(mixed(0), build(None, 'adam')(0), atol=1e-6)
  lambdas = {'lambda_reg': 0.5, 'lambda_cc': 0.0}
  np.testing.assert_allclose(mixed(1), build(None, **lambdas)(1), atol=1e-6)
  np.testing.assert_allclose(mixed(2), plain(2), atol=1e-6)
  for client in range(2):
    assert np.max(np.abs(mixed(client) - plain(client))) > 1e-3


def test_a_proximal_term_of_single_clients():
  objective = fedprox.build_objective(0.1)
  local = local_training.build_local_training(
    clients.tiny_mlp(),
    objective,
    clients.sgd(),
    clients.SPEC,
    local_training.LocalTrainingConfig(
      client_settings={1: {'fedprox_mu': 50.0}}, num_epochs=2
    ),
  )
  model = clients.tiny_mlp()
  examples = _examples()

  weights = model.initial_weights(0)

  @tf.function(autograph=False)
  def drift(client):
    result = local(
      weights, tf.zeros([0]), examples, {}, tf.stack([0, client]), 0
    )
    return tf.norm(result.weights - weights)

  # Batch orders differ little; a strong pull differs much.
  assert drift(tf.constant(1)) < 0.9 * drift(tf.constant(2))


def test_unknown_weights_of_a_loss_are_refused():
  own = local_training.LocalTrainingConfig(
    client_settings={0: {'lambda_reg': 1.0}}
  ).of_clients()
  with pytest.raises(ValueError, match='the method has no lambda_reg'):
    own.weights_of(fedprox.build_objective(0.1).weights)
  own = local_training.LocalTrainingConfig(
    client_settings={0: {'client_optimizer': 'sdg'}}
  ).of_clients()
  with pytest.raises(settings.SettingsError, match="Unknown optimizer 'sdg'"):
    _OPTIMIZERS.build_of_clients(own)


def test_weights_of_losses_are_named_as_their_flags():
  flags = experiment_lib.Experiment.flag_defaults()
  for objective in (
    fedsa.build_objective(3, 4),
    fedproto.build_objective(3, 4, 10.0),
    feddistill.build_objective(3, 1.0),
    fedgen.build_objective(3, 4, fedgen.FedGenConfig(), 5),
    fedpcl.build_objective(3, 4, 2),
    fedprox.build_objective(0.001),
  ):
    assert objective.weights
    for weight in objective.weights:
      assert weight.value == flags[weight.flag]


def test_simulated_time_knows_them(tmp_path):
  path = _write(tmp_path, '1,,4,')
  own = client_settings.read(path, num_epochs=1, batch_size=10)
  field = outcomes.Field(
    field_config.FieldConfig(
      device_speed='lognormal',
      device_speed_median=10.0,
      device_speed_spread=0.0,
    ),
    [20, 20],
    lambda round_num, size, available: list(range(2)),
    num_epochs=own.epochs_of(2),
  )
  assert field.outcome(1).seconds == pytest.approx(8.0)


def test_a_run_resumes_with_the_same_file_only(tmp_path):
  path = _write(tmp_path, '0,,1,')
  run = directory.RunDirectory(str(tmp_path))
  config = local_training.LocalTrainingConfig(client_settings=path)
  running._keep_files(run, config.files, None)
  running._keep_files(run, config.files, None)
  _write(tmp_path, '0,,2,')
  with pytest.raises(
    directory.RunDirectoryError, match='of --client_settings has changed'
  ):
    running._keep_files(run, config.files, None)


def test_a_client_that_does_not_exist_is_found_before_the_run(tmp_path):
  described = experiment_lib.Experiment(
    num_clients=2,
    max_examples=100,
    client_settings=_write(tmp_path, '2,,1,'),
  )
  with pytest.raises(ValueError, match='there is no client 2; 2 clients'):
    _ = described.task
