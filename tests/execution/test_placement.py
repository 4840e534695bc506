"""Clients run on their own device, loop bodies included; results don't tell.

Two logical CPU devices stand in for two GPUs. TensorFlow must be told before it
starts, and has one number of threads per process: the tests look at what this
file computes as a program.
"""

import collections
import functools
import json
import os
import pathlib
import subprocess
import sys
import threading

import numpy as np
import pytest

_ROOT = pathlib.Path(__file__).parents[2]
_NUM_CLIENTS = 3


@functools.cache
def _computed(threads):
  """Returns what the program finds, with so many threads per operation.

  With one it places loops, with two it trains rounds.
  """
  program = subprocess.run(
    [sys.executable, __file__, threads],
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    timeout=300,
    env={
      **os.environ,
      'PYTHONPATH': str(_ROOT),
      'TF_CPP_MIN_LOG_LEVEL': '3',
    },
  )
  assert program.returncode == 0, program.stdout
  return json.loads(program.stdout.splitlines()[-1])


@pytest.fixture(scope='module')
def computed():
  return _computed('1')


@pytest.mark.parametrize('loop', ['reduce', 'for'])
def test_clients_take_turns_on_the_devices_loop_bodies_included(computed, loop):
  results, bodies = computed['result_devices'], computed['bodies']
  assert results[f'{loop} on 0, 1'] == ['0', '1', '0']
  assert bodies[f'{loop} on 0, 1'] == ['0', '1']
  assert results[f'{loop} on 1, 0'] == ['1', '0', '1']
  assert bodies[f'{loop} on 1, 0'] == ['0', '1']
  assert results[f'{loop} on 1'] == ['1', '1', '1']
  assert bodies[f'{loop} on 1'] == ['1']


def test_without_the_rewriting_it_does_not(computed):
  # The test above would notice.
  assert computed['bodies']['not rewritten on 1'] == []


def test_two_devices_compute_what_one_does(computed):
  results = computed['results']
  assert len(results['for on 0, 1']) == _NUM_CLIENTS
  for loop in ('reduce', 'for'):
    # By hand: sin and cosine of running sums of 1 to 3 elements.
    np.testing.assert_allclose(results[f'{loop} on 1'], _expected(), rtol=1e-6)
    for devices in ('0, 1', '1, 0'):
      assert results[f'{loop} on {devices}'] == results[f'{loop} on 1']


def test_a_bounded_number_of_clients_at_a_time_on_each_device(computed):
  at_a_time = computed['at_a_time']
  # Twelve clients; four at a time wait for each other, two on each device.
  assert at_a_time['devices'] == ['0', '1'] * 6
  assert at_a_time['most'] == {'0': 2, '1': 2}


@pytest.mark.slow
def test_rounds_are_the_same_however_many_clients_run_at_a_time():
  digests = _computed('2')['digests']
  assert set(digests) == {'1 on 0', '2 on 0', '1 on 0, 1'}
  assert len(set(map(tuple, digests.values()))) == 1, digests
  # Each round does something.
  assert len(set(digests['1 on 0'])) == 2


# The program.


def _elements(client):
  return np.arange(client, client + client + 1, dtype=np.float32)


def _expected():
  totals = []
  for client in range(_NUM_CLIENTS):
    total = 0.0
    for x in _elements(client):
      total = np.sin(total) + x
    totals.append(total)
  return totals


def _loops():
  """Computations that go through a data set, `sin` being in the loop's body."""
  import tensorflow as tf
  import tensorflow_federated as tff

  sequence_type = tff.SequenceType(np.float32)

  @tff.tensorflow.computation(sequence_type)
  def reduce_loop(data):
    return data.reduce(np.float32(0.0), lambda total, x: tf.sin(total) + x)

  @tff.tensorflow.computation(sequence_type)
  @tf.function
  def for_loop(data):
    total = tf.constant(0.0)
    for x in data:
      total = tf.sin(total) + x
    return total

  def federated(loop):
    @tff.federated_computation(tff.FederatedType(sequence_type, tff.CLIENTS))
    def run(data):
      return tff.federated_map(loop, data)

    return run

  return {'reduce': federated(reduce_loop), 'for': federated(for_loop)}


def _bodies():
  """Returns the devices that a loop's body with `sin` was made ready for."""
  from tensorflow.python.eager import context

  # What TensorFlow executes: functions inlined, placed, and cut into a graph
  # for each device.
  graphs = context.context().export_run_metadata().partition_graphs
  return sorted(
    {
      node.device[-1]
      for graph in graphs
      if any(node.op == 'NextIteration' for node in graph.node)
      for node in graph.node
      if node.op == 'Sin'
    }
  )


def _place(devices, name, run, found):
  """Runs on devices, given as `0, 1`; finds where, and what comes out."""
  import tensorflow as tf
  from tensorflow.python.eager import context

  _use(devices, max_concurrent_clients=1, numpy_results=False)
  data = [
    tf.data.Dataset.from_tensor_slices(_elements(client))
    for client in range(_NUM_CLIENTS)
  ]
  context.context().enable_graph_collection()
  results = run(data)
  found['bodies'][f'{name} on {devices}'] = _bodies()
  context.context().disable_graph_collection()
  found['result_devices'][f'{name} on {devices}'] = [
    result.device[-1] for result in results
  ]
  found['results'][f'{name} on {devices}'] = [float(x) for x in results]


def _use(devices, **options):
  from tff_fedsa.execution.in_process import contexts

  return contexts.set_in_process_context(
    devices=[f'CPU:{i}' for i in devices.split(', ')], **options
  )


def _at_a_time():
  """Runs twelve clients, four of which must meet, on two devices."""
  import tensorflow as tf

  from tff_fedsa.execution.in_process import cancellation
  from tff_fedsa.execution.in_process import client_pool

  pool = client_pool.ClientPool(['/device:CPU:0', '/device:CPU:1'], 2)
  lock, all_four = threading.Lock(), threading.Barrier(4)
  now, most = collections.Counter(), collections.Counter()

  def work(client):
    device = tf.constant(client).device[-1]
    with lock:
      now[device] += 1
      most[device] = max(most[device], now[device])
    all_four.wait(timeout=60)
    with lock:
      now[device] -= 1
    return device

  with cancellation.Cancellation().active():
    devices = pool.map(work, [(client,) for client in range(12)])
  pool.close()
  return {'devices': devices, 'most': most}


def _digests(process, task, initial_state, devices, at_a_time):
  """Returns a hash of server and clients after each of two rounds."""
  import hashlib

  import tensorflow as tf

  _use(devices, max_concurrent_clients=at_a_time)
  server = process.initialize()
  states = [initial_state(i) for i in range(task.num_clients)]
  examples = [client.train for client in task.clients]
  digests = []
  for _ in range(2):
    output = process.next(server, states, examples)
    server, states = output.state, list(output.result)
    digest = hashlib.sha256()
    for leaf in tf.nest.flatten((server, states)):
      digest.update(np.asarray(leaf).tobytes())
    digests.append(digest.hexdigest())
  return digests


def _main(threads):
  import tensorflow as tf

  (cpu,) = tf.config.list_physical_devices('CPU')
  tf.config.set_logical_device_configuration(
    cpu, [tf.config.LogicalDeviceConfiguration()] * 2
  )
  tf.config.threading.set_intra_op_parallelism_threads(threads)

  from tff_fedsa.execution.in_process import dataset_loops

  found = collections.defaultdict(dict)
  if threads == 1:
    for name, run in _loops().items():
      for devices in ('0, 1', '1, 0', '1'):
        _place(devices, name, run, found)
    found['at_a_time'] = _at_a_time()
    replace = dataset_loops.replace_reductions
    dataset_loops.replace_reductions = lambda graph_def: 0
    _place('1', 'not rewritten', _loops()['reduce'], found)
    dataset_loops.replace_reductions = replace
  else:
    _compare_rounds(found)
  print(json.dumps(found))


def _compare_rounds(found):
  from tff_fedsa.algorithms import fedsa
  from tff_fedsa.client import client_state
  from tff_fedsa.data import tasks
  from tff_fedsa.models import families

  task = tasks.load_task(
    tasks.TaskSpec(dataset='digits', num_clients=4, max_examples=400)
  )
  models = families.build_family(
    'digits_cnn_bn', task.input_spec.model_shape, task.num_classes, 16
  )
  process = fedsa.build_fedsa(models, input_spec=task.input_spec)
  initial_state = client_state.build_initial_state_fn(models)
  for devices, at_a_time in (('0', 1), ('0', 2), ('0, 1', 1)):
    found['digests'][f'{at_a_time} on {devices}'] = _digests(
      process, task, initial_state, devices, at_a_time
    )


if __name__ == '__main__':
  _main(int(sys.argv[1]))
