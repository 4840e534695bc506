"""FedGH: the server trains the head that clients begin a round with."""

import numpy as np
import pytest
import tensorflow as tf

from tests import golden
from tests.algorithms import clients
from tff_fedsa.algorithms import fedgh
from tff_fedsa.data import input_spec
from tff_fedsa.evaluation import client_evaluation
from tff_fedsa.models import functional
from tff_fedsa.runs import metrics

pytestmark = pytest.mark.usefixtures('in_process_context')

_MODELS = [clients.tiny_mlp(), clients.tiny_mlp('tanh')]


def test_a_round_of_the_server_by_hand():
  process = fedgh.build_fedgh(
    _MODELS,
    fedgh.FedGHConfig(server_learning_rate=0.1),
    input_spec=clients.SPEC,
  )
  examples = clients.random_examples()
  examples[0]['x'] = examples[0]['x'] * np.float32(1e30)
  kernel, bias = process.initialize().model.head
  server, states, measurements = clients.run(
    process,
    _MODELS,
    # At most 10 prototypes are one batch, whose order does not matter.
    examples[:2],
    rounds=1,
  )
  assert measurements['client_work']['clients_nonfinite'] == 1
  assert not states[0].counts.any()
  held = states[1].counts > 0
  # Prototypes are of the trained model, in inference mode.
  extractor, _ = _MODELS[1].to_keras(states[1].weights)
  features = extractor(examples[1]['x']).numpy()
  vectors = np.stack(
    [features[examples[1]['y'] == c].mean(axis=0) for c in np.flatnonzero(held)]
  )
  # Softmax cross-entropy: dL/dlogits = (softmax - onehot) / n.
  logits = vectors @ kernel + bias
  probabilities = tf.nn.softmax(logits).numpy()
  true = np.eye(10)[held]
  error = (probabilities - true) / held.sum()
  golden.assert_close(
    server.model.head[0], kernel - 0.1 * vectors.T @ error, 1e-4
  )
  golden.assert_close(server.model.head[1], bias - 0.1 * error.sum(0), 1e-4)
  golden.assert_close(
    measurements['finalizer']['server_loss'],
    -np.log((probabilities * true).sum(axis=1)).mean(),
  )


def test_training_goes_on_over_rounds():
  process = fedgh.build_fedgh(
    _MODELS, fedgh.FedGHConfig(server_epochs=20), input_spec=clients.SPEC
  )
  examples = clients.random_examples()
  server, states, first = clients.run(process, _MODELS, examples, rounds=1)
  output = process.next(server, states, examples)
  assert (
    output.measurements['finalizer']['server_loss']
    < (first['finalizer']['server_loss'])
  )
  assert output.state.finalizer == 2
  evaluate = client_evaluation.build_evaluation(
    _MODELS, clients.SPEC, process.server_model_type
  )
  result = evaluate(output.state.model, output.result, examples)
  assert list(result[0]) == ['num_examples', 'head', 'global_head']
  assert metrics.communication_columns(process) == {
    'bytes_down_per_client': (16 * 10 + 10) * 4 + 4,
    'bytes_up_per_client': 10 * 16 * 4 + 10 * 4,
  }


def test_heads_with_state_are_named():
  def build_fn():
    images = tf.keras.Input([8, 8, 1])
    features = tf.keras.layers.Dense(4)(tf.keras.layers.Flatten()(images))
    head = [
      tf.keras.Input([4]),
      tf.keras.layers.BatchNormalization(),
      tf.keras.layers.Dense(10),
    ]
    return functional.KerasClientModel(
      tf.keras.Model(images, features), tf.keras.Sequential(head)
    )

  model = functional.FunctionalModel(build_fn, name='normalized')
  with pytest.raises(ValueError, match="'normalized': expected a head whose"):
    fedgh.build_fedgh([model], input_spec=input_spec.InputSpec((8, 8, 1)))
