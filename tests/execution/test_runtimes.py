"""The same run in every runtime: FedSA, and TFF's own federated averaging."""

import collections

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tests.execution import computations
from tff_fedsa.algorithms import fedsa
from tff_fedsa.client import client_state
from tff_fedsa.client import local_optimizer
from tff_fedsa.data import tasks
from tff_fedsa.evaluation import client_evaluation


def _fed_sa():
  """Returns a function that runs three rounds and an evaluation."""
  task = tasks.load_task(tasks.TaskSpec(num_clients=6, max_examples=480))
  models = computations.build_smooth_models(task)
  process = fedsa.build_fedsa(
    models,
    input_spec=task.input_spec,
    optimizer=local_optimizer.LocalOptimizer(
      tff.learning.optimizers.build_sgdm(0.05)
    ),
  )
  evaluate = client_evaluation.build_evaluation(models, task.input_spec)
  initial_state = client_state.build_initial_state_fn(models)

  def run():
    state = process.initialize()
    clients = [initial_state(i) for i in range(task.num_clients)]
    measurements = []
    for _ in range(3):
      output = process.next(state, clients, [c.train for c in task.clients])
      state, clients = output.state, list(output.result)
      measurements.append(output.measurements)
    correct = evaluate(state.model, clients, [c.test for c in task.clients])
    numbers = {
      'server': state.model._asdict(),
      'clients': [client._asdict() for client in clients],
      'measurements': measurements,
    }
    return numbers, correct

  return run


def _fed_avg():
  train = computations.build_learning(
    lambda model_fn: tff.learning.algorithms.build_weighted_fed_avg(
      model_fn, tff.learning.optimizers.build_sgdm(0.1)
    )
  )

  def run():
    weights, metrics = train()
    return {'weights': weights, 'metrics': metrics}, []

  return run


_CASES = {'fed_sa': _fed_sa, 'fed_avg': _fed_avg}


@pytest.fixture(scope='module', params=_CASES)
def case(request):
  return _CASES[request.param]()


@pytest.fixture
def expected(case, runtimes):
  with runtimes.default('native'):
    return case()


def _assert_agree(expected, found):
  numbers, correct = found
  expected_numbers, expected_correct = expected
  tf.nest.assert_same_structure(expected_numbers, numbers)
  flat = zip(tf.nest.flatten(expected_numbers), tf.nest.flatten(numbers))
  for a, b in flat:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    scale = np.max(np.abs(a), initial=0.0)
    assert np.max(np.abs(a - b), initial=0.0) <= 1e-5 * scale
  totals = [
    collections.Counter(
      {k: sum(int(client[k]) for client in clients) for k in clients[0]}
    )
    for clients in (expected_correct, correct)
    if clients
  ]
  if totals:
    assert totals[0]['num_examples'] == totals[1]['num_examples'] > 0
    assert all(abs(totals[0][k] - totals[1][k]) <= 2 for k in totals[0])


def test_in_process_equals_stock(case, expected, runtimes):
  with runtimes.default('in_process'):
    _assert_agree(expected, case())
