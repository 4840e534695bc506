"""Compresses the class means that clients send, and what they receive.

Data flow: client_work.py -> [this module] -> the factories of this package.

Up: a client sends the difference between its class means and a reference that
the server knows, too (`server_model.reference_of`): anchors, or the last global
prototypes or logits. The server decodes each client's message before its
aggregator sees it. So every aggregator works as before, also those that collect
messages, and secure sums do not apply.

Down: the server sends tables relative to what every client can know without a
message, also one that was absent in the last rounds: the initial anchors, which
follow from their seed, or zero. A client decodes them before it trains, and
both sides take the decoded tables as the reference of the way up.

The codecs are in `maths/codecs.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Annotated, Any, NamedTuple

from etils import epy
import numpy as np

from tff_fedsa import settings
from tff_fedsa.runs import errors

with epy.lazy_imports():
  import tensorflow as tf
  import tensorflow_federated as tff

  from tff_fedsa import composer
  from tff_fedsa.client import client_work as client_work_lib
  from tff_fedsa.maths import codecs
  from tff_fedsa.maths import prototypes
  from tff_fedsa.server import distribution
  from tff_fedsa.server import server_model

_RANDOM = ('uniform8', 'uniform4', 'sketch')
COMPRESSIONS = ('none', 'uniform8', 'uniform4', 'topk', 'sketch')


@dataclasses.dataclass(frozen=True)
class CompressionConfig(settings.Settings):
  """Compression of class means: what clients send, and what they receive.

  Attributes:
    compress: How clients send their class means, relative to what they
      received. none: float32; uniform8 and uniform4: each coordinate rounded at
      random to one of 256 or 16 steps between the least and the largest of its
      class; topk: the coordinates that differ most in each class; sketch: one
      bit per coordinate, the signs of each class after a random rotation
      (DRIVE). bytes_up_per_client tells the size. See docs/compression.md.
    compress_down: The same for the tables that clients receive: anchors
      (relative to the initial ones), prototypes, logits, heads.
      bytes_down_per_client tells the size.
    compress_fraction: Share of the coordinates of a class that are sent (topk),
      rounded up, in (0, 1].
    compress_seed: Seed of the rounding (uniform8, uniform4) and of the rotation
      (sketch), >= 0.
  """

  compress: Annotated[str, settings.OneOf(COMPRESSIONS)] = 'none'
  compress_down: Annotated[str, settings.OneOf(COMPRESSIONS)] = 'none'
  compress_fraction: Annotated[
    float, settings.Above(0.0), settings.AtMost(1.0)
  ] = 0.1
  compress_seed: Annotated[int, settings.AtLeast(0)] = 0

  @property
  def is_used(self) -> bool:
    return (self.compress, self.compress_down) != ('none', 'none')

  def without_effect(self) -> Mapping[str, str]:
    """Returns the fields that the other fields make pointless."""
    ways = (self.compress, self.compress_down)
    because = f'`compress`={ways[0]} and `compress_down`={ways[1]}'
    found = {}
    if 'topk' not in ways:
      found['compress_fraction'] = because
    if not set(ways) & set(_RANDOM):
      found['compress_seed'] = because
    return found


class Message(NamedTuple):
  """Class means as a client sends them.

  Attributes:
    vectors: Message of a codec, relative to the reference.
    weights: float32[num_classes], as in `ClassPrototypes`.
  """

  vectors: Any
  weights: Any


def compress(
  process: composer.StatefulProcess, config: CompressionConfig
) -> composer.StatefulProcess:
  """Returns a process of the same method that sends fewer bytes.

  Args:
    process: Process made by `composer.compose_process`. To compress the way up,
      its clients send `ClassPrototypes`.
    config: How messages are compressed.

  Raises:
    UserError: If clients of the process send anything else, or attack, or
      receive no tables.
  """
  if process.parts is None:
    raise errors.UserError('Expected a process of `compose_process`.')
  if config.compress != 'none':
    process = _compress_up(process, config)
  if config.compress_down != 'none':
    process = _compress_down(process, config)
  return process


def _compress_up(
  process: composer.StatefulProcess, config: CompressionConfig
) -> composer.StatefulProcess:
  parts = process.parts
  assert parts is not None
  if parts.attack is not None:
    raise errors.UserError(
      'Clients that attack send float32: expected no attack, or no compression.'
    )
  update_type = parts.client_work.type_signature.result.update
  if not prototypes.is_prototypes_type(update_type):
    raise errors.UserError(
      f'Compression needs clients that send class means, found {update_type}.'
    )
  num_classes, dim = update_type.vectors.shape
  codec = codecs.build_codec(config.compress, dim, config.compress_fraction)
  broadcast_type = parts.client_work.type_signature.parameter.broadcast

  def reference_of(broadcast):
    found = server_model.reference_of(broadcast)
    if found is None or found.shape != (num_classes, dim):
      return tf.zeros([num_classes, dim])
    return found

  def compressed(work, arguments):
    output = work(arguments)
    seed = tf.random.experimental.stateless_fold_in(
      tf.stack([config.compress_seed, arguments.round_num]),
      arguments.client_state.seed[1],
    )
    weights = output.update.weights
    relative = output.update.vectors - reference_of(arguments.broadcast)
    relative = tf.where(
      weights[:, tf.newaxis] > 0, relative, tf.zeros_like(relative)
    )
    message = Message(codec.encode(relative, seed), weights)
    return output._replace(update=message)

  client_work = client_work_lib.wrap(parts.client_work, compressed)
  message_type = client_work.type_signature.result.update

  @tff.tensorflow.computation(message_type, broadcast_type)
  def decode_message(message, broadcast):
    vectors = codec.decode(message.vectors) + reference_of(broadcast)
    return prototypes.ClassPrototypes(vectors, message.weights)

  aggregator = parts.aggregator

  @tff.federated_computation(
    aggregator.initialize.type_signature.result,
    tff.FederatedType(message_type, tff.CLIENTS),
    tff.FederatedType(broadcast_type, tff.CLIENTS),
  )
  def next_fn(state, messages, broadcast):
    decoded = tff.federated_map(decode_message, (messages, broadcast))
    if aggregator.is_weighted:
      return aggregator.next(state, decoded, broadcast)
    return aggregator.next(state, decoded)

  return composer.with_parts(
    process,
    client_work=client_work,
    aggregator=tff.templates.AggregationProcess(aggregator.initialize, next_fn),
    limits=dataclasses.replace(parts.limits, counts='weights'),
  )


def _compress_down(
  process: composer.StatefulProcess, config: CompressionConfig
) -> composer.StatefulProcess:
  parts = process.parts
  assert parts is not None
  if not isinstance(parts.distributor, distribution.Distributor):
    raise errors.UserError(
      'Expected a distributor of `distribution.build_distributor`.'
    )
  work_type = parts.client_work.type_signature.parameter
  broadcast_type = work_type.broadcast
  leaves = [_Table.of(t, config) for t in tff.structure.flatten(broadcast_type)]
  if not any(leaves):
    raise errors.UserError(
      '`compress_down` needs tables that the server sends, found '
      f'{broadcast_type}.'
    )
  initial = parts.initial_model_fn()
  reference: Any = 0.0
  if isinstance(broadcast_type, tff.TensorType) and hasattr(initial, 'anchors'):
    reference = np.asarray(initial.anchors)

  @tff.tensorflow.computation(np.int32, broadcast_type)
  def encode(num_rounds, broadcast):
    seed = tf.stack([config.compress_seed, num_rounds])
    sent = []
    for index, (table, leaf) in enumerate(zip(leaves, _leaves(broadcast))):
      # Client ids are from 0 on.
      own = tf.random.experimental.stateless_fold_in(seed, -1 - index)
      sent.append(
        leaf if table is None else table.encode(leaf - reference, own)
      )
    return num_rounds + 1, tuple(sent)

  message_type = encode.type_signature.result[1]

  @tff.tensorflow.computation
  def no_rounds():
    return tf.constant(0)

  select = parts.distributor.select

  @tff.federated_computation(
    tff.FederatedType(np.int32, tff.SERVER), select.type_signature.parameter
  )
  def distribute(num_rounds, model):
    num_rounds, message = tff.federated_map(encode, (num_rounds, select(model)))
    return tff.templates.MeasuredProcessOutput(
      num_rounds,
      tff.federated_broadcast(message),
      tff.federated_value((), tff.SERVER),
    )

  @tff.federated_computation
  def initialize():
    return tff.federated_eval(no_rounds, tff.SERVER)

  @tff.tensorflow.computation(broadcast_type)
  def same(broadcast):
    return broadcast

  def decode(message):
    decoded: Any = [
      leaf if table is None else table.decode(leaf) + reference
      for table, leaf in zip(leaves, message)
    ]
    return tff.structure.pack_sequence_as(broadcast_type, decoded)

  client_work = client_work_lib.wrap(
    parts.client_work,
    lambda work, arguments: work(
      arguments._replace(broadcast=same(decode(arguments.broadcast)))
    ),
    broadcast_type=message_type,
  )
  changes = {'client_work': client_work}
  aggregator = parts.aggregator
  if aggregator.is_weighted:

    @tff.tensorflow.computation(message_type)
    def decode_message(message):
      return same(decode(message))

    @tff.federated_computation(
      aggregator.initialize.type_signature.result,
      aggregator.next.type_signature.parameter[1],
      tff.FederatedType(message_type, tff.CLIENTS),
    )
    def next_fn(state, updates, messages):
      return aggregator.next(
        state, updates, tff.federated_map(decode_message, messages)
      )

    changes['aggregator'] = tff.templates.AggregationProcess(
      aggregator.initialize, next_fn
    )
  return composer.with_parts(
    process,
    distributor=tff.learning.templates.DistributionProcess(
      initialize, distribute
    ),
    **changes,
  )


def _leaves(value: Any) -> list[Any]:
  """Returns the tensors of a structure in the order of its type."""
  if isinstance(value, tf.Tensor):
    return [value]
  return tff.structure.flatten(
    tff.structure.from_container(value, recursive=True)
  )


class _Table(NamedTuple):
  """How a tensor of rank 2 or more is sent: as rows of its last axis."""

  shape: tuple[int, ...]
  codec: codecs.Codec

  @classmethod
  def of(cls, leaf_type: tff.Type, config: CompressionConfig) -> _Table | None:
    """Returns None for what is sent as it is."""
    shape = leaf_type.shape
    if leaf_type.dtype != np.float32 or len(shape) < 2 or None in shape:
      return None
    return cls(
      tuple(shape),
      codecs.build_codec(
        config.compress_down, shape[-1], config.compress_fraction
      ),
    )

  def encode(self, table: tf.Tensor, seed: tf.Tensor) -> Any:
    return self.codec.encode(tf.reshape(table, [-1, self.shape[-1]]), seed)

  def decode(self, message: Any) -> tf.Tensor:
    return tf.reshape(self.codec.decode(message), self.shape)
