"""Many clients at a time, errors, interruption, caches, the async variant."""

import asyncio
import gc
import signal
import threading
import time

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.eager import context as eager_context
import tensorflow_federated as tff

from tff_fedsa.execution import runtime as runtime_lib
from tff_fedsa.execution.in_process import contexts
from tff_fedsa.execution.in_process import executor
from tff_fedsa.execution.in_process import tensorflow_functions

_FLOATS = tff.FederatedType(np.float32, tff.CLIENTS)


@pytest.fixture
def use(runtimes):
  """Makes a context the default until the end of the test."""
  with runtimes.default('in_process'):
    yield tff.framework.get_context_stack().set_default_context


def _mapped(fn):
  """A federated computation that maps `fn` over float32 clients."""
  computation = tff.tensorflow.computation(fn, np.float32)

  @tff.federated_computation(_FLOATS)
  def run(values):
    return tff.federated_map(computation, values)

  return run


def _positive_root(x):
  check = tf.debugging.assert_positive(x, message='must be positive')
  with tf.control_dependencies([check]):
    return tf.sqrt(x)


def _spin(x):
  """Computes until it is stopped, where `x` is negative."""
  return tf.while_loop(
    lambda i, y: tf.logical_or(i < 1.0, x < 0.0),
    lambda i, y: (i + 1.0, tf.sin(y) + x),
    (0.0, x),
  )[1]


def test_an_error_names_client_device_and_operation(in_process_context):
  run = _mapped(_positive_root)
  assert run([1.0, 4.0]) == [1.0, 2.0]
  with pytest.raises(tf.errors.InvalidArgumentError) as caught:
    run([1.0, 4.0, -1.0, 9.0])
  (note,) = caught.value.__notes__
  assert note.startswith('raised by client 2 of 4 on ')
  assert note.endswith('/device:CPU:0')
  message = str(caught.value)
  assert 'must be positive' in message and 'operation assert_pos' in message
  assert 'defined at' not in message.lower() and '.py' not in message
  assert '{{' not in message and '[[' not in message
  assert run([9.0]) == [3.0]


def test_an_error_at_the_server_is_named(in_process_context):
  root = tff.tensorflow.computation(_positive_root, np.float32)

  @tff.federated_computation(_FLOATS)
  def run(values):
    return tff.federated_map(root, tff.federated_sum(values))

  with pytest.raises(tf.errors.InvalidArgumentError) as caught:
    run([1.0, -4.0])
  assert caught.value.__notes__[0].startswith('raised at the server on ')


def test_the_first_error_stops_the_other_clients(use):
  def work(x):
    return tf.cond(x > 0.0, lambda: _positive_root(x - 1.0), lambda: _spin(x))

  use(contexts.create_in_process_context(max_concurrent_clients=2))
  # Client 0 would go on forever, 2 and 3 must not even begin.
  with pytest.raises(tf.errors.InvalidArgumentError) as caught:
    _mapped(work)([-1.0, 1.0, -1.0, -1.0])
  assert 'client 1 of 4' in caught.value.__notes__[0]


def test_ctrl_c_stops_at_once_and_the_context_goes_on(in_process_context):
  run = _mapped(_spin)
  run([1.0])
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  timer = threading.Timer(
    0.5, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT)
  )
  try:
    timer.start()
    with pytest.raises(KeyboardInterrupt):
      run([-1.0] * 5)
  finally:
    signal.signal(signal.SIGINT, before)
  assert run([1.0, 2.0]) == pytest.approx([np.sin(1.0) + 1, np.sin(2.0) + 2])


def test_clients_at_a_time_are_bounded_and_do_not_change_results(use):
  count, running, most = 0, 0, 0
  changed = threading.Condition()

  def enter(x):
    nonlocal running, most
    with changed:
      running += 1
      most = max(most, running)
      changed.notify_all()
      # Where two are let in, one waits for the other.
      assert changed.wait_for(lambda: most >= min(count, 2), 60)
    time.sleep(0.05)  # A client too many would come now.
    with changed:
      running -= 1
    return x

  # A Python function within a graph, to count from the outside.
  @tff.tensorflow.computation(tff.TensorType(np.float32, [50]))
  def work(x):
    entered = tf.numpy_function(enter, [x[0]], tf.float32)
    return tf.reduce_sum(tf.tanh(x)) + 0.0 * tf.ensure_shape(entered, [])

  @tff.federated_computation(
    tff.FederatedType(work.type_signature.parameter, tff.CLIENTS)
  )
  def run(values):
    results = tff.federated_map(work, values)
    return results, tff.federated_sum(results)

  rng = np.random.default_rng(0)
  clients = [rng.normal(size=50).astype(np.float32) for _ in range(8)]
  results = []
  for count in (1, 2, 4):
    use(contexts.create_in_process_context(max_concurrent_clients=count))
    most = 0
    results.append(run(clients))
    # TensorFlow's own threads, as many as cores, may be a tighter bound.
    assert (most == count) if count <= 2 else (2 <= most <= count)
  assert results[0] == results[1] == results[2]


def test_imports_are_bounded_and_leave_nothing_in_tensorflow(use, monkeypatch):
  monkeypatch.setattr(executor, '_MAX_COMPUTATIONS', 3)
  context = contexts.create_in_process_context()
  context.runtime.functions = tensorflow_functions.FunctionCache(
    max_functions=3
  )
  use(context)

  def run(number):
    # Functions of its own, which TensorFlow must forget, too.
    computation = tff.tensorflow.computation(
      lambda x: tf.while_loop(
        lambda y: y < 10.0, lambda y: y + float(number), (x,)
      )[0],
      np.float32,
    )
    computation(1.0)

  def registered():
    gc.collect()
    return len(eager_context.context().list_function_names())

  for number in range(1, 5):
    run(number)
  before = registered()
  for number in range(5, 25):
    run(number)
  assert len(context.runtime.functions) == 3
  # TFF itself keeps the computations that it has compiled, not functions.
  assert registered() <= before + 4


def test_asynchronous_context(use):
  run = _mapped(lambda x: x + 1.0)
  use(contexts.create_async_in_process_context())

  async def both():
    return await asyncio.gather(run([1.0]), run([2.0, 3.0]))

  assert asyncio.run(both()) == [[2.0], [3.0, 4.0]]


def test_under_a_mergeable_context(use):
  @tff.federated_computation(_FLOATS)
  def total(values):
    return tff.federated_sum(values)

  @tff.tensorflow.computation(np.float32, np.float32)
  def merge(x, y):
    return x + y

  @tff.federated_computation(_FLOATS, tff.FederatedType(np.float32, tff.SERVER))
  def finish(unused_values, merged):
    return merged

  form = tff.framework.MergeableCompForm(
    up_to_merge=total, merge=merge, after_merge=finish
  )
  use(
    tff.framework.MergeableCompExecutionContext(
      [contexts.create_async_in_process_context() for _ in range(2)],
      compiler_fn=lambda unused_computation: form,
    )
  )

  @tff.federated_computation(_FLOATS)
  def run(values):
    return tff.federated_sum(values)

  assert run([1.0, 2.0, 3.0, 4.0, 5.0]) == 15.0


def test_secure_sums_only_in_the_clear_and_on_demand(use):
  @tff.federated_computation(tff.FederatedType(np.int32, tff.CLIENTS))
  def run(values):
    return tff.federated_secure_sum(values, max_input=10)

  use(contexts.create_in_process_context())
  with pytest.raises(NotImplementedError, match='secure_in_the_clear=True'):
    run([1, 2])
  use(contexts.create_in_process_context(secure_in_the_clear=True))
  assert run([1, 2]) == 3


def test_other_languages_are_refused_by_name(in_process_context):
  computation = tff.jax.computation(lambda x: x + 1, np.float32)
  with pytest.raises(NotImplementedError, match='in xla does not run'):
    computation(1.0)


@pytest.mark.parametrize(
  'options, message',
  [
    ({'max_concurrent_clients': 0}, 'max_concurrent_clients >= 1, found 0'),
    ({'intra_op_threads': -1}, 'intra_op_threads >= 1, found -1'),
    ({'devices': ['GPU:7']}, r'Expected some of the devices .*GPU:7'),
    ({'devices': []}, r'Expected some of the devices .*found \[\]'),
  ],
)
def test_wrong_options_are_named(options, message):
  with pytest.raises(ValueError, match=message):
    contexts.create_in_process_context(**options)


def test_threads_are_refused_when_tensorflow_has_started(runtimes):
  tf.constant(1.0) + 1.0
  with pytest.raises(ValueError, match='intra_op_threads=7 before TensorFlow'):
    contexts.create_in_process_context(intra_op_threads=7)
  # Whoever reads a run that was trained with them needs no threads.
  with runtimes.default('in_process') as before:
    config = runtime_lib.RuntimeConfig(intra_op_threads=7)
    config.start(without_workers=True)
    assert tff.framework.get_context_stack().current is not before
