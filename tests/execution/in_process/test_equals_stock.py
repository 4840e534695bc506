"""Small computations of every kind: in process as in TFF's stock runtime."""

import collections

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

_INTS = tff.FederatedType(np.int32, tff.CLIENTS)
_FLOATS = tff.FederatedType(np.float32, tff.CLIENTS)
_CASES = {}


def _case(build):
  """Registers a function that returns `(computation, *arguments)`."""
  _CASES[build.__name__.strip('_')] = build
  return build


def _increment():
  @tff.tensorflow.computation(np.int32)
  def increment(x):
    return x + 1

  return increment


def _pairs(count):
  x = np.arange(count, dtype=np.float32)
  return tf.data.Dataset.from_tensor_slices((x, x + 0.5)).batch(4)


_PAIRS_TYPE = tff.SequenceType(
  (tff.TensorType(np.float32, [None]), tff.TensorType(np.float32, [None]))
)


# Structures and functions.


@_case
def _no_argument():
  @tff.tensorflow.computation
  def three():
    return tf.constant(3)

  return (three,)


@_case
def _nested_structures():
  @tff.tensorflow.computation(
    collections.OrderedDict(
      z=np.int32, a=(np.float32, (np.str_, tff.TensorType(np.bool_, [2])))
    )
  )
  def shuffle(x):
    return x['a'][1], collections.OrderedDict(z=x['z'], a=x['a'][0])

  return shuffle, {'z': 1, 'a': (2.5, ('text', [True, False]))}


@_case
def _function_as_argument():
  @tff.federated_computation(tff.FunctionType(np.int32, np.int32), np.int32)
  def twice(fn, x):
    return fn(fn(x))

  return twice, _increment(), 3


@_case
def _nested_computations():
  increment = _increment()

  @tff.federated_computation(np.int32)
  def inner(x):
    return increment(x), x

  @tff.federated_computation(np.int32)
  def outer(x):
    y = inner(x)
    return inner(y[0]), y[1]

  return outer, 5


@_case
def _empty_structure():
  @tff.tensorflow.computation(())
  def nothing(x):
    return x

  return nothing, ()


@_case
def _many_dtypes():
  dtypes = (np.int8, np.uint8, np.int16, np.int64, np.float64, np.bool_)

  @tff.tensorflow.computation(tuple(tff.TensorType(d, [2]) for d in dtypes))
  def same(values):
    return tuple(tf.identity(value) for value in values)

  return same, tuple(np.array([0, 1], d) for d in dtypes)


@_case
def _strings():
  @tff.tensorflow.computation(tff.TensorType(np.str_, [None]))
  def join(texts):
    return tf.strings.reduce_join(texts), texts

  return join, np.array([b'a', b'bc'], object)


# State within a computation.


@_case
def _variables():
  @tff.tensorflow.computation(np.float32)
  def count_up(x):
    variable = tf.Variable(1.5)
    with tf.control_dependencies([variable.assign_add(x)]):
      return variable.read_value()

  return count_up, 2.0


@_case
def _table_and_initializer():
  @tff.tensorflow.computation(tff.TensorType(np.str_, [None]))
  def look_up(words):
    table = tf.lookup.StaticHashTable(
      tf.lookup.KeyValueTensorInitializer(['a', 'b'], [1, 2]), -1
    )
    return table.lookup(words)

  return look_up, np.array([b'b', b'x'], object)


@_case
def _keras_model():
  @tff.tensorflow.computation(tff.TensorType(np.float32, [None, 3]))
  def predict(x):
    model = tf.keras.Sequential(
      [
        tf.keras.layers.Dense(4, kernel_initializer='ones', input_shape=(3,)),
        tf.keras.layers.BatchNormalization(),
        tf.keras.layers.Dense(1, kernel_initializer='ones'),
      ]
    )
    return model(x)

  return predict, np.ones([2, 3], np.float32)


# Data sets.


@_case
def _reduce():
  @tff.tensorflow.computation(_PAIRS_TYPE)
  def total(pairs):
    return pairs.reduce(
      (0.0, tf.constant(0)),
      lambda state, pair: (
        state[0] + tf.reduce_sum(pair[0] * pair[1]),
        state[1] + tf.size(pair[0]),
      ),
    )

  return total, _pairs(10)


@_case
def _reduce_of_nothing():
  @tff.tensorflow.computation(_PAIRS_TYPE)
  def total(pairs):
    return pairs.reduce(7.0, lambda state, pair: state + pair[0][0])

  return total, _pairs(0)


@_case
def _for_loop():
  @tff.tensorflow.computation(_PAIRS_TYPE)
  def total(pairs):
    @tf.function
    def run():
      largest, steps = tf.constant(0.0), tf.constant(0)
      for x, y in pairs:
        if tf.reduce_sum(x) > 3.0:
          largest = tf.maximum(largest, tf.reduce_max(y))
        steps += 1
      return largest, steps

    return run()

  return total, _pairs(10)


@_case
def _for_loop_with_variables():
  @tff.tensorflow.computation(_PAIRS_TYPE, np.float32)
  def train(pairs, rate):
    weight = tf.Variable(0.0)

    @tf.function
    def run():
      for x, y in pairs:
        with tf.GradientTape() as tape:
          loss = tf.reduce_mean((weight * x - y) ** 2)
        weight.assign_sub(rate * tape.gradient(loss, weight))
      return weight.read_value()

    return run()

  return train, _pairs(10), 0.01


@_case
def _loop_in_a_loop():
  @tff.tensorflow.computation(_PAIRS_TYPE)
  def total(pairs):
    return pairs.reduce(
      0.0,
      lambda state, pair: state
      + tf.data.Dataset.from_tensor_slices(pair[0]).reduce(
        0.0, lambda inner, x: inner + x * state
      )
      + 1.0,
    )

  return total, _pairs(10)


@_case
def _data_set_through_operations():
  @tff.tensorflow.computation(tff.SequenceType(np.int32))
  def total(numbers):
    numbers = numbers.filter(lambda x: x > 1).map(lambda x: x * 2)
    return numbers.repeat(2).batch(3).reduce(0, lambda s, b: s + b[-1])

  return total, tf.data.Dataset.range(6, output_type=tf.int32)


@_case
def _data_set_as_result():
  @tff.tensorflow.computation(np.int32)
  def numbers(count):
    return tf.data.Dataset.range(5, output_type=tf.int32).skip(
      tf.cast(count, tf.int64)
    )

  return numbers, 2


@_case
def _data_set_from_a_list():
  @tff.tensorflow.computation(tff.SequenceType(np.int32))
  def total(numbers):
    return numbers.reduce(0, lambda x, y: x + y)

  return total, [1, 2, 3]


@_case
def _ragged_last_batch_of_dicts():
  dataset = tf.data.Dataset.from_tensor_slices(
    collections.OrderedDict(x=np.ones([5, 2], np.float32), y=np.arange(5))
  ).batch(2)

  @tff.tensorflow.computation(
    tff.SequenceType(tff.types.tensorflow_to_type(dataset.element_spec))
  )
  def total(batches):
    return batches.reduce(
      np.int64(0), lambda s, b: s + tf.reduce_sum(b['y']) * 10 + len(b)
    )

  return total, dataset


# Federated intrinsics.


@_case
def _map_sum_mean():
  increment = _increment()

  @tff.federated_computation(_INTS, _FLOATS)
  def run(ints, floats):
    return (
      tff.federated_map(increment, ints),
      tff.federated_sum(ints),
      tff.federated_mean(floats),
      tff.federated_min(ints),
      tff.federated_max(ints),
    )

  return run, [1, 2, 3], [1.0, 2.0, 6.0]


@_case
def _weighted_mean_of_structures():
  @tff.federated_computation(
    tff.FederatedType(
      (np.float32, tff.TensorType(np.float32, [2])), tff.CLIENTS
    ),
    _FLOATS,
  )
  def run(values, weights):
    return tff.federated_mean(values, weights)

  return run, [(1.0, [1.0, 2.0]), (2.0, [3.0, 4.0])], [1.0, 3.0]


@_case
def _broadcast_and_zip():
  @tff.tensorflow.computation(np.float32, np.float32)
  def multiply(x, y):
    return x * y

  @tff.federated_computation(tff.FederatedType(np.float32, tff.SERVER), _FLOATS)
  def run(factor, values):
    scaled = tff.federated_map(
      multiply, (tff.federated_broadcast(factor), values)
    )
    return tff.federated_zip({'a': scaled, 'b': values}), tff.federated_zip(
      (factor, tff.federated_sum(scaled))
    )

  return run, 2.0, [1.0, 5.0]


@_case
def _values_and_evals():
  @tff.tensorflow.computation
  def three():
    return tf.constant(3)

  @tff.federated_computation(_INTS)
  def run(ints):
    return (
      tff.federated_value(1, tff.SERVER),
      tff.federated_value(2, tff.CLIENTS),
      tff.federated_eval(three, tff.SERVER),
      tff.federated_eval(three, tff.CLIENTS),
      tff.federated_sum(ints),
    )

  return run, [1, 2]


@_case
def _aggregate_in_the_order_of_clients():
  @tff.tensorflow.computation
  def zero():
    return tf.constant('')

  @tff.tensorflow.computation(np.str_, np.str_)
  def join(x, y):
    return x + y

  @tff.tensorflow.computation(np.str_)
  def finish(x):
    return x + '.'

  @tff.federated_computation(tff.FederatedType(np.str_, tff.CLIENTS))
  def run(texts):
    return tff.federated_aggregate(texts, zero(), join, join, finish)

  return run, ['a', 'b', 'c', 'd', 'e']


@_case
def _select():
  @tff.tensorflow.computation(tff.TensorType(np.float32, [4]), np.int32)
  def take(table, key):
    return tf.gather(table, key)

  @tff.tensorflow.computation(tff.SequenceType(np.float32))
  def total(rows):
    return rows.reduce(0.0, lambda x, y: x * 10 + y)

  @tff.federated_computation(
    tff.FederatedType(tff.TensorType(np.int32, [3]), tff.CLIENTS),
    tff.FederatedType(tff.TensorType(np.float32, [4]), tff.SERVER),
  )
  def run(keys, table):
    most = tff.federated_value(3, tff.SERVER)
    return tff.federated_map(
      total, tff.federated_select(keys, most, table, take)
    )

  return run, [[0, 1, 1], [3, 2, 3]], np.arange(4, dtype=np.float32)


@_case
def _client_data_sets():
  @tff.tensorflow.computation(_PAIRS_TYPE)
  def count(pairs):
    return pairs.reduce(0, lambda total, pair: total + tf.size(pair[0]))

  @tff.federated_computation(tff.FederatedType(_PAIRS_TYPE, tff.CLIENTS))
  def run(pairs):
    counts = tff.federated_map(count, pairs)
    return counts, tff.federated_sum(counts)

  return run, [_pairs(3), _pairs(0), _pairs(9)]


@_case
def _no_clients():
  @tff.federated_computation(_INTS)
  def run(ints):
    return tff.federated_sum(ints)

  return run, []


@_case
def _random_numbers_with_a_seed():
  @tff.tensorflow.computation(tff.TensorType(np.int32, [2]))
  def draw(seed):
    return tf.random.stateless_normal([3], seed)

  @tff.federated_computation(
    tff.FederatedType(tff.TensorType(np.int32, [2]), tff.CLIENTS)
  )
  def run(seeds):
    return tff.federated_map(draw, seeds)

  return run, [[1, 2], [3, 4]]


def _plain(result):
  """Data sets as lists, so that structures can be compared."""
  return tf.nest.map_structure(
    lambda leaf: [np.asarray(x) for x in leaf]
    if isinstance(leaf, tf.data.Dataset)
    else np.asarray(leaf),
    result,
  )


@pytest.mark.parametrize('name', _CASES)
def test_same_result(name, runtimes):
  computation, *arguments = _CASES[name]()
  with runtimes.default('native'):
    stock = computation(*arguments)
    expected = _plain(stock)
  with runtimes.default('in_process'):
    ours = computation(*arguments)
    found = [_plain(ours), _plain(computation(*arguments))]
  for result in found:
    # The second call is of the functions that the first has imported.
    tf.nest.assert_same_structure(expected, result)
    for a, b in zip(tf.nest.flatten(expected), tf.nest.flatten(result)):
      assert a.dtype.kind == b.dtype.kind and a.shape == b.shape
      if a.dtype.kind in 'fc':
        np.testing.assert_allclose(b, a, rtol=1e-6)
      else:
        np.testing.assert_array_equal(b, a)
  assert type(ours) is type(stock) or np.isscalar(stock)
