"""Compresses the class means that clients send.

Data flow: client_work.py -> [this module] -> the factories of this package.

A client sends the difference between its class means and a reference that the
server knows, too (`server_model.reference_of`): anchors, or the last global
prototypes or logits. The server decodes each client's message before its
aggregator sees it. So every aggregator works as before, also those that collect
messages, and secure sums do not apply.

Sources: stochastic uniform quantization, Alistarh et al., QSGD, NeurIPS 2017;
sparse updates, Aji and Heafield, EMNLP 2017 (here without memory of what was
left out, because a class mean is sent anew in each round).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import dataclasses
from typing import Annotated, Any, NamedTuple

from etils import epy

from tff_fedsa import settings
from tff_fedsa.runs import errors

with epy.lazy_imports():
  import tensorflow as tf
  import tensorflow_federated as tff

  from tff_fedsa import composer
  from tff_fedsa.client import client_work as client_work_lib
  from tff_fedsa.maths import prototypes
  from tff_fedsa.server import server_model

_BITS = {'uniform8': 8, 'uniform4': 4}
COMPRESSIONS = ('none', *_BITS, 'topk')


@dataclasses.dataclass(frozen=True)
class CompressionConfig(settings.Settings):
  """Compression of the class means that clients send.

  Attributes:
    compress: How clients send their class means, relative to what they
      received. none: float32; uniform8 and uniform4: each coordinate rounded at
      random to one of 256 or 16 steps between the least and the largest of its
      class; topk: the coordinates that differ most in each class.
      bytes_up_per_client tells the size. See docs/compression.md.
    compress_fraction: Share of the coordinates of a class that are sent (topk),
      rounded up, in (0, 1].
    compress_seed: Seed of the rounding (uniform8, uniform4), >= 0.
  """

  compress: Annotated[str, settings.OneOf(COMPRESSIONS)] = 'none'
  compress_fraction: Annotated[
    float, settings.Above(0.0), settings.AtMost(1.0)
  ] = 0.1
  compress_seed: Annotated[int, settings.AtLeast(0)] = 0

  def without_effect(self) -> Mapping[str, str]:
    """Returns the fields that the other fields make pointless."""
    because = f'`compress`={self.compress}'
    found = {}
    if self.compress != 'topk':
      found['compress_fraction'] = because
    if self.compress not in _BITS:
      found['compress_seed'] = because
    return found


class Quantized(NamedTuple):
  """Class means in few bits.

  Attributes:
    codes: uint8[num_classes, ceil(dim * bits / 8)], steps above `least`. With 4
      bits, the first half of the coordinates is in the high bits.
    least: float32[num_classes], the least coordinate.
    step: float32[num_classes], >= 0.
    weights: float32[num_classes], as in `ClassPrototypes`.
  """

  codes: Any
  least: Any
  step: Any
  weights: Any


class Sparse(NamedTuple):
  """Some coordinates of class means.

  Attributes:
    values: float32[num_classes, kept].
    places: uint16[num_classes, kept], which coordinates.
    weights: float32[num_classes], as in `ClassPrototypes`.
  """

  values: Any
  places: Any
  weights: Any


def quantize(
  vectors: tf.Tensor, weights: tf.Tensor, bits: int, seed: tf.Tensor
) -> Quantized:
  """Rounds vectors at random; the mean over seeds is exact.

  Args:
    vectors: float32[num_classes, dim].
    weights: float32[num_classes].
    bits: 8 or 4.
    seed: int32[2].
  """
  least = tf.reduce_min(vectors, axis=1)
  step = (tf.reduce_max(vectors, axis=1) - least) / (2**bits - 1)
  steps = tf.math.divide_no_nan(
    vectors - least[:, tf.newaxis], step[:, tf.newaxis]
  )
  drawn = tf.random.stateless_uniform(tf.shape(vectors), seed)
  codes = tf.clip_by_value(tf.floor(steps + drawn), 0.0, 2**bits - 1.0)
  codes = tf.cast(codes, tf.uint8)
  if bits == 4:
    half = -(-vectors.shape[1] // 2)
    high, low = codes[:, :half], codes[:, half:]
    low = tf.pad(low, [[0, 0], [0, 2 * half - vectors.shape[1]]])
    codes = tf.bitwise.bitwise_or(tf.bitwise.left_shift(high, _four()), low)
  return Quantized(codes, least, step, weights)


def dequantize(message: Quantized, dim: int, bits: int) -> tf.Tensor:
  """Returns the vectors of a message, float32[num_classes, dim]."""
  codes = message.codes
  if bits == 4:
    low = tf.bitwise.bitwise_and(codes, tf.constant(15, tf.uint8))
    codes = tf.concat([tf.bitwise.right_shift(codes, _four()), low], axis=1)
  steps = tf.cast(codes[:, :dim], tf.float32)
  return message.least[:, tf.newaxis] + steps * message.step[:, tf.newaxis]


def sparsify(vectors: tf.Tensor, weights: tf.Tensor, kept: int) -> Sparse:
  """Keeps the largest coordinates of each class.

  Args:
    vectors: float32[num_classes, dim].
    weights: float32[num_classes].
    kept: Coordinates to keep, in [1, dim].
  """
  places = tf.math.top_k(tf.abs(vectors), kept).indices
  values = tf.gather(vectors, places, axis=1, batch_dims=1)
  return Sparse(values, tf.cast(places, tf.uint16), weights)


def densify(message: Sparse, dim: int) -> tf.Tensor:
  """Returns the vectors of a message, with zeros where nothing was sent."""
  chosen = tf.one_hot(tf.cast(message.places, tf.int32), dim)
  return tf.einsum('ckd,ck->cd', chosen, message.values)


def compress(
  process: composer.StatefulProcess, config: CompressionConfig
) -> composer.StatefulProcess:
  """Returns a process of the same method whose clients send fewer bytes.

  Args:
    process: Process of a method whose clients send `ClassPrototypes`, made by
      `composer.compose_process`.
    config: How messages are compressed; not `none`.

  Raises:
    UserError: If clients of the process send anything else, or attack.
  """
  parts = process.parts
  if parts is None or parts.attack is not None:
    raise errors.UserError(
      'Expected a process of `compose_process` without attackers.'
    )
  update_type = parts.client_work.type_signature.result.update
  if not prototypes.is_prototypes_type(update_type):
    raise errors.UserError(
      f'Compression needs clients that send class means, found {update_type}.'
    )
  num_classes, dim = update_type.vectors.shape
  encode, decode = _codec(config, dim)
  work_type = parts.client_work.type_signature.parameter

  def reference_of(broadcast):
    found = server_model.reference_of(broadcast)
    if found is None or found.shape != (num_classes, dim):
      return tf.zeros([num_classes, dim])
    return found

  @tff.tensorflow.computation(work_type)
  def client_work(arguments):
    values = [arguments[name] for name in client_work_lib.ARGUMENTS]
    output = parts.client_work(*values)
    round_num, broadcast, client_state, _ = values
    seed = tf.random.experimental.stateless_fold_in(
      tf.stack([config.compress_seed, round_num]), client_state.seed[1]
    )
    weights = output.update.weights
    relative = output.update.vectors - reference_of(broadcast)
    relative = tf.where(
      weights[:, tf.newaxis] > 0, relative, tf.zeros_like(relative)
    )
    return output._replace(update=encode(relative, weights, seed))

  message_type = client_work.type_signature.result.update

  @tff.tensorflow.computation(message_type, work_type.broadcast)
  def decode_message(message, broadcast):
    return prototypes.ClassPrototypes(
      decode(message) + reference_of(broadcast), message.weights
    )

  aggregator = parts.aggregator

  @tff.federated_computation(
    aggregator.initialize.type_signature.result,
    tff.FederatedType(message_type, tff.CLIENTS),
    tff.FederatedType(work_type.broadcast, tff.CLIENTS),
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


def _codec(
  config: CompressionConfig, dim: int
) -> tuple[Callable[..., Any], Callable[[Any], tf.Tensor]]:
  """Returns `fn(vectors, weights, seed) -> message` and its inverse."""
  if config.compress == 'topk':
    kept = max(1, int(-(-round(config.compress_fraction * dim, 9) // 1)))
    return (
      lambda vectors, weights, seed: sparsify(vectors, weights, kept),
      lambda message: densify(message, dim),
    )
  bits = _BITS[config.compress]
  return (
    lambda vectors, weights, seed: quantize(vectors, weights, bits, seed),
    lambda message: dequantize(message, dim, bits),
  )


def _four() -> tf.Tensor:
  return tf.constant(4, tf.uint8)
