"""FedTGP: golden file 8, client and server, and the federated process."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tests import golden
from tests.algorithms import clients
from tff_fedsa.algorithms import fedtgp
from tff_fedsa.client import client_state
from tff_fedsa.client import local_optimizer
from tff_fedsa.evaluation import client_evaluation
from tff_fedsa.maths import prototypes
from tff_fedsa.runs import metrics
from tff_fedsa.server import server_training

pytestmark = pytest.mark.usefixtures('in_process_context')


@pytest.fixture(scope='module')
def arrays():
  return golden.load('8_fedtgp')


def _generator(arrays, prefix):
  return fedtgp.Generator(
    arrays[f'{prefix}_emb'],
    arrays[f'{prefix}_W1'].T,
    arrays[f'{prefix}_b1'],
    arrays[f'{prefix}_W2'].T,
    arrays[f'{prefix}_b2'],
  )


def _collected():
  """The uploads of the golden file, client by client."""
  uploads = golden.load('7_fedproto')
  tables = np.stack([uploads[f'agg_client{i}'] for i in range(4)])
  return prototypes.ClassPrototypes(
    np.nan_to_num(tables), (~np.isnan(tables[:, :, 0])).astype(np.float32)
  )


@pytest.mark.parametrize('reference_order', [True, False])
def test_a_client_equals_the_reference(arrays, reference_order):
  model = clients.tiny_mlp()
  process = fedtgp.build_fedtgp(
    [model],
    fedtgp.FedTGPConfig(server_epochs=1, reference_order=reference_order),
    input_spec=clients.SPEC,
    local=clients.ONE_STEP,
  )
  state = client_state.new_client_state(
    model, 0, clients.flat(arrays, 'init'), client_id=0
  )
  server = process.initialize()
  known = arrays['global_protos']
  server = server._replace(
    model=server.model._replace(
      prototypes=np.nan_to_num(known), present=~np.isnan(known[:, 0])
    )
  )
  output = process.next(
    server,
    [state],
    [clients.examples_of(arrays['x'].transpose(0, 2, 3, 1), arrays['y'])],
  )
  (state,) = output.result
  golden.assert_close(state.weights, clients.flat(arrays, 'step_after'))
  name = 'protos_official' if reference_order else 'protos_after'
  held = ~np.isnan(arrays[name][:, 0])
  np.testing.assert_array_equal(state.counts > 0, held)
  golden.assert_close(state.prototypes[held], arrays[name][held])
  work = output.measurements['client_work']
  golden.assert_close(work['cross_entropy'], arrays['step_ce'])
  golden.assert_close(work['regularization'], arrays['step_mse'])


def test_the_server_equals_the_reference(arrays):
  collected = _collected()
  # The golden file lists the same prototypes.
  held = collected.weights > 0
  np.testing.assert_array_equal(
    np.sort(arrays['srv_protos'], axis=0),
    np.sort(collected.vectors[held], axis=0),
  )
  finalizer = fedtgp.build_finalizer(
    10,
    16,
    server_training.ServerTrainingConfig(
      num_epochs=1, batch_size=64, learning_rate=float(arrays['srv_lr'])
    ),
  )
  model = fedtgp.FedTGPModel(
    _generator(arrays, 'srv_init'),
    np.zeros([10, 16], np.float32),
    np.zeros([10], bool),
  )
  output = finalizer.next(finalizer.initialize(), model, collected)
  for found, expected in zip(
    output.result.generator, _generator(arrays, 'srv_after')
  ):
    golden.assert_close(found, expected)
  golden.assert_close(output.result.prototypes, arrays['srv_global_protos'])
  assert output.result.present.all() and output.state == 1
  golden.assert_close(output.measurements['server_loss'], arrays['srv_loss'])
  golden.assert_close(
    output.measurements['server_margin'], arrays['srv_margin']
  )


def test_generated_prototypes_equal_the_reference(arrays):
  golden.assert_close(
    fedtgp.generate(_generator(arrays, 'srv_init')), arrays['srv_init_out']
  )


def test_margin_by_hand():
  def margin(vectors, weights, max_margin):
    return float(
      fedtgp.server_margin(
        prototypes.ClassPrototypes(
          tf.constant(vectors, tf.float32), tf.constant(weights, tf.float32)
        ),
        max_margin,
      )
    )

  # Class means 0, 4 and 10: gaps 4, 4 and 6. Class 3 was not sent.
  vectors = [[[0.0], [3.0], [10.0], [99.0]], [[55.0], [5.0], [10.0], [99.0]]]
  weights = [[1, 1, 1, 0], [0, 1, 1, 0]]
  assert margin(vectors, weights, 100.0) == pytest.approx(6.0)
  assert margin(vectors, weights, 5.0) == 5.0
  # A lone class has no gap.
  assert margin(vectors, [[1, 0, 0, 0], [0, 0, 0, 0]], 100.0) == 100.0


def test_heterogeneous_clients():
  models = [clients.tiny_mlp(), clients.tiny_mlp('tanh')]
  process = fedtgp.build_fedtgp(models, input_spec=clients.SPEC)
  examples = clients.random_examples()
  examples[0]['x'] = examples[0]['x'] * np.float32(1e30)
  server, states, measurements = clients.run(process, models, examples)
  assert measurements['client_work']['clients_nonfinite'] == 1
  assert np.isfinite(server.model.prototypes).all()
  assert server.model.present.all()
  assert measurements['finalizer']['server_loss'] > 0
  assert metrics.communication_columns(process) == {
    'bytes_down_per_client': 10 * 16 * 4 + 10 + 4,
    'bytes_up_per_client': 10 * 16 * 4 + 10 * 4,
  }
  again, _, _ = clients.run(process, models, examples)
  np.testing.assert_array_equal(server.model.prototypes, again.model.prototypes)
  evaluate = client_evaluation.build_evaluation(
    models, clients.SPEC, process.server_model_type
  )
  result = evaluate(server.model, states, examples)
  assert list(result[0]) == ['num_examples', 'prototype', 'head']


def test_a_server_that_diverges_keeps_its_model():
  finalizer = fedtgp.build_finalizer(
    3, 2, server_training.ServerTrainingConfig(2, 4, 1e30)
  )
  model = fedtgp.FedTGPModel(
    fedtgp.initial_generator(3, 2),
    np.ones([3, 2], np.float32),
    np.array([True, True, False]),
  )
  collected = prototypes.ClassPrototypes(
    np.arange(12, dtype=np.float32).reshape(2, 3, 2), np.ones([2, 3], 'f')
  )
  output = finalizer.next(finalizer.initialize(), model, collected)
  assert output.measurements['server_nonfinite'] == 1
  for kept, before in zip(
    tf.nest.flatten(output.result), tf.nest.flatten(model), strict=True
  ):
    np.testing.assert_array_equal(kept, before)


class _Rateless(tff.learning.optimizers.Optimizer):
  def initialize(self, specs):
    return ()

  def next(self, state, weights, gradients):
    return state, weights


def test_the_servers_rate_is_the_clients_unless_it_is_said():
  assert clients.sgd(0.25).learning_rate == 0.25
  still = local_optimizer.LocalOptimizer(_Rateless())
  assert still.learning_rate is None
  with pytest.raises(ValueError, match='FedTGP needs `server_learning_rate`'):
    fedtgp.build_fedtgp(
      [clients.tiny_mlp()], input_spec=clients.SPEC, optimizer=still
    )


def test_bad_values_are_named():
  with pytest.raises(ValueError, match='max_margin >= 0, found -1'):
    fedtgp.build_finalizer(
      2,
      1,
      server_training.ServerTrainingConfig(1, 10, 0.01),
      max_margin=-1.0,
    )
