"""FedProto: golden file 7, and the federated process by hand."""

import numpy as np
import pytest

from tests import golden
from tests.algorithms import clients
from tff_fedsa.aggregation import class_mean
from tff_fedsa.algorithms import fedproto
from tff_fedsa.client import client_state
from tff_fedsa.evaluation import client_evaluation
from tff_fedsa.maths import prototypes
from tff_fedsa.server import finalizers
from tff_fedsa.server import server_model

pytestmark = pytest.mark.usefixtures('in_process_context')


@pytest.fixture(scope='module')
def arrays():
  return golden.load('7_fedproto')


def _known(vectors):
  return server_model.PrototypeModel(
    np.nan_to_num(vectors), ~np.isnan(vectors[:, 0])
  )


def test_a_step_equals_the_reference(arrays):
  model = clients.tiny_mlp()
  process = fedproto.build_fedproto(
    [model],
    fedproto.FedProtoConfig(lambda_=float(arrays['lamda'])),
    input_spec=clients.SPEC,
    optimizer=clients.sgd(float(arrays['lr'])),
    local=clients.ONE_STEP,
  )
  state = client_state.new_client_state(
    model, 0, clients.flat(arrays, 'init'), client_id=0
  )
  server = process.initialize()._replace(model=_known(arrays['global_protos']))
  images = arrays['x'].transpose(0, 2, 3, 1)
  output = process.next(
    server, [state], [clients.examples_of(images, arrays['y'])]
  )
  (state,) = output.result
  golden.assert_close(state.weights, clients.flat(arrays, 'after'))
  held = ~np.isnan(arrays['protos'][:, 0])
  np.testing.assert_array_equal(state.counts > 0, held)
  golden.assert_close(state.prototypes[held], arrays['protos'][held])
  work = output.measurements['client_work']
  golden.assert_close(work['cross_entropy'], arrays['ce'])
  golden.assert_close(work['regularization'], arrays['mse'])


def test_gradients_equal_the_reference(arrays):
  model = clients.tiny_mlp()
  objective = fedproto.build_objective(10, 16, float(arrays['lamda']))
  step = model.build_train_step(
    objective.loss_fn,
    batch_size=10,
    context_specs=objective.context_specs,
    input_spec=clients.SPEC,
  )
  weights, state = model.split(clients.flat(arrays, 'init'))
  output = step(
    weights,
    state,
    arrays['x'].transpose(0, 2, 3, 1),
    arrays['y'].astype(np.int32),
    objective.context_fn(_known(arrays['global_protos']), None, 0),
    np.zeros([2], np.int32),
  )
  golden.assert_close(output.features, arrays['feats'])
  for index, name in ((0, 'g_W1'), (2, 'g_W2'), (4, 'g_Wh')):
    golden.assert_close(output.gradients[index].numpy().T, arrays[name])


@pytest.mark.parametrize('keep_missing', [True, False])
def test_aggregation_equals_the_reference(arrays, keep_missing):
  uploads = [arrays[f'agg_client{i}'] for i in range(4)]
  aggregator = class_mean.ClassMeanFactory().create(
    prototypes.prototypes_type(10, 16)
  )
  finalizer = finalizers.build_prototype_finalizer(
    10, 16, keep_missing=keep_missing
  )
  mean = aggregator.next(
    aggregator.initialize(),
    [
      prototypes.ClassPrototypes(
        np.nan_to_num(u), (~np.isnan(u[:, 0])).astype(np.float32)
      )
      for u in uploads
    ],
  ).result
  before = server_model.PrototypeModel(
    np.full([10, 16], 7, np.float32), np.ones([10], bool)
  )
  model = finalizer.next(finalizer.initialize(), before, mean).result
  expected = arrays['agg_global']
  sent = ~np.isnan(expected[:, 0])
  assert sent.any() and not sent.all()
  golden.assert_close(model.prototypes[sent], expected[sent])
  np.testing.assert_array_equal(model.present, sent | keep_missing)
  if keep_missing:
    assert np.all(model.prototypes[~sent] == 7)


def test_heterogeneous_clients_by_hand():
  models = [clients.tiny_mlp(), clients.tiny_mlp('tanh')]
  process = fedproto.build_fedproto(models, input_spec=clients.SPEC)
  examples = clients.random_examples()
  examples[0]['x'] = examples[0]['x'] * np.float32(1e30)
  server, states, measurements = clients.run(
    process, models, examples, rounds=1
  )
  work = measurements['client_work']
  assert work['clients_nonfinite'] == 1 and work['clients_trained'] == 2
  # Nobody has a prototype in the first round.
  assert work['regularization'] == 0 and work['loss'] == work['cross_entropy']
  vectors = np.stack([state.prototypes for state in states[1:]])
  held = np.stack([state.counts > 0 for state in states[1:]])
  expected = vectors.sum(axis=0) / np.maximum(held.sum(axis=0), 1)[:, None]
  golden.assert_close(server.model.prototypes, expected)
  output = process.next(server, states[1:], examples[1:])
  # The pull is of each step's features to the prototypes of the round before.
  assert output.measurements['client_work']['regularization'] > 0
  evaluate = client_evaluation.build_evaluation(
    models, clients.SPEC, process.server_model_type
  )
  result = evaluate(output.state.model, output.result, examples[1:])
  assert list(result[0]) == ['num_examples', 'prototype', 'head']


def test_bad_values_are_named():
  with pytest.raises(ValueError, match='regularization weight >= 0, found -1'):
    fedproto.build_objective(10, 16, -1.0)
