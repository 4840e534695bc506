"""Clients alone: nothing is exchanged, each trains as it would by itself."""

import numpy as np
import pytest
import tensorflow as tf

from tests.algorithms import clients
from tff_fedsa.algorithms import local
from tff_fedsa.client import local_training
from tff_fedsa.evaluation import client_evaluation
from tff_fedsa.runs import metrics

pytestmark = pytest.mark.usefixtures('in_process_context')

_MODELS = [clients.tiny_mlp(), clients.tiny_mlp('tanh')]


def test_training_is_plain_sgd_on_the_cross_entropy():
  examples = clients.random_examples()
  process = local.build_local(
    _MODELS,
    input_spec=clients.SPEC,
    optimizer=clients.sgd(0.1),
    local=local_training.LocalTrainingConfig(batch_size=8, shuffle=False),
  )
  server, states, measurements = clients.run(process, _MODELS, examples)
  for client_id, (state, own) in enumerate(zip(states, examples)):
    model = _MODELS[client_id % 2]
    keras_model = model.to_keras(model.initial_weights(0))
    whole = tf.keras.Sequential(keras_model)
    whole.compile(
      tf.keras.optimizers.SGD(0.1),
      tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    whole.fit(
      own['x'], own['y'], batch_size=8, epochs=2, shuffle=False, verbose=0
    )
    np.testing.assert_allclose(
      state.weights,
      model.weights_from_keras(keras_model),
      rtol=1e-4,
      atol=1e-6,
    )
  work = measurements['client_work']
  assert work['loss'] == work['cross_entropy'] > 0
  assert work['clients_trained'] == 3 and server.round_num == 2


def test_nothing_is_exchanged_and_only_heads_are_evaluated():
  process = local.build_local(_MODELS, input_spec=clients.SPEC)
  assert metrics.communication_columns(process) == {
    'bytes_down_per_client': 4,  # the round number
    'bytes_up_per_client': 0,
  }
  evaluate = client_evaluation.build_evaluation(
    _MODELS, clients.SPEC, process.server_model_type
  )
  examples = clients.random_examples()
  server, states, _ = clients.run(process, _MODELS, examples, rounds=1)
  for client_id, result in enumerate(evaluate(server.model, states, examples)):
    model, own = _MODELS[client_id % 2], examples[client_id]
    extractor, head = model.to_keras(states[client_id].weights)
    predicted = head(extractor(own['x'])).numpy().argmax(axis=1)
    assert result == {
      'num_examples': 23,
      'head': np.sum(predicted == own['y']),
    }
