"""Clusters of several nodes on this machine, for tests."""

import contextlib
import os
import shutil
import signal
import tempfile

import numpy as np
import psutil
import tensorflow as tf
import tensorflow_federated as tff

from tests.execution import computations
from tff_fedsa.execution.ray import contexts

# Lost nodes are found within seconds.
_QUICK = {
  'health_check_initial_delay_ms': 1000,
  'health_check_period_ms': 1000,
  'health_check_timeout_ms': 3000,
  'health_check_failure_threshold': 4,
}
_NODE = {'object_store_memory': 100 * 2**20}


class Cluster:
  """A head, and nodes with one core each."""

  def __init__(self, folder, num_nodes):
    os.environ['RAY_USAGE_STATS_ENABLED'] = '0'
    # Its import takes a second, and only these tests need it.
    from ray import cluster_utils
    from ray._private import utils

    # Ray notes the latest cluster's address there, and does not make the folder
    # if a cluster has another one for its own files.
    os.makedirs(
      os.path.dirname(utils.get_ray_address_file(None)), exist_ok=True
    )
    self._cluster = cluster_utils.Cluster(
      initialize_head=True,
      head_node_args={
        'num_cpus': 0,
        'include_dashboard': False,
        'temp_dir': folder,
        '_system_config': _QUICK,
        **_NODE,
      },
    )
    self.address = self._cluster.address
    self.nodes = []
    for _ in range(num_nodes):
      self.add_node()

  def add_node(self):
    # Of their own addresses: the driver belongs to the node with its address.
    address = f'127.0.0.{2 + len(self.nodes)}'
    self.nodes.append(
      self._cluster.add_node(num_cpus=1, node_ip_address=address, **_NODE)
    )
    return self.nodes[-1]

  def close(self):
    for node in self.nodes:
      send(node, signal.SIGCONT)
    self._cluster.shutdown()


def node_id(node):
  """Returns the id under which Ray knows a node."""
  import ray

  (found,) = (
    one['NodeID']
    for one in ray.nodes()
    if one['ObjectStoreSocketName'] == node.plasma_store_socket_name
  )
  return found


def send(node, number):
  """Sends a signal to all processes of a node."""
  for info in (one for kind in node.all_processes.values() for one in kind):
    with contextlib.suppress(psutil.NoSuchProcess):
      process = psutil.Process(info.process.pid)
      for one in [process, *process.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
          one.send_signal(number)


def kill_actors(node):
  """Kills the actors of a node, but not the node."""
  (info,) = node.all_processes['raylet']
  for process in psutil.Process(info.process.pid).children():
    with contextlib.suppress(psutil.NoSuchProcess):
      if 'Worker' in ''.join(process.cmdline()):
        process.kill()


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


@contextlib.contextmanager
def connected(num_nodes):
  """Yields a cluster of this machine and a context that uses it."""
  import ray

  # Not in a folder of pytest: the paths of Ray's sockets would be too long.
  folder = tempfile.mkdtemp(prefix='ray_')
  cluster = Cluster(folder, num_nodes)
  context = None
  try:
    context = contexts.create_ray_context(
      cluster.address,
      results_stay=True,
      # That of the head. The other nodes will be killed.
      ray_options={'_node_ip_address': cluster.address.partition(':')[0]},
      **OPTIONS,
    )
    yield cluster, context
  finally:
    if context is not None:
      context.runtime.pool.close()
    ray.shutdown()
    cluster.close()
    shutil.rmtree(folder, ignore_errors=True)
