"""Who catches TFF's errors catches those of this runtime."""

import pickle

import grpc
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tff_fedsa.execution.in_process import contexts
from tff_fedsa.execution.in_process import operation_errors


@pytest.fixture(params=['native', 'in_process'])
def runtime(request, runtimes):
  with runtimes.default(request.param):
    yield request.param


@pytest.fixture(scope='module')
def iblt():
  value_type = tff.SequenceType(
    tff.types.to_type({'key': np.str_, 'value': tff.TensorType(np.int64, [1])})
  )
  factory = tff.analytics.IbltFactory(
    capacity=10, string_max_bytes=5, repetitions=3
  )
  return factory.create(value_type)


def test_a_string_that_is_too_long(iblt, runtime):
  client = tf.data.Dataset.from_tensor_slices(
    {'key': ['thisisalongword'], 'value': np.ones([1, 1], np.int64)}
  )
  state = iblt.initialize()
  with pytest.raises(grpc.RpcError) as caught:
    iblt.next(state, [client])
  # The stock worker calls every error internal.
  code = 'INTERNAL' if runtime == 'native' else 'INVALID_ARGUMENT'
  assert caught.value.code().name == code
  assert 'must be truncated to string_max_bytes=5' in caught.value.details()


def test_a_summand_over_the_maximum(runtimes):
  with runtimes.default('in_process'):
    before = tff.framework.get_context_stack()
    context = contexts.create_in_process_context(secure_in_the_clear=True)
    before.set_default_context(context)

    @tff.federated_computation(tff.FederatedType(np.int32, tff.CLIENTS))
    def run(values):
      return tff.federated_secure_sum(values, 10)

    assert run([1, 10]) == 11
    with pytest.raises(grpc.RpcError) as caught:
      run([1, 11])
  assert isinstance(caught.value, tf.errors.InvalidArgumentError)


def test_it_stays_an_error_of_tensorflow():
  error = operation_errors.as_users_catch_it(
    tf.errors.NotFoundError(None, None, 'none')
  )
  assert isinstance(error, tf.errors.NotFoundError)
  assert isinstance(error, grpc.RpcError)
  assert type(error).__name__ == 'NotFoundError'
  assert error.code() is grpc.StatusCode.NOT_FOUND
  copy = pickle.loads(pickle.dumps(error))
  assert type(copy) is tf.errors.NotFoundError and copy.message == 'none'
