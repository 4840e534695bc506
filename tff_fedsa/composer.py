"""The composer: joins the parts of a method into one process."""

import collections
from collections.abc import Callable, Iterator
import contextlib
import contextvars
import dataclasses
import functools
from typing import Any, NamedTuple, Optional

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_fedsa.aggregation import screening
from tff_fedsa.aggregation import secure_sums
from tff_fedsa.client import attacks
from tff_fedsa.client import client_work as client_work_lib
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


_is_deferred: contextvars.ContextVar[bool] = contextvars.ContextVar(
  'is_deferred', default=False
)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
  """Lets processes be composed on first use, within a `with` statement.

  To compose takes a quarter of the time that a method takes to be built. Who
  changes parts needs none of the processes in between.
  """
  token = _is_deferred.set(True)
  try:
    yield
  finally:
    _is_deferred.reset(token)


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
  secure: bool = False


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


class _Packed(NamedTuple):
  """`ClientMetrics` as two vectors, because many scalars take long to add.

  Attributes:
    numbers: float32[?], `sums`, and then `weights`.
    totals: int32[?].
  """

  numbers: Any
  totals: Any


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
    if self.parts is not None and self.parts.averaging is not None:
      return True
    return tff.structure.has_field(self.server_model_type, 'weights')

  @property
  def tiers(self) -> Optional[tiers_lib.Tiers]:
    """What clients of each architecture share; None if nothing."""
    averaging = None if self.parts is None else self.parts.averaging
    return None if averaging is None else averaging.tiers

  def compose(self) -> None:
    """Traces what has not been traced yet, see `deferred`."""


class _ComposedProcess(StatefulProcess):
  """A process of parts, traced when something of it is needed."""

  def __init__(self, parts: Parts, initial_model: tff.Computation):
    self.parts = parts
    self._compose_fn = functools.partial(_compose, parts, initial_model)
    if parts.averaging is None:
      self.server_model_type = initial_model.type_signature.result

  def compose(self) -> None:
    if '_next_fn' not in vars(self):
      self.__dict__.update(vars(self._compose_fn()))

  def __getattr__(self, name: str) -> Any:
    # Called for attributes that the process does not have yet.
    if name.startswith('__') or '_next_fn' in vars(self):
      raise AttributeError(name)
    self.compose()
    return getattr(self, name)


def compose_process(
  initial_model_fn: Callable[[], Any],
  distributor: tff.learning.templates.DistributionProcess,
  client_work: tff.Computation,
  aggregator: tff.templates.AggregationProcess,
  finalizer: tff.learning.templates.FinalizerProcess,
  averaging: Optional[averaging_lib.WeightAveraging] = None,
  limits: screening.Limits = screening.UNKNOWN,
  attack: Optional[attacks.Attack] = None,
  secure: bool = False,
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
    secure: Whether metrics and counts are secure sums (see `secure.protect`,
      which replaces the aggregator as well). Then nobody is named.

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
    secure,
  )
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

  process = _ComposedProcess(parts, initial_model)
  if not _is_deferred.get():
    process.compose()
  return process


def _compose(parts: Parts, initial_model: tff.Computation) -> StatefulProcess:
  """Returns the process of parts that fit each other."""
  client_work, averaging = parts.client_work, parts.averaging
  limits, attack, secure = parts.limits, parts.attack, parts.secure
  if attack is not None and attack.config.attack == 'label_flip':
    client_work = attacks.with_flipped_labels(client_work, attack, _client_id)
  work_type = client_work.type_signature.parameter
  output_type = client_work.type_signature.result
  broadcast_type, update_type = work_type.broadcast, output_type.update
  received_type = broadcast_type
  if averaging is not None:
    # The parts of the method take the method's own model, as checked above.
    ends = averaging_lib.build_round_ends(averaging, parts.initial_model_fn())
    initial_model = ends.initial_model
    # A client gets the weights of all tiers, and takes those of its own.
    received_type = tff.types.to_type(
      (broadcast_type, ends.take_apart.type_signature.result[1])
    )
    broadcast_type = tff.types.to_type(
      (broadcast_type, averaging.tiers.message_type)
    )
    update_type = tff.types.to_type((update_type, averaging.update_type))

  zero_rounds, one_round_more = _rounds()

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
    reason = fault_of(message)
    if not secure:
      message = message._replace(metrics=_pack(message.metrics))
    value = screening.screen(message, lambda _: reason).value
    if hasattr(message.weights, 'tier'):
      # The server knows it, whatever a client sends.
      weights = value.weights._replace(tier=message.weights.tier)
      value = value._replace(weights=weights)
    return value, collections.OrderedDict(id=client_id, reason=reason)

  def to_send_fn(work, arguments):
    if averaging is not None:
      output = ends.train(work, arguments)
    else:
      output = work(arguments)
    prepared = prepare_fn(output)
    return (
      output.client_state,
      prepared if attack is not None else check_fn(*prepared),
    )

  # One call per client: a call of its own costs more than the check.
  client_round = client_work_lib.wrap(client_work, to_send_fn, received_type)
  checked_type = client_round.type_signature.result[1]
  if attack is not None:
    check = tff.tensorflow.computation(
      lambda prepared: check_fn(*prepared), checked_type
    )
    forgery = attacks.build_forgery(attack, checked_type)
    checked_type = check.type_signature.result

  count_rejected = screening.build_count()
  if secure:
    count_rejected = secure_sums.build_count()
    metrics_sum = secure_sums.build_metrics_sum(output_type.metrics, limits)

  names, totals = (
    [name for name, _ in tff.structure.iter_elements(part)]
    for part in (output_type.metrics.sums, output_type.metrics.totals)
  )

  @tff.tensorflow.computation(checked_type[0].metrics)
  def finish_metrics(summed):
    packed = _pack(summed) if secure else summed
    sums, weights = tf.split(packed.numbers, 2)
    means = tf.math.divide_no_nan(sums, weights)
    found = collections.OrderedDict(zip(names, tf.unstack(means)))
    found.update(zip(totals, tf.unstack(packed.totals)))
    return found

  @tff.federated_computation
  def initialize_fn():
    return tff.federated_zip(
      ServerState(
        round_num=tff.federated_eval(zero_rounds, tff.SERVER),
        model=tff.federated_eval(initial_model, tff.SERVER),
        distributor=parts.distributor.initialize(),
        aggregator=parts.aggregator.initialize(),
        finalizer=parts.finalizer.initialize(),
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
      model, weights = tff.federated_map(ends.take_apart, model)
    distribution = parts.distributor.next(server_state.distributor, model)
    received = distribution.result
    if averaging is not None:
      received = tff.federated_zip((received, tff.federated_broadcast(weights)))
    new_states, sent = tff.federated_map(
      client_round,
      (
        tff.federated_broadcast(server_state.round_num),
        received,
        client_states,
        examples,
      ),
    )
    if attack is not None:
      sent = tff.federated_map(check, forgery(server_state.round_num, sent))
    messages, verdicts = sent
    rejected = count_rejected.next(count_rejected.initialize(), verdicts)
    updates = [messages.update]
    if parts.aggregator.is_weighted:
      updates.append(distribution.result)
    aggregation = parts.aggregator.next(server_state.aggregator, *updates)
    finalization = parts.finalizer.next(
      server_state.finalizer, model, aggregation.result
    )
    if secure:
      summed = metrics_sum.next(metrics_sum.initialize(), messages.metrics)
      metrics_total = summed.result
    else:
      metrics_total = tff.federated_sum(messages.metrics)
    metrics = tff.federated_map(finish_metrics, metrics_total)
    measurements = collections.OrderedDict(
      distributor=distribution.measurements,
      client_work=metrics,
      screening=rejected.result,
      aggregator=aggregation.measurements,
      finalizer=finalization.measurements,
    )
    if secure:
      measurements['metrics'] = summed.measurements
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
      result=new_states,
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


@functools.cache
def _rounds() -> tuple[tff.Computation, tff.Computation]:
  """Returns the computations of the first round number, and of the next."""

  @tff.tensorflow.computation
  def zero_rounds():
    return tf.constant(0, tf.int32)

  @tff.tensorflow.computation(np.int32)
  def one_round_more(round_num):
    return round_num + 1

  return zero_rounds, one_round_more


def _pack(metrics: client_work_lib.ClientMetrics) -> _Packed:
  numbers = [*metrics.sums.values()]
  numbers += [metrics.weights[name] for name in metrics.sums]
  totals = [*metrics.totals.values()]
  return _Packed(
    tf.reshape(tf.convert_to_tensor(numbers, tf.float32), [len(numbers)]),
    tf.reshape(tf.convert_to_tensor(totals, tf.int32), [len(totals)]),
  )


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
