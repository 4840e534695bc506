"""Clients on two workers: same results as in process, whatever is lost."""

import asyncio
import collections
import contextlib
import functools
import os
import signal
import threading
import time

import numpy as np
import portpicker
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tests.execution import computations
from tff_fedsa import composer
from tff_fedsa import simulation
from tff_fedsa.algorithms import fedsa
from tff_fedsa.client import client_state
from tff_fedsa.client import client_store
from tff_fedsa.client import local_optimizer
from tff_fedsa.data import tasks
from tff_fedsa.evaluation import client_evaluation
from tff_fedsa.execution import parcels
from tff_fedsa.execution import workers
from tff_fedsa.execution.remote import client_pool
from tff_fedsa.execution.remote import connection
from tff_fedsa.execution.remote import contexts
from tff_fedsa.models import tiers
from tff_fedsa.server import averaging

# Workers answer within a sixth of it, also on a busy machine.
_DEADLINE = 18.0
# Of a slow computation: a quarter of a second or so.
_STEPS = 75_000


class _Workers:
  """Two workers and a context that uses them; starts again what has ended."""

  def __init__(self):
    self.ports = [portpicker.pick_unused_port() for _ in range(2)]
    self._processes = [None, None]
    self.start()
    self.context = contexts.create_remote_context(
      self.addresses, deadline_seconds=_DEADLINE
    )

  @property
  def addresses(self):
    return [f'localhost:{port}' for port in self.ports]

  @property
  def num_clients(self):
    return [w.num_clients for w in self.context.runtime.pool.workers]

  def start(self):
    for i, process in enumerate(self._processes):
      if process is None or process.poll() is not None:
        self._processes[i] = workers.OwnedWorker(
          [
            workers.binary_path(),
            f'--port={self.ports[i]}',
            '--max_concurrent_computation_calls=2',
          ]
        )

  def send(self, signal_number, *which):
    for i in which:
      self._processes[i].send_signal(signal_number)
      if signal_number == signal.SIGKILL:
        self._processes[i].wait()

  def wait_for_all(self):
    deadline = time.monotonic() + 120
    while not all(w.is_open for w in self.context.runtime.pool.workers):
      assert time.monotonic() < deadline
      for worker in self.context.runtime.pool.workers:
        worker.poll()
      time.sleep(0.05)


@pytest.fixture(scope='module')
def two_workers():
  found = _Workers()
  yield found
  found.context.runtime.pool.close()
  workers.stop()


@pytest.fixture
def remote(two_workers):
  """Both workers run, and are TFF's default."""
  two_workers.send(signal.SIGCONT, 0, 1)
  two_workers.start()
  two_workers.wait_for_all()
  stack = tff.framework.get_context_stack()
  before = stack.current
  stack.set_default_context(two_workers.context)
  yield two_workers
  stack.set_default_context(before)


_map_slow = computations.build_map_slow(_STEPS)
_TWELVE = computations.TWELVE
_SLOW_TWELVE = [i + _STEPS for i in _TWELVE]


def _while_clients_run(monkeypatch, fn, *arguments):
  """Calls a function in a thread, soon after the first client was sent out."""
  run = connection.Connection.run
  timer = threading.Timer(0.1, fn, arguments)

  def run_and_start(*run_arguments):
    with contextlib.suppress(RuntimeError):  # Another client has started it.
      timer.start()
    return run(*run_arguments)

  monkeypatch.setattr(connection.Connection, 'run', run_and_start)
  return timer


def _fed_avg():
  """Returns a function that runs rounds of it."""

  def model_fn():
    model = tf.keras.Sequential(
      [
        tf.keras.layers.Input([12]),
        tf.keras.layers.Dense(
          4, kernel_initializer=tf.keras.initializers.GlorotUniform(seed=1)
        ),
      ]
    )
    return tff.learning.models.from_keras_model(
      model,
      loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
      input_spec=(
        tf.TensorSpec([None, 12], tf.float32),
        tf.TensorSpec([None], tf.int32),
      ),
      metrics=[tf.keras.metrics.SparseCategoricalAccuracy()],
    )

  process = tff.learning.algorithms.build_weighted_fed_avg(
    model_fn, tff.learning.optimizers.build_sgdm(0.1)
  )
  rng = np.random.default_rng(0)
  data = [
    tf.data.Dataset.from_tensor_slices(
      (
        rng.normal(size=(n, 12)).astype(np.float32),
        rng.integers(0, 4, n, dtype=np.int32),
      )
    ).batch(5)
    for n in (10, 20, 7, 15, 3)
  ]

  def run():
    state = process.initialize()
    for _ in range(3):
      output = process.next(state, data)
      state = output.state
    return (
      state.global_model_weights.trainable,
      output.metrics['client_work']['train'],
    )

  return run


def _fedsa(share_weights=None):
  """Returns a function that runs rounds of it, maybe with shared weights."""

  task = tasks.load_task(
    tasks.TaskSpec(dataset='digits', num_clients=4, alpha=0.5)
  )
  models = computations.build_smooth_models(task)
  process = fedsa.build_fedsa(
    models,
    input_spec=task.input_spec,
    optimizer=local_optimizer.LocalOptimizer(
      tff.learning.optimizers.build_sgdm(0.05)
    ),
  )
  clients_per_round = None
  if share_weights is not None:
    process = composer.with_averaging(
      process,
      averaging.build_weight_averaging(
        models, tiers=tiers.Tiers(models, share_weights)
      ),
    )
    clients_per_round = 3
  evaluate = client_evaluation.build_evaluation(
    models,
    task.input_spec,
    process.server_model_type,
    tiers=process.tiers,
  )

  def run():
    store = client_store.MemoryStore(
      client_state.build_initial_state_fn(models)
    )
    result = simulation.run(
      process,
      evaluate,
      task,
      store,
      simulation.SimulationConfig(
        total_rounds=3, clients_per_round=clients_per_round
      ),
    )
    losses = [
      value
      for row in result.history
      for name, value in sorted(row.items())
      if 'loss' in name
    ]
    assert losses
    return (
      result.server_state.model.anchors,
      getattr(result.server_state.model, 'weights', np.zeros(0)),
      [store.get(i).weights for i in range(task.num_clients)],
      losses,
    )

  return run


def _assert_close(found, expected, tolerance):
  """Compares structures, within `tolerance` of each array's largest value."""

  def compare(x, y):
    atol = tolerance * np.max(np.abs(y), initial=0)
    np.testing.assert_allclose(x, y, rtol=0, atol=atol)

  tf.nest.map_structure(compare, found, expected)


@pytest.mark.parametrize(
  'build',
  [
    pytest.param(_fed_avg, marks=pytest.mark.slow),
    _fedsa,
    pytest.param(
      functools.partial(_fedsa, 'extractor'), marks=pytest.mark.slow, id='tiers'
    ),
  ],
)
def test_same_results_as_elsewhere(remote, runtimes, build):
  run = build()
  before = remote.num_clients
  found = run()
  assert all(now > then for now, then in zip(remote.num_clients, before))
  for runtime in ('in_process', 'native'):
    with runtimes.default(runtime):
      _assert_close(found, run(), 1e-5)


def test_sequences_strings_no_argument_and_no_client(remote):
  @tff.tensorflow.computation(np.int32, np.int32)
  def add(x, y):
    return x + y

  ints = tff.SequenceType(np.int32)

  @tff.federated_computation(tff.FederatedType(ints, tff.CLIENTS))
  def total(data):
    return tff.federated_map(
      tff.federated_computation(
        lambda values: tff.sequence_reduce(values, 0, add), ints
      ),
      data,
    )

  @tff.tensorflow.computation(ints)
  def describe(data):
    return collections.OrderedDict(
      doubled=data.map(lambda x: 2 * x),
      text=tf.strings.join([tf.constant('ab'), tf.constant('c')]),
    )

  @tff.federated_computation(tff.FederatedType(ints, tff.CLIENTS))
  def described(data):
    return tff.federated_map(describe, data)

  @tff.tensorflow.computation
  def seven():
    return tf.size(tf.range(7))

  @tff.federated_computation(tff.FederatedType(ints, tff.CLIENTS))
  def sevens(data):
    del data  # Only says how many clients there are.
    return tff.federated_eval(seven, tff.CLIENTS)

  data = [[1, 2, 3], [4]]
  assert total(data) == [6, 4]
  first, second = described(data)
  assert list(first['doubled']) == [2, 4, 6]
  assert second['text'] == b'abc'
  assert sevens(data) == [7, 7]
  assert computations.map_small([]) == []


def test_what_all_clients_share_is_sent_once(remote, monkeypatch):
  sent = collections.Counter()
  serialize = parcels.serialize

  def count(value, value_type, *arguments):
    sent[str(value_type)] += 1
    return serialize(value, value_type, *arguments)

  monkeypatch.setattr(parcels, 'serialize', count)
  model_type = tff.TensorType(np.float32, [600, 600])

  @tff.tensorflow.computation(model_type, np.int32)
  def dot(model, x):
    return tf.linalg.trace(model @ model) * tf.cast(x, tf.float32)

  @tff.federated_computation(
    tff.FederatedType(model_type, tff.SERVER), computations.INTS
  )
  def broadcast(model, values):
    return tff.federated_map(dot, (tff.federated_broadcast(model), values))

  results = broadcast(np.eye(600, dtype=np.float32), _TWELVE)
  assert results == [600.0 * x for x in _TWELVE]
  assert sent == {'float32[600,600]': 2, 'int32': 12}


def test_a_structure_beyond_one_message_travels_in_parts(remote, monkeypatch):
  # As if a message held 1 MB.
  for name in ('plan', 'serialize', 'returns_in_parts'):
    function = getattr(parcels, name)
    monkeypatch.setattr(
      parcels,
      name,
      lambda *arguments, function=function: function(*arguments[:2], 1_000_000),
    )
  part_type = tff.TensorType(np.float32, [None])
  pair_type = tff.StructType([('a', part_type), ('b', part_type)])

  @tff.tensorflow.computation(pair_type)
  def swap(pair):
    return collections.OrderedDict(
      a=tf.reverse(pair.b, [0]), b=tf.reverse(pair.a, [0])
    )

  @tff.federated_computation(tff.FederatedType(pair_type, tff.CLIENTS))
  def swapped(pairs):
    return tff.federated_map(swap, pairs)

  a, b = np.arange(200_000, dtype=np.float32), np.ones(200_000, np.float32)
  first, _ = swapped([{'a': a, 'b': b}, {'a': b, 'b': a}])
  np.testing.assert_array_equal(first['b'], a[::-1])
  too_large = {'a': np.zeros(300_000, np.float32), 'b': b}
  with pytest.raises(ValueError, match='1,200,000 bytes') as raised:
    swapped([{'a': a, 'b': b}, too_large])
  assert 'client 1 of 2' in raised.value.__notes__[0]


def test_an_error_of_a_client_names_client_worker_and_operation(remote):
  with pytest.raises(
    tf.errors.OpError, match='too large.*assert_less'
  ) as raised:
    computations.map_small([1, 2, 300, 4])
  (note,) = raised.value.__notes__
  assert 'client 2 of 4' in note
  assert any(address in note for address in remote.addresses)
  assert computations.map_small([1, 2, 3]) == [2, 3, 4]


@pytest.mark.parametrize(
  'way', ['SIGKILL', pytest.param('SIGSTOP', marks=pytest.mark.slow)]
)
def test_a_round_goes_on_without_a_lost_worker(remote, monkeypatch, way):
  assert _map_slow([0]) == [_STEPS]  # Compiled, and sent.
  killer = _while_clients_run(monkeypatch, remote.send, getattr(signal, way), 0)
  assert _map_slow(_TWELVE) == _SLOW_TWELVE
  assert killer.finished.is_set()
  lost, other = remote.context.runtime.pool.workers
  assert not lost.is_open
  assert other.is_open


def test_a_worker_that_starts_again_is_used_again(remote):
  remote.send(signal.SIGKILL, 1)
  assert computations.map_small(_TWELVE) == [i + 1 for i in _TWELVE]
  before = remote.num_clients[1]
  remote.start()
  deadline = time.monotonic() + 120
  while remote.num_clients[1] == before:
    assert time.monotonic() < deadline
    assert computations.map_small(_TWELVE) == [i + 1 for i in _TWELVE]


def test_when_all_are_lost_the_error_names_them(remote, monkeypatch):
  _while_clients_run(monkeypatch, remote.send, signal.SIGKILL, 0, 1)
  start = time.monotonic()
  with pytest.raises(
    client_pool.WorkersLostError, match='All workers'
  ) as raised:
    _map_slow(_TWELVE)
  assert time.monotonic() - start < 60
  for address in remote.addresses:
    assert address in str(raised.value)
  # The context is as good as before once they are back.
  remote.start()
  assert computations.map_small([1, 2]) == [2, 3]


def test_a_client_that_takes_its_workers_with_it_is_named(remote, monkeypatch):
  run = connection.Connection.run

  def crash_with_7(self, function, plan, argument, call):
    if argument.numpy() == 7:
      self.close()
      raise connection.WorkerLostError('out of memory')
    return run(self, function, plan, argument, call)

  monkeypatch.setattr(connection.Connection, 'run', crash_with_7)
  with pytest.raises(
    client_pool.WorkersLostError, match=r'clients \[.*7.*\] .*out of memory'
  ):
    computations.map_small(_TWELVE)


@pytest.mark.parametrize(
  'request_name', ['CreateValue', 'CreateCall', 'Compute', 'Dispose']
)
def test_another_thread_closes_the_connection(
  remote, monkeypatch, request_name
):
  connections = []

  class _Closing:
    """Closes the connection at the moment of the first request."""

    def __init__(self, stub, connection_):
      self._stub, self._connection = stub, connection_

    def __getattr__(self, name):
      method = getattr(self._stub, name)
      if name == request_name and not connections:
        connections.append(self._connection)
        self._connection._lose('lost in another thread')
      return method

  for worker in remote.context.runtime.pool.workers:
    link = worker.connection
    monkeypatch.setattr(link, '_stub', _Closing(link._stub, link))
  assert computations.map_small(_TWELVE) == [x + 1 for x in _TWELVE]
  assert len(connections) == 1


def test_an_interrupt_leaves_the_context_usable(remote, monkeypatch):
  # Jobs in the background of a shell ignore it.
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  try:
    _while_clients_run(monkeypatch, os.kill, os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
      _map_slow(_TWELVE * 10)
  finally:
    signal.signal(signal.SIGINT, before)
  assert computations.map_small([1, 2]) == [2, 3]


def test_unreachable_workers_are_named_at_once(two_workers):
  free = portpicker.pick_unused_port()
  with pytest.raises(client_pool.WorkersLostError) as raised:
    contexts.create_remote_context(
      [two_workers.addresses[0], f'localhost:{free}', 'no.such.host.:1'],
      deadline_seconds=6,
    )
  message = str(raised.value)
  assert '2 of 3 workers did not answer' in message
  assert f'localhost:{free} ([Errno 111] Connection refused)' in message
  assert 'no.such.host.:1' in message
  assert two_workers.addresses[0] not in message
  assert 'tff-fedsa worker' in message


@pytest.mark.parametrize(
  'addresses, options, message',
  [
    ([], {}, 'list of workers'),
    ('localhost:80', {}, 'list of workers'),
    (['localhost'], {}, "'localhost'"),
    (['localhost:0'], {}, "'localhost:0'"),
    (['http://localhost:80'], {}, "'http://localhost:80'"),
    (['a:1', 'a:1'], {}, 'each worker once'),
    (['a:1'], {'max_concurrent_clients': 0}, 'max_concurrent_clients >= 1'),
    (['a:1'], {'deadline_seconds': 0.5}, 'deadline_seconds >= 1'),
  ],
)
def test_bad_values_are_named(addresses, options, message):
  with pytest.raises(ValueError, match=message):
    contexts.create_remote_context(addresses, **options)


def test_an_asynchronous_context(remote):
  context = contexts.create_async_remote_context(remote.addresses)
  with tff.framework.get_context_stack().install(context):
    assert asyncio.run(computations.map_small([1, 2])) == [2, 3]
