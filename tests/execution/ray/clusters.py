"""Clusters of several nodes on this machine, for tests."""

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from benchmarks import ray_nodes
from tests.execution import computations

# Lost nodes are found within seconds.
_QUICK = {
  'health_check_initial_delay_ms': 1000,
  'health_check_period_ms': 1000,
  'health_check_timeout_ms': 3000,
  'health_check_failure_threshold': 4,
}


def node_id(node):
  """Returns the id under which Ray knows a node."""
  import ray

  (found,) = (
    one['NodeID']
    for one in ray.nodes()
    if one['ObjectStoreSocketName'] == node.plasma_store_socket_name
  )
  return found


STEPS = 100_000
OPTIONS = {
  'insecure': True,
  'deadline_seconds': 20.0,
  'rounds_per_copy': 4,
}
_STATE = tff.TensorType(np.float32, [None])


def assert_same_bits(found, expected):
  tf.nest.assert_same_structure(found, expected)
  for one, other in zip(tf.nest.flatten(found), tf.nest.flatten(expected)):
    one, other = np.asarray(one), np.asarray(other)
    assert one.dtype == other.dtype
    np.testing.assert_array_equal(one, other)


@tff.tensorflow.computation(_STATE)
def _step(x):
  return tf.sin(x) + tf.cast(tf.size(tf.range(3)), tf.float32)


@tff.federated_computation(tff.FederatedType(_STATE, tff.CLIENTS))
def _map_step(states):
  return tff.federated_map(_step, states)


def states():
  return [np.arange(60_000, dtype=np.float32) + i for i in range(4)]


def rounds(states, number):
  """Returns the states of clients after some rounds."""
  for _ in range(number):
    states = list(_map_step(states))
  return states


map_slow = computations.build_map_slow(STEPS)
SLOW_TWELVE = [i + STEPS for i in computations.TWELVE]


def connected(num_nodes):
  """A context manager of `Nodes`, and of an execution context on them."""
  return ray_nodes.connected(
    num_nodes, store_bytes=100 * 2**20, system_config=_QUICK, **OPTIONS
  )
