"""FedAvg equals `tff.learning`'s; all clients have the averaged model."""

import numpy as np
import pytest
import tensorflow_federated as tff

from tests import golden
from tests.algorithms import clients
from tests.algorithms import learning
from tff_fedsa.algorithms import fedavg
from tff_fedsa.evaluation import client_evaluation

pytestmark = pytest.mark.usefixtures('in_process_context')


@pytest.fixture(scope='module')
def models():
  return [clients.tiny_mlp()]


@pytest.fixture(scope='module')
def process(models):
  return fedavg.build_fedavg(
    models,
    input_spec=clients.SPEC,
    optimizer=clients.sgd(0.1),
    local=learning.LOCAL,
  )


def test_three_rounds_equal_those_of_tff_learning(process, models):
  examples = learning.unequal_examples()
  found, _, _ = clients.run(process, models, examples, rounds=3)
  expected = learning.run(
    tff.learning.algorithms.build_weighted_fed_avg(
      learning.model_fn,
      tff.learning.optimizers.build_sgdm(0.1),
      tff.learning.optimizers.build_sgdm(1.0),
    ),
    models[0],
    examples,
    rounds=3,
  )
  golden.assert_close(found.model.weights, expected)
  moved = np.abs(expected - models[0].initial_weights(0)).max()
  assert moved > 0.1


def test_every_client_is_tested_with_the_averaged_model(process, models):
  examples = learning.unequal_examples()
  server, states, _ = clients.run(process, models, examples, rounds=3)
  evaluate = client_evaluation.build_evaluation(
    models, clients.SPEC, process.server_model_type
  )
  extractor, head = models[0].to_keras(server.model.weights)
  expected = [
    np.sum(head(extractor(e['x'])).numpy().argmax(axis=1) == e['y'])
    for e in examples
  ]
  found = evaluate(server.model, states, examples)
  assert [result['head'] for result in found] == expected
  # Their own models, as training left them, are others.
  own = []
  for state, e in zip(states, examples):
    extractor, head = models[0].to_keras(state.weights)
    own.append(np.sum(head(extractor(e['x'])).numpy().argmax(1) == e['y']))
  assert own != expected
