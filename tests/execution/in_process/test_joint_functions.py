"""Marked calls: which clients are computed together, and when they are not."""

import logging

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tff_fedsa.execution import joint_calls
from tff_fedsa.execution.in_process import joint_functions

pytestmark = pytest.mark.usefixtures('in_process_context')

_CLIENT = tff.types.to_type(
  [
    ('kind', np.int32),
    ('state', tff.TensorType(np.float32, [None])),
    ('rows', tff.TensorType(np.int32, [None])),
  ]
)


def _alone(kind, state, rows):
  added = tf.cast(tf.reduce_sum(rows) + kind, tf.float32)
  return [state + added, tf.constant(1)]


def _together(kinds, states, rows, num_rows):
  sums = tf.stack(
    [tf.reduce_sum(part) for part in tf.split(rows, num_rows, num=3)]
  )
  return [
    states + tf.cast(sums + kinds, tf.float32)[:, tf.newaxis],
    # The number of clients that have rows.
    tf.fill([3], tf.math.count_nonzero(num_rows, dtype=tf.int32)),
  ]


@pytest.fixture(scope='module')
def run():
  @tff.tensorflow.computation(_CLIENT)
  def work(client):
    # Something before the call and after it.
    state, together = joint_calls.call(
      _alone,
      _together,
      [client['kind'], 2.0 * client['state']],
      [client['rows']],
      3,
    )
    return 10.0 * state + client['state'], together

  @tff.federated_computation(tff.FederatedType(_CLIENT, tff.CLIENTS))
  def mapped(values):
    return tff.federated_map(work, values)

  return mapped


def _client(kind, state, num_rows):
  return {
    'kind': np.int32(kind),
    'state': np.asarray(state, np.float32),
    'rows': np.arange(num_rows, dtype=np.int32),
  }


def _expected(client):
  added = client['rows'].sum() + client['kind']
  return 10.0 * (2.0 * client['state'] + added) + client['state']


def test_clients_of_a_kind_are_computed_together(run):
  given = [
    _client(0, [1, 2], 1),
    _client(1, [3, 4], 2),
    _client(0, [5, 6], 4),
    # Of another shape, so alone.
    _client(0, [7], 2),
    _client(0, [8, 9], 3),
    # Kind 0 with the fewest rows: the group is full.
    _client(0, [1, 1], 0),
    _client(1, [2, 2], 5),
  ]
  results = run(given)
  for (found, _), client in zip(results, given):
    np.testing.assert_array_equal(found, _expected(client))
  assert [int(together) for _, together in results] == [3, 2, 3, 1, 3, 1, 2]


def test_errors_name_the_clients(run, monkeypatch):
  def fail(self, inputs):
    raise ZeroDivisionError

  monkeypatch.setattr(joint_functions.JointFunction, '_compute', fail)
  with pytest.raises(ZeroDivisionError) as raised:
    run([_client(0, [1], 1), _client(1, [1], 1), _client(0, [1], 2)])
  assert 'raised by clients 2, 0 together on' in raised.value.__notes__[-1]


def test_too_little_memory_for_several_clients(monkeypatch, caplog):
  calls = []

  @tff.tensorflow.computation(_CLIENT)
  def work(client):
    (state,) = joint_calls.call(
      lambda *inputs: _alone(*inputs)[:1],
      lambda *inputs: _together(*inputs)[:1],
      [client['kind'], client['state']],
      [client['rows']],
      3,
    )
    return state

  @tff.federated_computation(tff.FederatedType(_CLIENT, tff.CLIENTS))
  def mapped(values):
    return tff.federated_map(work, values)

  def exhausted(self, inputs):
    calls.append(len(inputs))
    raise tf.errors.ResourceExhaustedError(None, None, 'OOM\nmore')

  monkeypatch.setattr(joint_functions.JointFunction, '_compute', exhausted)
  given = [_client(0, [client], 2) for client in range(3)]
  with caplog.at_level(logging.WARNING):
    for _ in range(2):
      assert [float(found) for found in mapped(given)] == [1, 2, 3]
  assert 'too small for 3 clients together' in caplog.text
  assert '--batch_clients' in caplog.text
  assert calls == [3]


def test_two_marks_are_refused():
  @tff.tensorflow.computation(_CLIENT)
  def work(client):
    arguments = [client['kind'], client['state']], [client['rows']]
    first, _ = joint_calls.call(_alone, _together, *arguments, 3)
    second, _ = joint_calls.call(_alone, _together, *arguments, 3)
    return first + second

  with pytest.raises(ValueError, match='one marked call in a graph, found 2'):
    joint_calls.find(tff.framework.serialize_computation(work).tensorflow)
