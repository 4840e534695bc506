"""Stacks of one tensor have the right numbers.

In TensorFlow 2.14, `tf.function(lambda x: tf.stack([tf.split(x, 2)[1]] * 2))`
returns the first half of `x`.
"""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

pytestmark = pytest.mark.usefixtures('in_process_context')


@tf.function(autograph=False, experimental_attributes={'_noinline': True})
def _twice_the_second_half(value):
  _, second = tf.split(value, 2)
  return tf.stack([second, second])


@tff.tensorflow.computation(tff.TensorType(np.float32, [4]))
def _stacks(value):
  _, second = tf.split(value, 2)
  values, places = tf.nn.top_k(value, 2)
  return (
    tf.stack([second, second, second], axis=1),
    tf.stack([places, places]),
    tf.stack([values, second]),
    _twice_the_second_half(value),
    tf.while_loop(
      lambda i, _: i < 3,
      lambda i, total: (i + 1, total + _twice_the_second_half(value)),
      (0, tf.zeros([2, 2])),
    )[1],
    tf.stack([1.0, 1.0]),
  )


_VALUE = np.array([1, 2, 3, 4], np.float32)
_EXPECTED = (
  [[3, 3, 3], [4, 4, 4]],
  [[3, 2], [3, 2]],
  [[4, 3], [3, 4]],
  [[3, 4], [3, 4]],
  [[9, 12], [9, 12]],
  [1, 1],
)


def test_at_the_server():
  for found, expected in zip(_stacks(_VALUE), _EXPECTED, strict=True):
    np.testing.assert_array_equal(found, expected)


def test_at_clients():
  @tff.federated_computation(
    tff.FederatedType(_stacks.type_signature.parameter, tff.CLIENTS)
  )
  def at_clients(values):
    return tff.federated_map(_stacks, values)

  for client in at_clients([_VALUE, _VALUE]):
    for found, expected in zip(client, _EXPECTED, strict=True):
      np.testing.assert_array_equal(found, expected)
