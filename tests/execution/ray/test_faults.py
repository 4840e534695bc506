"""A run goes on whatever is lost, with the bits of an undisturbed one."""

import signal
import threading
import time

import pytest
import tensorflow_federated as tff

from benchmarks import ray_nodes
from tests.execution import computations
from tests.execution.ray import clusters
from tff_fedsa.execution.ray import fleet

pytestmark = pytest.mark.slow


def _wait_for(pool, num_actors):
  """Waits until so many actors compute."""
  deadline = time.monotonic() + 120
  while sum(actor.is_open for actor in pool.fleet.actors) != num_actors:
    assert time.monotonic() < deadline
    pool.fleet.look()
    time.sleep(0.1)


def _during_a_round(fn, *arguments):
  timer = threading.Timer(0.3, fn, arguments)
  timer.start()
  assert clusters.map_slow(computations.TWELVE) == clusters.SLOW_TWELVE
  timer.join()


def test_a_run_goes_on_whatever_is_lost(runtimes):
  with runtimes.default('in_process'):
    expected = clusters.rounds(clusters.states(), 6)
  stack = tff.framework.get_context_stack()
  before = stack.current
  with clusters.connected(2) as (cluster, context):
    pool = context.runtime.pool
    stack.set_default_context(context)
    try:
      assert clusters.map_slow(computations.TWELVE) == clusters.SLOW_TWELVE

      states = clusters.rounds(clusters.states(), 3)
      _during_a_round(ray_nodes.kill_actors, cluster.nodes[0])
      clusters.assert_same_bits(clusters.rounds(states, 3), expected)
      _wait_for(pool, 2)

      # One node has the states of some clients, and loses them.
      states = clusters.rounds(clusters.states(), 3)
      nodes = {clusters.node_id(node): node for node in cluster.nodes}
      (lost, *_) = {state.kept.node for state in states}
      _during_a_round(ray_nodes.send, nodes.pop(lost), signal.SIGKILL)
      clusters.assert_same_bits(clusters.rounds(states, 3), expected)
      assert lost in pool.fleet.lost_nodes

      joined = cluster.add()
      _wait_for(pool, 2)
      states = clusters.rounds(clusters.states(), 3)
      _during_a_round(ray_nodes.send, joined, signal.SIGSTOP)
      clusters.assert_same_bits(clusters.rounds(states, 3), expected)
      assert any('has not answered' in why for why in pool.fleet.lost)
      # It wakes up when others have its clients. Whether Ray has given it up
      # meanwhile depends on how long that took.
      _during_a_round(ray_nodes.send, joined, signal.SIGCONT)
      states = clusters.rounds(clusters.states(), 3)
      assert clusters.map_slow(computations.TWELVE) == clusters.SLOW_TWELVE
      clusters.assert_same_bits(clusters.rounds(states, 3), expected)

      for node in cluster.nodes:
        ray_nodes.send(node, signal.SIGKILL)
      with pytest.raises(fleet.ClusterError, match='All actors are lost'):
        clusters.map_slow(computations.TWELVE)
      cluster.add()
      _wait_for(pool, 1)
      assert clusters.map_slow([1]) == [1 + clusters.STEPS]
    finally:
      stack.set_default_context(before)
