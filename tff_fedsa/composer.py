"""The composer: joins the parts of a method into one process."""

import collections
from collections.abc import Callable
import dataclasses
from typing import Any, NamedTuple, Optional

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_fedsa.aggregation import screening
from tff_fedsa.client import attacks
from tff_fedsa.models import tiers as tiers_lib
from tff_fedsa.runs import errors
from tff_fedsa.server import averaging as averaging_lib


class ServerState(NamedTuple):
  """State of a composed process at the server.

  Attributes:
    round_num: int32 scalar, rounds done.
    model: Server model of the method (see `server_model`); with averaging,
      its field `weights` are the averaged ones of all tiers.
    distributor: State of the distribution process.
    aggregator: State of the aggregation process.
    finalizer: State of the finalizer.
    averager: State of the aggregation of weights, `()` without averaging.
  """

  round_num: Any
  model: Any
  distributor: Any
  aggregator: Any
  finalizer: Any
  averager: Any = ()


class Parts(NamedTuple):
  """The arguments of `compose_process`."""

  initial_model_fn: Callable[[], Any]
  distributor: tff.learning.templates.DistributionProcess
  client_work: tff.Computation
  aggregator: tff.templates.AggregationProcess
  finalizer: tff.learning.templates.FinalizerProcess
  averaging: Optional[averaging_lib.WeightAveraging] = None
  limits: screening.Limits = screening.UNKNOWN
  attack: Optional[attacks.Attack] = None


class _Message(NamedTuple):
  """All that a client sends.

  Attributes:
    update: `ClientOutput.update`.
    weights: `WeightedValue` of its weights with averaging, else `()`.
    metrics: `ClientMetrics`.
  """

  update: Any
  weights: Any
  metrics: Any


class StatefulProcess(tff.templates.MeasuredProcess):
  """A `MeasuredProcess` with client states and the types of its messages.

  Attributes:
    broadcast_type: Unplaced type of what a client receives in a round; with
      several tiers, the length of shared weights is unknown.
    update_type: Unplaced type of the message from a client.
    server_model_type: Unplaced type of `ServerState.model`.
    parts: Parts of a composed process; None for others.
  """

  def __init__(
    self,
    initialize_fn: tff.Computation,
    next_fn: tff.Computation,
    *,
    broadcast_type: tff.Type,
    update_type: tff.Type,
    parts: Optional[Parts] = None,
  ):
    super().__init__(initialize_fn, next_fn, next_is_multi_arg=True)
    self.broadcast_type = broadcast_type
    self.update_type = update_type
    self.server_model_type = initialize_fn.type_signature.result.member.model
    self.parts = parts

  @property
  def averages_weights(self) -> bool:
    """True if clients begin a round with averaged weights."""
    return tff.structure.has_field(self.server_model_type, 'weights')

  @property
  def tiers(self) -> Optional[tiers_lib.Tiers]:
    """What clients of each architecture share; None if nothing."""
    averaging = None if self.parts is None else self.parts.averaging
    return None if averaging is None else averaging.tiers


def compose_process(
  initial_model_fn: Callable[[], Any],
  distributor: tff.learning.templates.DistributionProcess,
  client_work: tff.Computation,
  aggregator: tff.templates.AggregationProcess,
  finalizer: tff.learning.templates.FinalizerProcess,
  averaging: Optional[averaging_lib.WeightAveraging] = None,
  limits: screening.Limits = screening.UNKNOWN,
  attack: Optional[attacks.Attack] = None,
) -> StatefulProcess:
  """Composes a process for clients with states.

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
                                  ┌▼─────▼┐
                                  │ check │──► who was turned away, and why
                                  └┬─────┬┘
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

  With `averaging`, the server's model has one more field, `weights`: clients
  begin the round with those of their architecture (tier) in place of their own,
  and the mean over a tier's participants takes their place.

  The process follows TFF's convention for stateful clients:

  - `initialize`: `( -> S@SERVER)`, `S` being a `ServerState`.
  - `next`: `(<S@SERVER, {C}@CLIENTS, {E}@CLIENTS> -> <state=S@SERVER,
    result={C}@CLIENTS, measurements=M@SERVER>)`, `C` being
    `client_state.ClientState` and `E` a client's stacked examples. `M` is
    `<distributor, client_work, screening, aggregator, finalizer>`, and
    `averager` with averaging.

  A client whose update, weights or metrics no honest client can have sent (see
  `screening`) takes no part in the round: zeros take the place of all that it
  sent. `screening` counts and names these clients.

  The server's computation sees the aggregate of updates (and of weights) and
  sums of metrics. It never sees a client's state or update.

  Args:
    initial_model_fn: Returns the server's initial model (NumPy or tensors).
    distributor: Sends (a part of) the model to clients.
    client_work: See `client_work.build_client_work`.
    aggregator: Aggregates `ClientOutput.update`. One that takes a third
      argument gets what the clients received, as a public reference.
    finalizer: Updates the model with the aggregate.
    averaging: Averages the clients' weights, see `averaging`. Without it,
      weights never leave the clients.
    limits: Largest weights and counts of an update.
    attack: Simulated attackers among the clients. Default: none.

  Raises:
    TypeError: If two parts do not fit. The message names both and shows their
      types.
  """
  parts = Parts(
    initial_model_fn,
    distributor,
    client_work,
    aggregator,
    finalizer,
    averaging,
    limits,
    attack,
  )
  if attack is not None and attack.config.attack == 'label_flip':
    client_work = attacks.with_flipped_labels(client_work, attack, _client_id)
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
  if aggregator.is_weighted:
    _check_fit(
      'aggregator',
      aggregator.next.type_signature.parameter[2].member,
      'the distributor',
      work_type.broadcast,
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

  broadcast_type, update_type = work_type.broadcast, output_type.update
  if averaging is not None:
    # The parts of the method take the method's own model, as checked above.
    ends = averaging_lib.build_round_ends(
      averaging, initial_model_fn(), work_type.client_state
    )
    initial_model = ends.initial_model
    broadcast_type = tff.types.to_type(
      (broadcast_type, averaging.tiers.message_type)
    )
    update_type = tff.types.to_type((update_type, averaging.update_type))

  @tff.tensorflow.computation
  def zero_rounds():
    return tf.constant(0, tf.int32)

  @tff.tensorflow.computation(np.int32)
  def one_round_more(round_num):
    return round_num + 1

  weights_limits = dataclasses.replace(
    limits, weighting=averaging.weighting if averaging else None
  )

  def fault_of(message):
    reasons = [
      screening.fault(message.update, limits),
      screening.metrics_fault(message.metrics, limits),
    ]
    if averaging is not None:
      reasons.append(screening.fault(message.weights, weights_limits))
    # The first one counts.
    found = reasons[-1]
    for reason in reasons[-2::-1]:
      found = tf.where(reason > 0, reason, found)
    return found

  def prepare_fn(output):
    weights = ends.weigh(output) if averaging is not None else ()
    return (
      _Message(
        screening.clean(output.update, limits),
        screening.clean(weights, limits) if averaging is not None else (),
        output.metrics,
      ),
      _client_id(output.client_state),
    )

  def check_fn(message, client_id):
    screened = screening.screen(message, fault_of)
    value = screened.value
    if hasattr(message.weights, 'tier'):
      # The server knows it, whatever a client sends.
      weights = value.weights._replace(tier=message.weights.tier)
      value = value._replace(weights=weights)
    return value, collections.OrderedDict(id=client_id, reason=screened.reason)

  if attack is None:
    # One computation in place of two is faster.
    prepare_and_check = tff.tensorflow.computation(
      lambda output: check_fn(*prepare_fn(output)), output_type
    )
  else:
    prepare = tff.tensorflow.computation(prepare_fn, output_type)
    prepared_type = prepare.type_signature.result
    check = tff.tensorflow.computation(
      lambda prepared: check_fn(*prepared), prepared_type
    )
    forgery = attacks.build_forgery(attack, prepared_type)

  count_rejected = screening.build_count()

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
        averager=(
          averaging.aggregator.initialize()
          if averaging
          else tff.federated_value((), tff.SERVER)
        ),
      )
    )

  @tff.federated_computation(
    initialize_fn.type_signature.result,
    tff.FederatedType(work_type.client_state, tff.CLIENTS),
    tff.FederatedType(work_type.examples, tff.CLIENTS),
  )
  def next_fn(server_state, client_states, examples):
    model, averager = server_state.model, server_state.averager
    if averaging is not None:
      model, client_states = ends.begin(model, client_states)
    distribution = distributor.next(server_state.distributor, model)
    outputs = tff.federated_map(
      client_work,
      (
        tff.federated_broadcast(server_state.round_num),
        distribution.result,
        client_states,
        examples,
      ),
    )
    if attack is None:
      messages, verdicts = tff.federated_map(prepare_and_check, outputs)
    else:
      prepared = tff.federated_map(prepare, outputs)
      messages, verdicts = tff.federated_map(
        check, forgery(server_state.round_num, prepared)
      )
    rejected = count_rejected.next(count_rejected.initialize(), verdicts)
    sent = [messages.update]
    if aggregator.is_weighted:
      sent.append(distribution.result)
    aggregation = aggregator.next(server_state.aggregator, *sent)
    finalization = finalizer.next(
      server_state.finalizer, model, aggregation.result
    )
    metrics = tff.federated_map(
      finish_metrics, tff.federated_sum(messages.metrics)
    )
    measurements = collections.OrderedDict(
      distributor=distribution.measurements,
      client_work=metrics,
      screening=rejected.result,
      aggregator=aggregation.measurements,
      finalizer=finalization.measurements,
    )
    model = finalization.result
    if averaging is not None:
      averaged = ends.end(
        averager,
        server_state.model,
        model,
        messages.weights,
      )
      averager, model = averaged.state, averaged.result
      measurements['averager'] = averaged.measurements
    new_state = ServerState(
      round_num=tff.federated_map(one_round_more, server_state.round_num),
      model=model,
      distributor=distribution.state,
      aggregator=aggregation.state,
      finalizer=finalization.state,
      averager=averager,
    )
    return tff.templates.MeasuredProcessOutput(
      state=tff.federated_zip(new_state),
      result=outputs.client_state,
      measurements=tff.federated_zip(measurements),
    )

  return StatefulProcess(
    initialize_fn,
    next_fn,
    broadcast_type=broadcast_type,
    update_type=update_type,
    parts=parts,
  )


def with_averaging(
  process: StatefulProcess, averaging: averaging_lib.WeightAveraging
) -> StatefulProcess:
  """Returns a process of the same parts that also averages weights.

  Args:
    process: Result of `compose_process`.
    averaging: Averaging made by `averaging.build_weight_averaging`, for the
      same models.

  Raises:
    ValueError: If the process was not composed here, or averages weights
      already.
  """
  if process.parts is None or process.parts.averaging is not None:
    raise errors.UserError(
      'Expected a process of `compose_process` that averages no weights.'
    )
  return compose_process(*process.parts._replace(averaging=averaging))


def with_parts(process: StatefulProcess, **changes: Any) -> StatefulProcess:
  """Returns a process of which some parts are others.

  Args:
    process: Process made by `compose_process`.
    **changes: Arguments of `compose_process`.

  Raises:
    ValueError: If the process was not composed here.
  """
  if process.parts is None:
    raise errors.UserError('Expected a process of `compose_process`.')
  return compose_process(*process.parts._replace(**changes))


def _client_id(client_state: Any) -> tf.Tensor:
  """Returns whose state it is, int32 scalar; -1 if it does not say."""
  seed = getattr(client_state, 'seed', None)
  return tf.constant(-1) if seed is None else seed[1]


def _check_fit(taker, taken_type, giver, given_type):
  if not taken_type.is_assignable_from(given_type):
    raise TypeError(
      f'The {taker} does not fit {giver}: it takes\n{taken_type}\nbut gets\n'
      f'{given_type}.'
    )
