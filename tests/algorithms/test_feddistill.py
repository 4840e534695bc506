"""FedDistill: clients exchange the mean logits of each class."""

import numpy as np
import pytest

from tests import golden
from tests.algorithms import clients
from tff_fedsa.algorithms import feddistill
from tff_fedsa.client import local_training
from tff_fedsa.evaluation import client_evaluation
from tff_fedsa.runs import metrics

pytestmark = pytest.mark.usefixtures('in_process_context')

_MODELS = [clients.tiny_mlp(), clients.tiny_mlp('tanh')]


def _logits(model, weights, examples):
  extractor, head = model.to_keras(weights)
  return head(extractor(examples['x'])).numpy()


@pytest.mark.parametrize('kind', ['running', 'final'])
def test_rounds_by_hand(kind):
  process = feddistill.build_feddistill(
    _MODELS,
    feddistill.FedDistillConfig(lambda_=3.0),
    input_spec=clients.SPEC,
    # Nothing moves: a round's logits are those of the initial weights.
    optimizer=clients.sgd(0.0),
    local=local_training.LocalTrainingConfig(prototypes=kind),
  )
  # Classes 0 to 4 only, so that the others have no logits.
  examples = clients.random_examples(2, 23)
  for own in examples:
    own['y'] %= 5
  server, states, first = clients.run(process, _MODELS, examples, rounds=1)
  logits = [
    _logits(model, state.weights, own)
    for model, state, own in zip(_MODELS, states, examples)
  ]
  means = [
    np.mean(
      [
        output[own['y'] == label].mean(axis=0)
        for output, own in zip(logits, examples)
      ],
      axis=0,
    )
    for label in range(5)
  ]
  golden.assert_close(server.model.logits[:5], means)
  assert not server.model.logits[5:].any()
  np.testing.assert_array_equal(server.model.present, np.arange(10) < 5)
  work = first['client_work']
  assert work['distillation'] == 0 and work['loss'] == work['cross_entropy']
  examples[0]['y'][:] += 1  # class 5 has no mean logits: it counts 0
  output = process.next(server, states, examples)
  work = output.measurements['client_work']
  expected = np.mean(
    [
      np.square(output - np.array(means)[np.minimum(own['y'], 4)])
      * (own['y'] < 5)[:, None]
      for output, own in zip(logits, examples)
    ]
  )
  golden.assert_close(work['distillation'], expected)
  golden.assert_close(work['loss'], work['cross_entropy'] + 3 * expected)


def test_heterogeneous_clients():
  process = feddistill.build_feddistill(_MODELS, input_spec=clients.SPEC)
  examples = clients.random_examples()
  examples[0]['x'] = examples[0]['x'] * np.float32(1e30)
  server, states, measurements = clients.run(process, _MODELS, examples)
  work = measurements['client_work']
  assert work['clients_nonfinite'] == 1 and work['clients_trained'] == 2
  assert work['distillation'] > 0
  assert np.isfinite(server.model.logits).all()
  # Prototypes of features stay with the client.
  assert states[1].prototypes.shape == (10, 16) and states[1].counts.any()
  assert metrics.communication_columns(process) == {
    'bytes_down_per_client': 10 * 10 * 4 + 10 + 4,
    'bytes_up_per_client': 10 * 10 * 4 + 10 * 4,
  }
  evaluate = client_evaluation.build_evaluation(
    _MODELS, clients.SPEC, process.server_model_type
  )
  result = evaluate(server.model, states, examples)
  assert list(result[0]) == ['num_examples', 'head']


def test_bad_values_are_named():
  with pytest.raises(ValueError, match='distillation weight >= 0, found nan'):
    feddistill.build_objective(10, float('nan'))
  with pytest.raises(ValueError, match='lambda_ >= 0, found inf'):
    feddistill.FedDistillConfig(lambda_=float('inf'))
