"""A small experiment that the tests of pipelines share."""

import csv
import functools

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_fedsa.algorithms import fedsa
from tff_fedsa.client import client_state
from tff_fedsa.client import client_store
from tff_fedsa.client import local_optimizer
from tff_fedsa.data import tasks
from tff_fedsa.evaluation import client_evaluation
from tff_fedsa.models import families
from tff_fedsa.pipelines import population

NUM_CLIENTS = 4
CLIENTS_PER_ROUND = 2
CLIENT_IDS = [str(i) for i in range(NUM_CLIENTS)]


class Experiment:
  """FedSA on 240 digits of four clients."""

  def __init__(self):
    self.task = tasks.load_task(
      tasks.TaskSpec(num_clients=NUM_CLIENTS, max_examples=240, alpha=1.0)
    )
    self.models = families.build_family(
      'digits_mlp', self.task.input_spec.model_shape, 10, feature_dim=8
    )
    # Momentum is kept, so a state that is not restored would show.
    optimizer = local_optimizer.LocalOptimizer(
      tff.learning.optimizers.build_sgdm(0.05, 0.5), state='keep'
    )
    self.process = fedsa.build_fedsa(
      self.models, input_spec=self.task.input_spec, optimizer=optimizer
    )
    self.evaluate = client_evaluation.build_evaluation(
      self.models, self.task.input_spec
    )
    self.initial_state_fn = client_state.build_initial_state_fn(
      self.models, optimizer=optimizer
    )

  def store(self, directory=None):
    if directory is None:
      return client_store.MemoryStore(self.initial_state_fn)
    return client_store.DiskStore(self.initial_state_fn, str(directory))

  def population(self, directory=None):
    return population.from_task(self.task, self.store(directory))


@functools.cache
def experiment():
  """Returns the experiment, built once for all tests."""
  return Experiment()


def arrays(server_state, store):
  """Returns all that a run has made: server state, then client states."""
  states = [store.get(i) for i in range(NUM_CLIENTS)]
  return [np.asarray(leaf) for leaf in tf.nest.flatten((server_state, states))]


def assert_same(found, expected):
  assert len(found) == len(expected)
  for a, b in zip(found, expected):
    np.testing.assert_array_equal(a, b)


def rows(path):
  """Returns the rows of a CSV file that a program has released."""
  with open(path, newline='') as file:
    return list(csv.DictReader(file))
