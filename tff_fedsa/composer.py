"""The one composer: four parts of a method and client states -> a process."""

import collections
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff


class ServerState(NamedTuple):
  """State of a composed process at the server.

  Attributes:
    round_num: int32 scalar, rounds done.
    model: What the method's server knows (see `server_model`).
    distributor: State of the distribution process.
    aggregator: State of the aggregation process.
    finalizer: State of the finalizer.
  """

  round_num: Any
  model: Any
  distributor: Any
  aggregator: Any
  finalizer: Any


class StatefulProcess(tff.templates.MeasuredProcess):
  """A `MeasuredProcess` with client states that says what crosses.

  Attributes:
    broadcast_type: Unplaced type of what a client receives in a round.
    update_type: Unplaced type of what a client sends in a round.
    server_model_type: Unplaced type of `ServerState.model`.
  """

  def __init__(
    self,
    initialize_fn: tff.Computation,
    next_fn: tff.Computation,
    *,
    broadcast_type: tff.Type,
    update_type: tff.Type,
  ):
    super().__init__(initialize_fn, next_fn, next_is_multi_arg=True)
    self.broadcast_type = broadcast_type
    self.update_type = update_type
    self.server_model_type = initialize_fn.type_signature.result.member.model


def compose_process(
  initial_model_fn: Callable[[], Any],
  distributor: tff.learning.templates.DistributionProcess,
  client_work: tff.Computation,
  aggregator: tff.templates.AggregationProcess,
  finalizer: tff.learning.templates.FinalizerProcess,
) -> StatefulProcess:
  """Composes a process whose clients have a state of their own.

  One round, top to bottom:

  ```
                 ServerState.model                  client states, examples
                         │                                     │
                 ┌───────▼───────┐                             │
                 │  distributor  │                             │
                 └───────┬───────┘                             │
  SERVER                 │ broadcast                           │
  ───────────────────────┼─────────────────────────────────────┼────────────
  CLIENTS                │        ┌─────────────┐              │
                         └───────►│ client work │◄─────────────┘
                                  └┬─────┬─────┬┘
              update               │     │     └──► new client states
  ─────────────────────────────────┼─────┼──────────────────────────────────
  SERVER         ┌─────────────┐   │     │ metrics
                 │ aggregator  │◄──┘     └──► sums over clients
                 └───────┬─────┘
                 ┌───────▼─────┐
                 │  finalizer  │◄── ServerState.model
                 └───────┬─────┘
                         ▼
                 new ServerState.model
  ```

  The process is TFF's own convention for stateful clients:

  - `initialize`: `( -> S@SERVER)`, `S` being a `ServerState`.
  - `next`: `(<S@SERVER, {C}@CLIENTS, {E}@CLIENTS> -> <state=S@SERVER,
    result={C}@CLIENTS, measurements=M@SERVER>)`, `C` being
    `client_state.ClientState` and `E` a client's stacked examples. `M` is
    `<distributor, client_work, aggregator, finalizer>`.

  The server's computation sees the aggregate of the updates and sums of
  metrics, never a client's state or update.

  Args:
    initial_model_fn: Returns the server's initial model (NumPy or tensors).
    distributor: Sends (a part of) the model to clients.
    client_work: See `client_work.build_client_work`.
    aggregator: Aggregates `ClientOutput.update`.
    finalizer: Updates the model with the aggregate.

  Raises:
    TypeError: If the parts do not fit; the message names the two and shows
      both types.
  """
  work_type = client_work.type_signature.parameter
  output_type = client_work.type_signature.result

  @tff.tensorflow.computation
  def initial_model():
    return tf.nest.map_structure(tf.constant, initial_model_fn())

  model_type = initial_model.type_signature.result
  _check_fit(
    'distributor',
    distributor.next.type_signature.parameter[1].member,
    'the initial model',
    model_type,
  )
  _check_fit(
    'client work',
    work_type.broadcast,
    'the distributor',
    distributor.next.type_signature.result.result.member,
  )
  _check_fit(
    'aggregator',
    aggregator.next.type_signature.parameter[1].member,
    'the client work',
    output_type.update,
  )
  _check_fit(
    'finalizer',
    finalizer.next.type_signature.parameter[1].member,
    'the initial model',
    model_type,
  )
  _check_fit(
    'finalizer',
    finalizer.next.type_signature.parameter[2].member,
    'the aggregator',
    aggregator.next.type_signature.result.result.member,
  )

  @tff.tensorflow.computation
  def zero_rounds():
    return tf.constant(0, tf.int32)

  @tff.tensorflow.computation(np.int32)
  def one_round_more(round_num):
    return round_num + 1

  @tff.tensorflow.computation(output_type.metrics)
  def finish_metrics(metrics):
    means = collections.OrderedDict(
      (name, tf.math.divide_no_nan(metrics.sums[name], metrics.weights[name]))
      for name in metrics.sums
    )
    means.update(metrics.totals)
    return means

  @tff.federated_computation
  def initialize_fn():
    return tff.federated_zip(
      ServerState(
        round_num=tff.federated_eval(zero_rounds, tff.SERVER),
        model=tff.federated_eval(initial_model, tff.SERVER),
        distributor=distributor.initialize(),
        aggregator=aggregator.initialize(),
        finalizer=finalizer.initialize(),
      )
    )

  @tff.federated_computation(
    initialize_fn.type_signature.result,
    tff.FederatedType(work_type.client_state, tff.CLIENTS),
    tff.FederatedType(work_type.examples, tff.CLIENTS),
  )
  def next_fn(server_state, client_states, examples):
    distribution = distributor.next(
      server_state.distributor, server_state.model
    )
    outputs = tff.federated_map(
      client_work,
      (
        tff.federated_broadcast(server_state.round_num),
        distribution.result,
        client_states,
        examples,
      ),
    )
    aggregation = aggregator.next(server_state.aggregator, outputs.update)
    finalization = finalizer.next(
      server_state.finalizer, server_state.model, aggregation.result
    )
    metrics = tff.federated_map(
      finish_metrics, tff.federated_sum(outputs.metrics)
    )
    new_state = ServerState(
      round_num=tff.federated_map(one_round_more, server_state.round_num),
      model=finalization.result,
      distributor=distribution.state,
      aggregator=aggregation.state,
      finalizer=finalization.state,
    )
    measurements = collections.OrderedDict(
      distributor=distribution.measurements,
      client_work=metrics,
      aggregator=aggregation.measurements,
      finalizer=finalization.measurements,
    )
    return tff.templates.MeasuredProcessOutput(
      state=tff.federated_zip(new_state),
      result=outputs.client_state,
      measurements=tff.federated_zip(measurements),
    )

  return StatefulProcess(
    initialize_fn,
    next_fn,
    broadcast_type=work_type.broadcast,
    update_type=output_type.update,
  )


def _check_fit(taker, taken_type, giver, given_type):
  if not taken_type.is_assignable_from(given_type):
    raise TypeError(
      f'The {taker} does not fit {giver}: it takes\n{taken_type}\nbut gets\n'
      f'{given_type}.'
    )
