"""Clients that are trained together have the numbers of clients alone."""

import collections

import numpy as np
import pytest
import tensorflow as tf

from tests.algorithms import clients
from tff_fedsa import experiment
from tff_fedsa import settings
from tff_fedsa.algorithms import registry
from tff_fedsa.client import joint_training
from tff_fedsa.client import local_training
from tff_fedsa.client import objective
from tff_fedsa.client import optimizer_config
from tff_fedsa.data import tasks
from tff_fedsa.execution.in_process import joint_functions
from tff_fedsa.models import families
from tff_fedsa.runs import errors

# None at all, less than a batch, full batches, and with a rest.
_SIZES = (25, 3, 0, 10)


@pytest.fixture(scope='module')
def model():
  return clients.tiny_mlp()


def _both(model, config, optimizer=None, **options):
  """Returns results of one client after the other, and of all together."""
  loss = objective.cross_entropy_objective()._replace(**options)
  parts = loss, optimizer or clients.sgd(0.3), clients.SPEC, config
  rng = np.random.default_rng(0)
  examples = [
    {
      'x': rng.standard_normal([size, 8, 8, 1]).astype(np.float32),
      'y': rng.integers(0, 10, size).astype(np.int32),
    }
    for size in _SIZES
  ]
  weights = np.stack([model.initial_weights(i) for i in range(len(_SIZES))])
  vectors = np.stack(
    [parts[1].initial_vector(model.trainable_specs)] * len(_SIZES)
  )
  seeds = np.array([[5, client] for client in range(len(_SIZES))], np.int32)
  alone = tf.function(
    local_training.build_local_training(model, *parts),
    autograph=False,
    reduce_retracing=True,
  )
  results = [
    alone(
      tf.constant(w),
      tf.constant(v),
      {name: tf.constant(rows) for name, rows in one.items()},
      {},
      tf.constant(seed),
      tf.constant(1),
    )
    for w, v, one, seed in zip(weights, vectors, examples, seeds)
  ]
  together = tf.function(
    joint_training.build_joint_training(model, *parts), autograph=False
  )(
    tf.constant(weights),
    tf.constant(vectors),
    {name: tf.concat([one[name] for one in examples], axis=0) for name in 'xy'},
    {},
    tf.constant(seeds),
    tf.fill([len(_SIZES)], 1),
    tf.constant(_SIZES),
  )
  return results, together


def _assert_equal(alone, together):
  for client, expected in enumerate(alone):
    clients.assert_close(joint_training.at(together, client), expected, 1e-5)


def test_clients_of_different_sizes(model):
  alone, together = _both(
    model,
    local_training.LocalTrainingConfig(
      batch_size=5, remainder='drop', batch_clients=4
    ),
  )
  _assert_equal(alone, together)
  # Who has no batch stays as it was; the others do not.
  moved = together.weights - np.stack(
    [model.initial_weights(i) for i in range(len(_SIZES))]
  )
  assert [bool(tf.reduce_any(row != 0)) for row in moved] == [1, 0, 0, 1]
  assert together.num_examples.numpy().tolist() == [25, 0, 0, 10]


@pytest.mark.slow
def test_short_batches_and_own_settings(model):
  own = {
    0: {'client_learning_rate': 0.01},
    1: {'client_epochs_per_round': 3, 'client_optimizer': 'adam'},
    3: {'fedprox_mu': 0.5, 'client_optimizer': 'adam'},
  }
  config = local_training.LocalTrainingConfig(
    batch_size=4,
    num_epochs=2,
    class_weights='balanced',
    client_settings=own,
    batch_clients=4,
  )
  weight = objective.LossWeight('fedprox_mu', 0.1)
  alone, together = _both(
    model,
    config,
    optimizer_config.OptimizerConfig(
      learning_rate=0.02, optimizer_state='keep'
    ).build_of_clients(config.of_clients()),
    proximal_weight=weight,
    weights=(weight,),
    loss_names=('loss', 'cross_entropy', 'proximal'),
  )
  _assert_equal(alone, together)
  assert together.num_examples.numpy().tolist() == [50, 9, 0, 20]


@pytest.mark.slow
@pytest.mark.parametrize('remainder', local_training.REMAINDERS)
@pytest.mark.parametrize('prototypes', local_training.PROTOTYPE_KINDS)
def test_remainders_and_prototypes(model, remainder, prototypes):
  config = local_training.LocalTrainingConfig(
    batch_size=4,
    num_epochs=2,
    remainder=remainder,
    prototypes=prototypes,
    batch_clients=4,
  )
  _assert_equal(
    *_both(
      model,
      config,
      averages_logits=True,
      proximal_weight=0.1,
      loss_names=('loss', 'cross_entropy', 'proximal'),
    )
  )


def test_own_batch_sizes_are_refused(model, tmp_path):
  path = tmp_path / 'clients.csv'
  path.write_text('client,client_batch_size\n0,5\n')
  with pytest.raises(errors.UserError, match='have one batch size'):
    joint_training.build_joint_training(
      model,
      objective.cross_entropy_objective(),
      clients.sgd(),
      clients.SPEC,
      local_training.LocalTrainingConfig(
        client_settings=str(path), batch_clients=2
      ),
    )


def test_only_the_runtime_in_process_trains_clients_together():
  with pytest.raises(settings.SettingsError, match='batch_clients would be'):
    experiment.Experiment(batch_clients=2, runtime='native')
  with pytest.raises(settings.SettingsError, match='batch_clients'):
    experiment.Experiment(batch_clients=1)


def _digits(num_clients):
  return tasks.load_task(
    tasks.TaskSpec(
      dataset='digits', num_clients=num_clients, max_examples=60 * num_clients
    )
  )


def _assert_rounds_equal(algorithm, family, task, rounds=2, **local):
  models = families.build_family(
    family, task.input_spec.model_shape, task.num_classes, 16
  )
  runs = [
    clients.run(
      registry.build(
        algorithm,
        models,
        input_spec=task.input_spec,
        local=local_training.LocalTrainingConfig(batch_clients=count, **local),
      ),
      models,
      [client.train for client in task.clients],
      rounds,
    )
    for count in (None, 3)
  ]
  (server, alone, metrics), (joint_server, together, joint_metrics) = runs
  clients.assert_close(together, alone, 1e-5)
  # A server that trains goes its own way from the last digits.
  tolerance = 1e-2 if algorithm == 'fedgen' else 1e-5
  clients.assert_close(
    (joint_server, joint_metrics), (server, metrics), tolerance
  )


@pytest.mark.slow
@pytest.mark.parametrize(
  ('algorithm', 'family', 'local'),
  [
    ('fedsa', 'digits3', {}),
    ('fedproto', 'digits_cnn_bn', {'remainder': 'wrap', 'num_epochs': 2}),
    ('fedavg', 'digits_cnn', {'remainder': 'drop', 'shuffle': False}),
    ('fedprox', 'digits_mlp', {}),
    ('lg_fedavg', 'digits_mlp', {}),
    ('local', 'digits_mlp', {}),
    ('fedgh', 'digits_mlp', {}),
    ('fedtgp', 'digits_mlp', {}),
    ('feddistill', 'digits_mlp', {}),
    ('fedgen', 'digits_mlp', {}),
    ('fml', 'digits_mlp', {}),
    ('fedkd', 'digits_mlp', {}),
    ('fedpcl', 'digits_mlp', {}),
  ],
)
def test_all_methods(in_process_context, monkeypatch, algorithm, family, local):
  groups = _recorded_groups(monkeypatch)
  if family == 'digits3':
    # Three clients of one architecture, and two of each of the others.
    num_clients, sizes = 7, {3: 2, 2: 4}
  else:
    num_clients, sizes = 6, {3: 4}
  _assert_rounds_equal(algorithm, family, _digits(num_clients), **local)
  assert groups == sizes


def _recorded_groups(monkeypatch):
  """Returns a counter of the sizes of groups that were computed together."""
  groups = collections.Counter()
  compute = joint_functions.JointFunction._compute

  def recording(self, inputs):
    groups[len(inputs)] += 1
    return compute(self, inputs)

  monkeypatch.setattr(joint_functions.JointFunction, '_compute', recording)
  return groups
