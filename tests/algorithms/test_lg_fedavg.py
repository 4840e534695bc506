"""LG-FedAvg: heads are averaged by examples, the rest stays with clients."""

import numpy as np
import pytest

from tests import golden
from tests.algorithms import clients
from tff_fedsa.algorithms import lg_fedavg
from tff_fedsa.algorithms import local
from tff_fedsa.evaluation import client_evaluation
from tff_fedsa.runs import metrics

pytestmark = pytest.mark.usefixtures('in_process_context')

_MODELS = [clients.tiny_mlp(), clients.tiny_mlp('tanh')]
_HEAD = 16 * 10 + 10  # the last weights of the flat vector: there is no state


@pytest.fixture(scope='module')
def process():
  return lg_fedavg.build_lg_fedavg(_MODELS, input_spec=clients.SPEC)


def _head_vector(model):
  return np.concatenate([np.ravel(weight) for weight in model.head])


def test_rounds_by_hand(process):
  examples = clients.random_examples(2, 23) + clients.random_examples(1, 9, 5)
  server, states, measurements = clients.run(
    process, _MODELS, examples, rounds=1
  )
  heads = np.stack([state.weights[-_HEAD:] for state in states])
  expected = np.average(heads, axis=0, weights=[23, 23, 9])
  golden.assert_close(_head_vector(server.model), expected)
  assert measurements['client_work']['clients_trained'] == 3
  # A round is local training from the server's head.
  alone = local.build_local(_MODELS, input_spec=clients.SPEC)
  started = [
    state._replace(
      weights=np.concatenate(
        [state.weights[:-_HEAD], _head_vector(server.model)]
      )
    )
    for state in states
  ]
  output = process.next(server, states, examples)
  # Batches follow the round.
  expected = alone.next(
    alone.initialize()._replace(round_num=server.round_num), started, examples
  )
  for found, same in zip(output.result, expected.result):
    golden.assert_close(found.weights, same.weights)


def test_the_first_head_is_that_of_the_first_model(process):
  np.testing.assert_array_equal(
    _head_vector(process.initialize().model),
    _MODELS[0].initial_weights(0)[-_HEAD:],
  )


def test_clients_that_diverge_do_not_count(process):
  examples = clients.random_examples()
  for diverging in ([0], [0, 2]):
    for i in diverging:
      examples[i]['x'] = examples[i]['x'] * np.float32(1e30)
    server, states, _ = clients.run(process, _MODELS, examples, rounds=1)
    heads = [s.weights[-_HEAD:] for i, s in enumerate(states)]
    healthy = [h for i, h in enumerate(heads) if i not in diverging]
    golden.assert_close(_head_vector(server.model), np.mean(healthy, axis=0))
    for i in diverging:
      np.testing.assert_array_equal(
        states[i].weights, _MODELS[0].initial_weights(0)
      )
  # Nobody is left: the head stays.
  server, _, _ = clients.run(process, _MODELS, examples[:1], rounds=1)
  np.testing.assert_array_equal(
    _head_vector(server.model), _head_vector(process.initialize().model)
  )


def test_bytes_and_classifiers(process):
  assert metrics.communication_columns(process) == {
    'bytes_down_per_client': _HEAD * 4 + 4,
    'bytes_up_per_client': _HEAD * 4 + 4,
  }
  examples = clients.random_examples()
  server, states, _ = clients.run(process, _MODELS, examples)
  evaluate = client_evaluation.build_evaluation(
    _MODELS, clients.SPEC, process.server_model_type
  )
  for i, result in enumerate(evaluate(server.model, states, examples)):
    extractor, head = _MODELS[i % 2].to_keras(states[i].weights)
    features = extractor(examples[i]['x'])
    own = head(features).numpy().argmax(axis=1)
    kernel, bias = server.model.head
    shared = (features.numpy() @ kernel + bias).argmax(axis=1)
    assert result == {
      'num_examples': 23,
      'head': np.sum(own == examples[i]['y']),
      'global_head': np.sum(shared == examples[i]['y']),
    }


def test_heads_that_differ_are_named():
  with pytest.raises(
    ValueError, match='needs the same head in all models, found'
  ):
    lg_fedavg.build_lg_fedavg(
      [clients.tiny_mlp(), clients.tiny_mlp('tanh', head_units=[8])],
      input_spec=clients.SPEC,
    )
