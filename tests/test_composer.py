"""The composer with parts small enough for mental arithmetic."""

import collections
from typing import Any, NamedTuple

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tff_fedsa import composer
from tff_fedsa.client import client_work as client_work_lib
from tff_fedsa.server import distribution
from tff_fedsa.server import finalizers

pytestmark = pytest.mark.usefixtures('in_process_context')


class _Model(NamedTuple):
  total: Any


_MODEL_TYPE = tff.types.to_type(_Model(tff.TensorType(np.float32)))
_UPDATE_TYPE = tff.TensorType(np.float32)


def _client_work(broadcast_type=_MODEL_TYPE, update_fn=lambda update: update):
  """A client sends `model * sum(examples) + round`; its state counts rounds."""

  @tff.tensorflow.computation(
    collections.OrderedDict(
      round_num=tff.TensorType(np.int32),
      broadcast=broadcast_type,
      client_state=tff.TensorType(np.int32),
      examples=tff.TensorType(np.float32, (None,)),
    )
  )
  def work(arguments):
    (factor,) = tf.nest.flatten(arguments['broadcast'])
    total = tf.reduce_sum(arguments['examples'])
    update = factor * total + tf.cast(arguments['round_num'], tf.float32)
    count = tf.size(arguments['examples'])
    return client_work_lib.ClientOutput(
      client_state=arguments['client_state'] + 1,
      update=update_fn(update),
      num_examples=tf.cast(count, tf.float32),
      metrics=client_work_lib.ClientMetrics(
        sums=collections.OrderedDict(loss=total, gap=tf.constant(0.0)),
        weights=collections.OrderedDict(
          loss=tf.cast(count, tf.float32), gap=tf.constant(0.0)
        ),
        totals=collections.OrderedDict(examples=count),
      ),
    )

  return work


def _aggregator(value_type=_UPDATE_TYPE):
  return tff.aggregators.SumFactory().create(value_type)


def _finalizer(model_type=_MODEL_TYPE, update_type=_UPDATE_TYPE):
  return finalizers.build_finalizer(
    model_type,
    update_type,
    lambda model, update: _Model(model.total + update),
  )


def _parts(**changes):
  return {
    'initial_model_fn': lambda: _Model(np.float32(2.0)),
    'distributor': distribution.build_distributor(_MODEL_TYPE),
    'client_work': _client_work(),
    'aggregator': _aggregator(),
    'finalizer': _finalizer(),
    **changes,
  }


@pytest.fixture(scope='module')
def process():
  return composer.compose_process(**_parts())


def test_two_rounds_by_hand(process):
  state = process.initialize()
  assert (state.round_num, state.model.total) == (0, 2.0)
  examples = [np.array(x, np.float32) for x in ([1, 2, 3], [4])]
  output = process.next(state, [10, 20], examples)
  # 2 + (2·6 + 0) + (2·4 + 0) = 22.
  assert (output.state.round_num, output.state.model.total) == (1, 22.0)
  assert list(output.result) == [11, 21]
  assert dict(output.measurements['client_work']) == {
    'loss': 10 / 4,  # of all examples, not of clients
    'gap': 0.0,  # that nobody measured
    'examples': 4,
  }
  assert list(output.measurements) == [
    'distributor',
    'client_work',
    'screening',
    'aggregator',
    'finalizer',
  ]
  assert output.measurements['finalizer'] == {'server_nonfinite': 0}
  output = process.next(output.state, output.result[1:], examples[1:])
  # 22 + (22·4 + 1): the second round's number is 1.
  assert (output.state.round_num, output.state.model.total) == (2, 111.0)
  assert list(output.result) == [22]


def test_types_of_messages(process):
  assert process.broadcast_type.is_equivalent_to(_MODEL_TYPE)
  assert process.update_type.is_equivalent_to(_UPDATE_TYPE)
  assert process.server_model_type.is_equivalent_to(_MODEL_TYPE)
  assert not process.averages_weights
  # The same parts make the same process.
  again = composer.compose_process(*process.parts)
  assert again.next.type_signature == process.next.type_signature


_VECTOR = tff.TensorType(np.float32, (3,))
_INTEGER_MODEL = tff.types.to_type(_Model(tff.TensorType(np.int32)))


@pytest.mark.parametrize(
  'changes, taker, giver, taken, given',
  [
    (
      lambda: {'initial_model_fn': lambda: _Model(np.int32(2))},
      'distributor',
      'the initial model',
      '<total=float32>',
      '<total=int32>',
    ),
    (
      lambda: {'client_work': _client_work(tff.TensorType(np.float32))},
      'client work',
      'the distributor',
      'float32',
      '<total=float32>',
    ),
    (
      lambda: {'aggregator': _aggregator(_VECTOR)},
      'aggregator',
      'the client work',
      r'float32\[3\]',
      'float32',
    ),
    (
      lambda: {
        'finalizer': finalizers.build_finalizer(
          _INTEGER_MODEL, _UPDATE_TYPE, lambda model, update: model
        )
      },
      'finalizer',
      'the initial model',
      '<total=int32>',
      '<total=float32>',
    ),
    (
      lambda: {
        'client_work': _client_work(update_fn=lambda x: tf.stack([x] * 3)),
        'aggregator': _aggregator(_VECTOR),
      },
      'finalizer',
      'the aggregator',
      'float32',
      r'float32\[3\]',
    ),
  ],
)
def test_parts_that_do_not_fit_are_named(changes, taker, giver, taken, given):
  message = (
    f'^The {taker} does not fit {giver}: it takes\n{taken}\nbut gets\n{given}.$'
  )
  with pytest.raises(TypeError, match=message):
    composer.compose_process(**_parts(**changes()))


def test_only_composed_processes_are_averaged(process):
  other = composer.StatefulProcess(
    process.initialize,
    process.next,
    broadcast_type=process.broadcast_type,
    update_type=process.update_type,
  )
  with pytest.raises(ValueError, match='process of `compose_process` that'):
    composer.with_averaging(other, averaging=None)


def test_deferred_processes_are_composed_on_first_use(monkeypatch):
  composed = []
  compose = composer._compose

  def counted(*arguments):
    composed.append(arguments)
    return compose(*arguments)

  monkeypatch.setattr(composer, '_compose', counted)
  with composer.deferred():
    process = composer.compose_process(**_parts())
    assert not process.averages_weights and not composed
    # Parts are checked nevertheless.
    with pytest.raises(TypeError, match='does not fit the client work'):
      composer.compose_process(**_parts(aggregator=_aggregator(_VECTOR)))
  assert process.next is process.next and len(composed) == 1
  at_once = composer.compose_process(**_parts())
  assert len(composed) == 2
  assert process.next.type_signature == at_once.next.type_signature
  with pytest.raises(AttributeError, match='nothing'):
    _ = process.nothing
