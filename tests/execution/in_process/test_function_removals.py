"""Functions stay in TensorFlow's registry while graphs are executed."""

import gc

import pytest
import tensorflow as tf
from tensorflow.python.eager import context as eager_context

from tests import own_process
from tff_fedsa.execution.in_process import client_pool
from tff_fedsa.execution.in_process import executor
from tff_fedsa.execution.in_process import function_removals

# Without what is tested here it crashed in each of six runs, within 25 of the
# 30 executions.
_PROGRAM = """
  import threading

  import numpy as np
  import tensorflow as tf
  import tensorflow_federated as tff
  from tensorflow_federated.python.core.impl.computation import computation_impl

  from tests.models import keras_zoo
  from tff_fedsa.data import input_spec
  from tff_fedsa.execution.in_process import client_pool
  from tff_fedsa.execution.in_process import executor
  from tff_fedsa.execution.in_process import tensorflow_functions
  from tff_fedsa.models import functional

  model = functional.FunctionalModel(
    keras_zoo.client_model(keras_zoo.LAYERS['lstm_sequence']), name='lstm'
  )
  forward = model.build_forward(
    input_spec.InputSpec(keras_zoo.IMAGE, 'float32', 1.0, 0.0)
  )
  weights = model.initial_weights(0)

  @tff.tensorflow.computation(tff.TensorType(np.float32, [1, *keras_zoo.IMAGE]))
  def work(images):
    return forward(*model.split(weights), images)

  def functions(count):
    return [
      tf.compat.v1.wrap_function(lambda: tf.constant(1.0), [])
      for _ in range(count)
    ]

  def drop():
    while not ended.is_set():
      functions(1)

  kept = functions(1000)  # To be looked through.
  ended = threading.Event()
  thread = threading.Thread(target=drop)
  thread.start()
  proto = computation_impl.ConcreteComputation.get_proto(work)
  runtime = executor.Runtime(client_pool.ClientPool(['/device:CPU:0'], 1))
  images = tf.ones([1, *keras_zoo.IMAGE])
  for _ in range(30):
    # Prepared anew, as in the first execution.
    cache = tensorflow_functions.FunctionCache()
    runtime.call(lambda: cache.get(proto, work.type_signature)(images))
  ended.set()
  thread.join()
  print('ended')
"""


def _new_function():
  function = tf.function(lambda: tf.constant(1.0)).get_concrete_function()
  return function, function.name


def _is_registered(name):
  gc.collect()
  return eager_context.context().has_function(name)


def test_a_function_freed_during_a_call_leaves_after_it():
  def call():
    function, name = _new_function()
    del function
    assert _is_registered(name)
    return name

  runtime = executor.Runtime(client_pool.ClientPool(['/device:CPU:0'], 1))
  assert not _is_registered(runtime.call(call))


def test_it_leaves_when_all_calls_have_ended():
  function, name = _new_function()
  first = function_removals.postponed()
  with function_removals.postponed():
    first.__enter__()
    del function
    assert _is_registered(name)
  assert _is_registered(name)
  first.__exit__(None, None, None)
  assert not _is_registered(name)


def test_functions_leave_at_once_when_nothing_is_called():
  with function_removals.postponed():
    pass
  function, name = _new_function()
  assert _is_registered(name)
  del function
  assert not _is_registered(name)


@pytest.mark.slow
def test_recurrent_layers_while_functions_are_freed():
  own_process.assert_prints(_PROGRAM, 'ended')
