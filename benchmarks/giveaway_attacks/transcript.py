"""What the server of a process receives from each client.

The server's own computations see sums. This computation has the same steps up
to what crosses from clients to the server, by the parts of the process itself,
and returns it client by client.
"""

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_fedsa import composer
from tff_fedsa.client import client_work as client_work_lib
from tff_fedsa.privacy import private_process
from tff_fedsa.server import averaging as averaging_lib


class Message(NamedTuple):
  """All that a client sends in a round.

  Attributes:
    update: `ClientOutput.update`: `ClassPrototypes`, or a `Record`.
    weights: float32[num_weights] of a method that averages weights, else `()`.
    num_examples: float32 scalar, the client's weight in a mean of weights.
    metrics: `ClientMetrics`.
  """

  update: Any
  weights: Any
  num_examples: Any
  metrics: Any


def build_transcript(
  process: composer.StatefulProcess,
  mechanism: private_process.Mechanism | None = None,
) -> tff.Computation:
  """Returns the computation of what clients send.

  Its type is `(<S@SERVER, {C}@CLIENTS, {E}@CLIENTS> -> <{C}@CLIENTS,
  {M}@CLIENTS>)`, of `process.next`'s server state, client states and examples,
  new client states and `Message`s.

  Args:
    process: Process made by `composer.compose_process`.
    mechanism: Mechanism of its differential privacy; None without.
  """
  parts = process.parts
  assert parts is not None
  server_type, clients_type, examples_type = (
    process.next.type_signature.parameter
  )
  output_type = parts.client_work.type_signature.result
  client_work, ends = parts.client_work, None
  if parts.averaging is not None:
    ends = averaging_lib.build_round_ends(
      parts.averaging, parts.initial_model_fn()
    )
    client_work = client_work_lib.wrap(
      client_work,
      ends.train,
      tff.types.to_type(
        (
          client_work.type_signature.parameter.broadcast,
          ends.take_apart.type_signature.result[1],
        )
      ),
    )

  @tff.tensorflow.computation(output_type)
  def message_of(output):
    update = output.update
    if mechanism is not None and mechanism.kind == 'central':
      # The aggregation clips at the client; the noise comes at the server.
      update = private_process.clip(
        private_process.Record(update.vectors, update.presence),
        clip_norm_of(mechanism, *update.vectors.shape),
      )
    weights, num_examples = (), output.num_examples
    if ends is not None:
      value = ends.weigh(output)
      weights, num_examples = value.value, value.weight
    elif mechanism is not None:
      num_examples = tf.constant(np.nan)  # No part of the message.
    return Message(update, weights, num_examples, output.metrics)

  @tff.federated_computation(server_type, clients_type, examples_type)
  def transcript(server_state, client_states, examples):
    model = server_state.model
    if ends is not None:
      model, weights = tff.federated_map(ends.take_apart, model)
    broadcast = parts.distributor.next(server_state.distributor, model).result
    if ends is not None:
      broadcast = tff.federated_zip(
        (broadcast, tff.federated_broadcast(weights))
      )
    outputs = tff.federated_map(
      client_work,
      (
        tff.federated_broadcast(server_state.round_num),
        broadcast,
        client_states,
        examples,
      ),
    )
    return outputs.client_state, tff.federated_map(message_of, outputs)

  return transcript


def clip_norm_of(
  mechanism: private_process.Mechanism, num_classes: int, dim: int
) -> float:
  """Returns the norm to which a mechanism clips records."""
  return mechanism.clip_norm or private_process.default_clip_norm(
    num_classes, dim
  )
