"""Checks arguments as strictly as the stock runtime, and names the place."""

import collections
import weakref

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tff_fedsa.execution.in_process import values

_PAIR = tff.types.to_type(
  collections.OrderedDict(a=(np.float32, [2]), b=[np.int32, np.str_])
)


@pytest.mark.parametrize(
  'value, value_type, message',
  [
    (np.zeros(2), (np.float32, [2]), r'float32\[2\], found float64\[2\]'),
    (np.zeros([2, 2], np.float32), (np.float32, [2]), r'found float32\[2,'),
    (tf.zeros([3]), (np.float32, [None, 1]), r'found float32\[3\]'),
    (tf.zeros([2], tf.int64), (np.int32, [2]), r'found int64\[2\]'),
    (1.5, np.int32, 'int32, found float 1.5'),
    ('text', np.int32, 'int32, found text'),
    ([1.0, 'x'], (np.float32, [2]), 'found list'),
    ({'a': [1.0, 2.0]}, _PAIR, r"one of 1 elements \['a'\]"),
    ({'a': [1.0, 2.0], 'c': [1, 'x']}, _PAIR, r"\['a', 'c'\]"),
    ({'a': [1.0, 2.0], 'b': [1, 2]}, _PAIR, r'^\.b\[1\]: Expected .*str'),
    (3, _PAIR, 'Expected a structure .* found int 3'),
    (np.zeros(2), tff.SequenceType(np.float32), 'Expected a data set'),
    (
      tf.data.Dataset.range(3),
      tff.SequenceType(np.int32),
      r'type int32\*, found one of type int64\*',
    ),
  ],
)
def test_mismatches_say_where_and_what(value, value_type, message):
  with pytest.raises(TypeError, match=message):
    values.ingest(value, tff.types.to_type(value_type), 0)


def test_clients_are_named():
  clients = tff.FederatedType(_PAIR, tff.CLIENTS)
  good = {'a': [1.0, 2.0], 'b': [1, 'x']}
  bad = {'a': [1.0, 2.0, 3.0], 'b': [1, 'x']}
  with pytest.raises(TypeError, match=r'^client 1: \.a: Expected .*float32\[2'):
    values.ingest([good, bad], clients, 2)
  with pytest.raises(TypeError, match='values of 3 clients, found 2 values'):
    values.ingest([good, good], clients, 3)
  with pytest.raises(TypeError, match='Expected a list of values'):
    values.ingest(good, clients, 1)


def test_tensors_go_in_and_out_without_a_copy(in_process_context):
  state_type = tff.TensorType(np.float32, [None])
  tensor = tf.random.normal([1000])
  assert values.ingest(tensor, state_type, 0) is tensor
  array = values.to_numpy({'x': tensor})['x']
  assert isinstance(array, np.ndarray)
  assert np.shares_memory(array, values.to_numpy([tensor])[0])
  assert not array.flags.writeable


def test_large_arrays_that_came_out_go_in_again_without_a_copy():
  tensor = tf.random.normal([1000, 300])
  array = values.to_numpy(tensor)
  same = tff.TensorType(np.float32, [1000, 300])
  assert values.ingest(array, same, 0) is tensor
  # Anything else of the same memory is another value.
  for other in (array[:5], array[::-1], array.T, array.view()):
    other_type = tff.TensorType(np.float32, other.shape)
    ingested = values.ingest(other, other_type, 0)
    assert ingested is not tensor
    np.testing.assert_array_equal(ingested, other)
  with pytest.raises(TypeError, match='Expected'):
    values.ingest(array, tff.TensorType(np.float32, [300, 1000]), 0)


def test_a_tensor_lives_no_longer_than_the_array_that_shares_its_memory():
  tensor = tf.random.normal([1000, 300])
  array = values.to_numpy(tensor)
  reference = weakref.ref(tensor)
  del tensor
  assert reference() is not None
  del array
  assert reference() is None


def test_results_may_stay_tensors(runtimes):
  from tff_fedsa.execution.in_process import contexts

  @tff.tensorflow.computation(np.float32)
  def double(x):
    return 2 * x

  context = contexts.create_in_process_context(numpy_results=False)
  with runtimes.default('in_process'):
    tff.framework.get_context_stack().set_default_context(context)
    result = double(2.0)
    assert isinstance(result, tf.Tensor) and double(result) == 8.0


def test_dict_keys_keep_their_order(in_process_context):
  @tff.tensorflow.computation(collections.OrderedDict(z=np.int32, a=np.float32))
  def same(x):
    return collections.OrderedDict(z=x['z'] + 1, a=x['a'])

  assert list(same({'z': 1, 'a': 2.0}).items()) == [('z', 2), ('a', 2.0)]
