"""A federated context that takes and returns clients' structures."""

import asyncio
import collections

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tff_fedsa.execution.in_process import contexts
from tff_fedsa.pipelines import client_ids
from tff_fedsa.pipelines import federated_context

_PAIR = collections.OrderedDict(a=np.int32, b=tff.TensorType(np.float32, [2]))


@tff.tensorflow.computation(_PAIR)
def _double(pair):
  return collections.OrderedDict(
    a=pair['a'] * 2, b=tf.cast(pair['a'], tf.float32) + pair['b']
  )


@tff.tensorflow.computation(_PAIR)
def _first(pair):
  return pair['a']


@tff.federated_computation(
  tff.FederatedType(np.int32, tff.SERVER), tff.FederatedType(_PAIR, tff.CLIENTS)
)
def _round(total, pairs):
  doubled = tff.federated_map(_double, pairs)
  return collections.OrderedDict(
    clients=doubled,
    server=(total, tff.federated_sum(tff.federated_map(_first, doubled))),
  )


@pytest.fixture(scope='module')
def context():
  return contexts.create_async_in_process_context()


def _pairs():
  return [
    collections.OrderedDict(a=i, b=np.array([1.0, 2.0], np.float32))
    for i in range(3)
  ]


def _run(context, coroutine_fn):
  with tff.framework.get_context_stack().install(context):
    return asyncio.run(coroutine_fn())


def test_clients_results_are_one_reference_in_order(context):
  async def main():
    references = _round(7, _pairs())
    assert isinstance(
      references['clients'], tff.program.MaterializableValueReference
    )
    assert str(references['clients'].type_signature) == (
      '{<a=int32,b=float32[2]>}@CLIENTS'
    )
    return await tff.program.materialize_value(references)

  found = _run(federated_context.StatefulFederatedContext(context), main)
  assert found['server'] == (7, 6)
  assert [pair['a'] for pair in found['clients']] == [0, 2, 4]
  np.testing.assert_array_equal(found['clients'][2]['b'], [3.0, 4.0])


def test_references_are_arguments(context):
  async def main():
    first = _round(7, _pairs())
    # The server's value as a reference, clients' values as they come.
    clients = await first['clients'].get_value()
    return await tff.program.materialize_value(
      _round(first['server'][1], clients)
    )

  found = _run(federated_context.StatefulFederatedContext(context), main)
  assert found['server'] == (6, 12)


def test_an_error_of_a_computation_arrives(context):
  @tff.tensorflow.computation(np.int32)
  def fail(x):
    with tf.control_dependencies([tf.debugging.assert_less(x, 0)]):
      return tf.identity(x)

  async def main():
    await tff.program.materialize_value(fail(1))

  with pytest.raises(Exception, match='assert'):
    _run(federated_context.StatefulFederatedContext(context), main)


def test_upstreams_context_still_needs_ours(context):
  """Once upstream takes client-placed results, ours can go."""

  async def main():
    _round(7, _pairs())

  with pytest.raises(ValueError, match='only structures, server-placed values'):
    _run(tff.program.NativeFederatedContext(context), main)


def test_draws_are_saved_with_the_iterator():
  source = client_ids.SeededClientIdDataSource(list('abcdef'), seed=3)
  iterator = source.iterator()
  first = iterator.select(2)
  saved = iterator.to_bytes()
  rest = [iterator.select(2) for _ in range(5)]
  again = client_ids.SeededClientIdIterator.from_bytes(saved)
  assert [again.select(2) for _ in range(5)] == rest
  assert source.iterator().select(2) == first
  assert len({tuple(draw) for draw in rest}) > 1
  assert iterator.select() == list('abcdef')
  assert str(iterator.federated_type) == '{str}@CLIENTS'
  assert source.federated_type == iterator.federated_type


def test_impossible_draws_are_named():
  source = client_ids.SeededClientIdDataSource(['a', 'b'])
  with pytest.raises(ValueError, match=r'\[1, 2\], found 3'):
    source.iterator().select(3)
  with pytest.raises(ValueError, match='at least one client id'):
    client_ids.SeededClientIdDataSource([])
