"""Assigns clients to actors, and repeats what was lost."""

import collections
from collections.abc import Sequence
import itertools
import logging
import threading
import time
from typing import Any, Optional
import weakref

from etils import epy
import numpy as np
import tensorflow as tf

from tff_fedsa.execution import arrays
from tff_fedsa.execution import functions
from tff_fedsa.execution.in_process import cancellation
from tff_fedsa.execution.in_process import contexts
from tff_fedsa.execution.in_process import operation_errors
from tff_fedsa.execution.in_process import tensorflow_functions
from tff_fedsa.execution.ray import calls as calls_lib
from tff_fedsa.execution.ray import fleet as fleet_lib
from tff_fedsa.execution.ray import kept as kept_lib
from tff_fedsa.execution.ray import messages
from tff_fedsa.execution.ray import scheduling
from tff_fedsa.execution.ray import sent_values

with epy.lazy_imports():
  import ray

_POLL_SECONDS = 0.1
# After so many losses with one client, the client is the likely cause.
_MAX_LOSSES_PER_CLIENT = 3
# Actors get their next clients before they have ended the former ones, if
# clients take less time than this: the way there takes milliseconds.
_SHORT_SECONDS = 0.05
_MAX_SENT_BYTES = 32_000_000_000

_call_ids = itertools.count()


class RayClientPool:
  """Runs a function for each client, on the actors of a cluster.

  Attributes:
    devices: Devices of the server's work, in this process.
    fleet: The actors.
    times: Measured times of clients.
    is_closed: Whether `close` was called.
  """

  def __init__(
    self,
    options: fleet_lib.ActorOptions,
    *,
    deadline_seconds: float,
    rounds_per_copy: int,
  ):
    """Starts the actors. This process is connected to a cluster.

    Args:
      options: How actors compute.
      deadline_seconds: Time after which silent actors are given up. If no
        actor is left, an error is raised.
      rounds_per_copy: Computations in a row after which a result that stays on
        its node is copied to the disk of this process.

    Raises:
      fleet_lib.ClusterError: If no actor can compute.
    """
    self._here = contexts.create_in_process_context(
      intra_op_threads=options.intra_op_threads
    ).runtime.pool
    self.devices = self._here.devices[:1]
    self.seconds_without_any = deadline_seconds
    self.wait_seconds = deadline_seconds / 2
    self.rounds_per_copy = rounds_per_copy
    self.store = sent_values.SentValues(_MAX_SENT_BYTES)
    self.times = scheduling.Times()
    self.fleet = fleet_lib.Fleet(options, deadline_seconds)
    self._copies = kept_lib.Copies()
    self._functions: weakref.WeakKeyDictionary[Any, calls_lib.Function] = (
      weakref.WeakKeyDictionary()
    )
    self._restoring = threading.RLock()
    self.is_closed = False
    weakref.finalize(self, _close, self.fleet, self._copies)

  @property
  def only_cpus(self) -> bool:
    """Whether all devices are CPUs, here and there."""
    names = [*self.devices, *(d for a in self.fleet.actors for d in a.devices)]
    return all(
      tf.DeviceSpec.from_string(name).device_type == 'CPU' for name in names
    )

  def map(self, fn: Any, arguments: Sequence[tuple]) -> list[Any]:
    """Returns `fn(*arguments[i])` for each client i.

    Raises:
      fleet_lib.ClusterError: If all actors are lost, or several were lost with
        the same client.
      Exception: The error of the first client (by number), with a note that
        names it and its node. The other clients are stopped.
      cancellation.Cancelled: If the call was cancelled from outside.
    """
    function = self._to_send(fn, arguments) if arguments else None
    if function is None:
      return self._here.map(fn, arguments)
    self.store.next_computation()
    calls = calls_lib.Builder(function, self.store).build(
      [argument[0] if argument else None for argument in arguments]
    )
    results = Clients(self, calls, cancellation.current()).run()
    self._copy_old(calls)
    return results

  def _to_send(
    self, fn: Any, arguments: Sequence[tuple]
  ) -> Optional[calls_lib.Function]:
    """Returns the function for actors, or None to compute it here."""
    found = functions.to_send(fn)
    if (
      found is None
      and isinstance(fn, tensorflow_functions.TensorFlowFunction)
      and any(_has_remote(argument) for argument in arguments)
    ):
      # Arithmetic with what is elsewhere: its results may stay there, too.
      found = fn
    if found is None:
      return None
    # Lambdas are made anew for each call, but not their building block.
    owner = getattr(fn, 'block', fn)
    function = self._functions.get(owner)
    if function is None:
      function = calls_lib.Function(
        found.computation, found.type_signature, self.store
      )
      self._functions[owner] = function
    return function

  def get(self, kept: kept_lib.Kept) -> np.ndarray:
    """Brings a result here. If it is lost, it is computed again."""
    while True:
      if kept.node in self.fleet.lost_nodes and kept.ref is not None:
        if not kept.nodes - self.fleet.lost_nodes:
          kept.lose()
      if kept.ref is None:
        self.restore([kept])
      try:
        # A copy: a view would keep the store from freeing it.
        return np.array(ray.get(kept.ref, timeout=self.wait_seconds))
      except ray.exceptions.RayError as error:
        logging.warning('Ray: a result was lost: %s', type(error).__name__)
        kept.lose()

  def restore(self, lost: Sequence[kept_lib.Kept]) -> None:
    """Computes lost results again, from the latest copies."""
    with self._restoring:
      for level in _levels(lost):
        calls = list(
          {id(kept.call): kept.call for kept in level if kept.call}.values()
        )
        logging.warning('Ray: %d lost results are computed again.', len(calls))
        Clients(self, calls, cancellation.Cancellation()).run(only_kept=True)
      # What was needed only on the way.
      for kept in _with_inputs(lost):
        if not kept.is_needed and kept not in lost:
          kept.ref = None

  def _copy_old(self, calls: Sequence[calls_lib.Call]) -> None:
    for call in calls:
      for kept in call.outputs.values():
        if kept.call is not None and kept.depth >= self.rounds_per_copy:
          self._copies.add(kept, self.get(kept))

  def close(self) -> None:
    """Ends the actors."""
    self.is_closed = True
    _close(self.fleet, self._copies)


def _close(fleet: fleet_lib.Fleet, copies: kept_lib.Copies) -> None:
  fleet.close()
  copies.close()


def _has_remote(argument: tuple) -> bool:
  return any(
    isinstance(leaf, arrays.RemoteArray)
    for part in argument
    for leaf in messages.leaves_of(part)
  )


def _with_inputs(lost: Sequence[kept_lib.Kept]) -> list[kept_lib.Kept]:
  """Returns all results on which lost ones depend."""
  found: dict[int, kept_lib.Kept] = {}
  waiting = list(lost)
  while waiting:
    kept = waiting.pop()
    if id(kept) not in found:
      found[id(kept)] = kept
      if kept.call is not None:
        waiting.extend(kept.call.kept_inputs())
  return list(found.values())


def _levels(lost: Sequence[kept_lib.Kept]) -> list[list[kept_lib.Kept]]:
  """Returns what has to be computed, in groups, one after the other."""
  needed: dict[int, kept_lib.Kept] = {}
  waiting = list(lost)
  while waiting:
    kept = waiting.pop()
    if kept.ref is None and id(kept) not in needed:
      if kept.call is None:
        kept.lose()  # Brings the copy back.
        continue
      needed[id(kept)] = kept
      waiting.extend(kept.call.kept_inputs())
  levels = collections.defaultdict(list)
  for kept in needed.values():
    levels[kept.depth].append(kept)
  return [levels[depth] for depth in sorted(levels)]


class Clients:
  """The clients of one call of `RayClientPool.map`."""

  def __init__(
    self,
    pool: RayClientPool,
    calls: Sequence[calls_lib.Call],
    call: cancellation.Cancellation,
  ):
    self._pool = pool
    self._fleet = pool.fleet
    self._calls = calls
    self._call = call
    self._id = next(_call_ids)
    self._waiting = list(range(len(calls)))
    # By the reference of its message.
    self._running: dict[Any, _Run] = {}
    self._results: list[Any] = [None] * len(calls)
    self._errors: dict[int, BaseException] = {}
    self._losses: dict[int, list[str]] = collections.defaultdict(list)
    self._seen_at = time.monotonic()
    self._only_kept = False
    self._stopped = False

  def run(self, only_kept: bool = False) -> list[Any]:
    """Computes all clients.

    Args:
      only_kept: Whether to renew the kept outputs of the calls, and to drop
        everything else.
    """
    self._only_kept = only_kept
    while self._waiting or self._running:
      self._fleet.look()
      self._drop_lost()
      if self._call.is_cancelled:
        self._stop_running()
      self._send_out()
      ready, _ = (
        ray.wait(list(self._running), timeout=_POLL_SECONDS, fetch_local=False)
        if self._running
        else ([], [])
      )
      while ready:
        self._receive(ready[0])
        if not self._running:
          break
        ready, _ = ray.wait(list(self._running), timeout=0, fetch_local=False)
    if self._errors:
      raise self._errors[min(self._errors)]
    if self._call.is_cancelled:
      raise cancellation.Cancelled
    return self._results

  def _stop_running(self) -> None:
    self._waiting.clear()
    if not self._stopped:
      self._stopped = True
      for actor in {
        id(r.actor): r.actor for r in self._running.values()
      }.values():
        actor.watch('cancel', self._id)

  def _drop_lost(self) -> None:
    """Takes clients back from actors that were lost."""
    for ref, run in list(self._running.items()):
      if run.actor.why_lost is not None:
        del self._running[ref]
        self._take_back(run, run.actor.why_lost)

  def _take_back(self, run: '_Run', why: str) -> None:
    losses = self._losses[run.number]
    losses.append(f'{run.actor.address} ({why})')
    if self._call.is_cancelled:
      return
    if len(losses) < _MAX_LOSSES_PER_CLIENT:
      self._waiting.insert(0, run.number)
      return
    self._fail(
      run.number,
      fleet_lib.ClusterError(
        f'Client {run.number} seems to take its actors with it: '
        f'{", ".join(losses)}. It may need more memory than a node has.'
      ),
    )

  def _send_out(self) -> None:
    if self._waiting:
      for number, actor in self._assign():
        self._waiting.remove(number)
        self._start(number, actor)
    self._expect_an_actor()

  def _assign(self) -> list[tuple[int, Any]]:
    times, now = self._pool.times, time.monotonic()
    keys = {number: self._key(number) for number in self._waiting}
    places: dict[int, tuple[Any, list[float]]] = {}
    for actor in self._fleet.actors:
      if actor.is_open:
        places[id(actor)] = actor, []
    for run in self._running.values():
      if id(run.actor) in places:
        expected = times.seconds(self._key(run.number))
        expected *= times.slowness(run.actor.node)
        left = max(run.started_at + expected - now, 1e-3)
        places[id(run.actor)][1].append(left)
    free = []
    for actor, busy in places.values():
      slots = actor.clients_at_a_time
      if busy and max(busy) < _SHORT_SECONDS:
        slots *= 2
      busy += [0.0] * (slots - len(busy))
      free.append(scheduling.Place(actor, actor.node, busy))
    if not any(slot <= 0 for place in free for slot in place.slots):
      return []
    by_key = collections.defaultdict(list)
    for number, key in keys.items():
      by_key[key].append(number)
    missing = {
      key: self._missing_bytes(numbers[0]) for key, numbers in by_key.items()
    }
    assigned = scheduling.assign(
      [key for key, numbers in by_key.items() for _ in numbers],
      free,
      _ByActor(times),
      missing,
    )
    return [(by_key[key].pop(0), actor) for key, actor in assigned]

  def _key(self, number: int) -> Any:
    call = self._calls[number]
    return call.function.digest, call.client

  def _missing_bytes(self, number: int) -> dict[str, int]:
    inputs = [one for _, one in self._calls[number].elsewhere()]
    return {
      node: sum(one.num_bytes for one in inputs if node not in one.nodes)
      for node in {actor.node for actor in self._fleet.actors}
    }

  def _start(self, number: int, actor: Any) -> None:
    call = self._calls[number]
    lost = [
      kept
      for kept in call.kept_inputs()
      if kept.ref is None or not kept.nodes - self._fleet.lost_nodes
    ]
    for kept in lost:
      if kept.ref is not None:
        kept.lose()
    if lost:
      self._pool.restore(lost)
    inline = list(call.inputs)
    refs = {}
    for index, one in call.elsewhere():
      inline[index] = None
      refs[index] = one.ref
      one.nodes.add(actor.node)
    function = call.function
    answer = actor.handle.run.options(
      num_returns=1 + len(function.large)
    ).remote(
      self._id,
      (function.digest, [function.sent.ref]),
      inline,
      refs,
      self._pool.wait_seconds,
    )
    message, *slots = answer if function.large else [answer]
    self._running[message] = _Run(number, actor, slots)

  def _receive(self, ref: Any) -> None:
    run = self._running.pop(ref)
    try:
      message = ray.get(ref, timeout=self._pool.wait_seconds)
    except ray.exceptions.RayError as error:
      why = fleet_lib.first_line(error)
      self._fleet.lose(run.actor, why)
      self._take_back(run, why)
      return
    call = self._calls[run.number]
    if message.get('cancelled'):
      if not self._call.is_cancelled:
        self._waiting.insert(0, run.number)
    elif 'missing' in message:
      for index in message['missing']:
        one = call.inputs[index]
        if isinstance(one, kept_lib.Kept):
          one.lose()
        one.nodes.discard(run.actor.node)
      self._take_back(run, 'arguments did not arrive there')
    elif 'error' in message:
      found = message['error']
      if isinstance(found, tf.errors.OpError):
        found = operation_errors.as_users_catch_it(found)
      found.add_note(
        f'raised by client {run.number} of {len(self._calls)} on '
        f'{run.actor.devices[0]} of {run.actor.address}'
      )
      self._fail(run.number, found)
    else:
      run.actor.num_clients += 1
      self._pool.times.add(
        self._key(run.number), run.actor.node, message['seconds']
      )
      self._results[run.number] = self._result(call, message, run)

  def _result(self, call: calls_lib.Call, message: Any, run: '_Run') -> Any:
    remote = {}
    function = call.function
    for index, ref, spec in zip(function.large, run.slots, message['specs']):
      if spec is None:
        continue
      if index in call.outputs:
        kept = call.outputs[index]
        kept.ref, kept.node, kept.nodes = ref, run.actor.node, {run.actor.node}
        continue
      dtype, shape = spec
      size = dtype.itemsize * int(np.prod(shape))
      kept = kept_lib.Kept(call, run.actor.node, ref, size)
      call.outputs[index] = kept
      remote[index] = kept_lib.KeptArray(kept, dtype, shape, self._pool.get)
    if self._only_kept:
      return None
    return calls_lib.decode_results(call, message['leaves'], remote)

  def _fail(self, number: int, error: BaseException) -> None:
    self._errors[number] = error
    self._call.cancel()

  def _expect_an_actor(self) -> None:
    now = time.monotonic()
    if any(actor.is_open for actor in self._fleet.actors):
      self._seen_at = now
    elif not self._running and self._waiting:
      starting = bool(self._fleet.actors)
      patience = self._pool.seconds_without_any * (5 if starting else 1)
      if now - self._seen_at > patience:
        self._fail(
          self._waiting[0],
          fleet_lib.ClusterError(
            f'All actors are lost: {"; ".join(self._fleet.lost[-3:])}. Start '
            'nodes again, and then the computation.'
          ),
        )
      else:
        time.sleep(_POLL_SECONDS)


class _Run:
  """A client that an actor computes."""

  def __init__(self, number: int, actor: Any, slots: list[Any]):
    self.number = number
    self.actor = actor
    self.slots = slots
    self.started_at = time.monotonic()


class _ByActor(scheduling.Times):
  """Times, with the speed of an actor's node as that of the actor."""

  def __init__(self, times: scheduling.Times):
    self._times = times

  def seconds(self, client: Any) -> float:
    return self._times.seconds(client)

  def slowness(self, actor: Any) -> float:
    return self._times.slowness(actor.node)
