"""The actors of a cluster: started on every node, watched, and replaced."""

import dataclasses
import logging
import math
import threading
import time
from typing import Any, Optional

from etils import epy

from tff_fedsa.execution.ray import worker
from tff_fedsa.runs import errors

with epy.lazy_imports():
  import ray
  from ray.util import scheduling_strategies

_SECONDS_BETWEEN_LOOKS = 0.5
_CORES_PER_ACTOR = 8
_CLIENTS_PER_GPU = 2
# An actor imports TensorFlow, which takes long on a busy machine.
_SECONDS_TO_START = 300.0
# After so many actors of a node that ended before they were ready, the node is
# the likely cause.
_MAX_FAILED_STARTS = 3


class ClusterError(errors.UserError, ConnectionError):
  """No actor computes, or all were lost."""


@dataclasses.dataclass(frozen=True)
class ActorOptions:
  """How actors compute.

  Attributes:
    max_concurrent_clients: Clients at a time of an actor. Default: one per
      core, 2 on a GPU.
    intra_op_threads: Threads of one operation. Default: the cores of an actor
      divided by its clients at a time.
    deterministic_ops: See `runtime.RuntimeConfig`.
    tf32: See there.
  """

  max_concurrent_clients: Optional[int] = None
  intra_op_threads: Optional[int] = None
  deterministic_ops: bool = False
  tf32: bool = True


@dataclasses.dataclass(frozen=True)
class Share:
  """The part of a node that one actor has.

  Attributes:
    cpus: Cores.
    gpus: 1, or 0 for an actor that computes on cores.
  """

  cpus: int
  gpus: int


def shares(cpus: int, gpus: int) -> list[Share]:
  """Returns the actors of a node: one per GPU, or per group of cores."""
  if gpus:
    return [Share(cpus // gpus, 1)] * gpus
  if not cpus:
    return []
  count = math.ceil(cpus / _CORES_PER_ACTOR)
  return [Share(cpus // count + (i < cpus % count), 0) for i in range(count)]


class Actor:
  """An actor, which may be lost. Another one replaces it.

  Attributes:
    node: Id of its node.
    address: Address of its node, for messages.
    clients_at_a_time: Number of clients computed at a time.
    num_clients: Number of clients that it has computed.
    devices: Its devices, once it is ready.
    is_ready: Whether it has started.
    why_lost: Reason for the loss, or None.
  """

  def __init__(
    self, node: dict[str, Any], position: int, share: Share, options: Any
  ):
    """Starts the actor on a node."""
    self.node: str = node['NodeID']
    self.address: str = node['NodeManagerAddress']
    self.position = position
    self.clients_at_a_time = options.max_concurrent_clients or (
      _CLIENTS_PER_GPU if share.gpus else share.cpus
    )
    self.num_clients = 0
    self.devices: list[str] = []
    self.is_ready = False
    self.why_lost: Optional[str] = None
    threads = options.intra_op_threads
    if threads is None and not share.gpus:
      threads = max(1, share.cpus // self.clients_at_a_time)
    remote = ray.remote(concurrency_groups={'watch': 2})(worker.Worker)
    self.handle = remote.options(
      num_cpus=share.cpus,
      num_gpus=share.gpus,
      max_concurrency=2 * self.clients_at_a_time,
      max_restarts=0,
      scheduling_strategy=scheduling_strategies.NodeAffinitySchedulingStrategy(
        self.node, soft=False
      ),
    ).remote(
      self.clients_at_a_time, threads, options.deterministic_ops, options.tf32
    )
    self.asked_at = time.monotonic()
    self.question = self.watch('describe')

  @property
  def is_open(self) -> bool:
    return self.is_ready and self.why_lost is None

  def watch(self, method: str, *arguments: Any) -> Any:
    """Calls a method that also answers while clients are computed."""
    return (
      getattr(self.handle, method)
      .options(concurrency_group='watch')
      .remote(*arguments)
    )


class Fleet:
  """All actors. `look` finds new nodes and lost actors.

  Attributes:
    actors: The actors that are not lost, also those that still start.
    lost: Messages about the latest losses.
  """

  def __init__(self, options: ActorOptions, deadline_seconds: float):
    """Starts actors on all nodes, and waits until they are ready.

    Raises:
      ClusterError: If no actor can compute.
    """
    self._options = options
    self._patience = deadline_seconds / 2
    self.actors: list[Actor] = []
    self.lost: list[str] = []
    self.lost_nodes: set[str] = set()
    # Silent nodes may come back. By the time at which to try.
    self._silent: dict[str, float] = {}
    self._failed_starts: dict[str, int] = {}
    self._looked_at = -math.inf
    self._looking = threading.Lock()
    self._versions = worker.versions()
    self._wait_for_all()

  def _wait_for_all(self) -> None:
    deadline = time.monotonic() + _SECONDS_TO_START
    while True:
      self.look()
      if self.actors and all(actor.is_ready for actor in self.actors):
        return
      if not self.actors or time.monotonic() > deadline:
        if any(actor.is_ready for actor in self.actors):
          return
        raise ClusterError(self._why_none())
      ray.wait([a.question for a in self.actors if a.question], timeout=0.2)

  def _why_none(self) -> str:
    if self.lost:
      return f'No actor could be started: {self.lost[-1]}'
    if self.actors:
      return (
        f'No actor started within {_SECONDS_TO_START:.0f} s: the cores or GPUs '
        'of the cluster may be in use by another program (`ray status`).'
      )
    return (
      'No node of the cluster offers cores or GPUs: start one with `ray start` '
      '(docs/clusters.md).'
    )

  def look(self) -> None:
    """Starts actors on new nodes, and notes those that are lost."""
    with self._looking:
      now = time.monotonic()
      if now - self._looked_at < _SECONDS_BETWEEN_LOOKS:
        return
      self._looked_at = now
      alive = {node['NodeID']: node for node in ray.nodes() if node['Alive']}
      for actor in list(self.actors):
        if actor.node not in alive:
          self._lose(actor, 'its node is gone')
          self.lost_nodes.add(actor.node)
        else:
          self._ask(actor, now)
      for node_id, node in alive.items():
        if node_id not in self.lost_nodes or now > self._silent.get(
          node_id, math.inf
        ):
          self._start_missing(node)

  def _start_missing(self, node: dict[str, Any]) -> None:
    node_id, resources = node['NodeID'], node['Resources']
    if self._failed_starts.get(node_id, 0) >= _MAX_FAILED_STARTS:
      return
    there = {a.position for a in self.actors if a.node == node_id}
    wanted = shares(int(resources.get('CPU', 0)), int(resources.get('GPU', 0)))
    for position, share in enumerate(wanted):
      if position not in there:
        self.actors.append(Actor(node, position, share, self._options))

  def _ask(self, actor: Actor, now: float) -> None:
    """Reads the answer to the latest question, and asks again in time."""
    if actor.question is not None:
      ready, _ = ray.wait([actor.question], timeout=0, fetch_local=False)
      if ready:
        self._read(actor)
        actor.question = None
      elif actor.is_ready and now - actor.asked_at > self._patience:
        # The node may be frozen, and so may what it has in its store.
        self.lost_nodes.add(actor.node)
        self._silent[actor.node] = now + self._patience
        self._lose(actor, f'it has not answered for {self._patience:.0f} s')
        return
    if actor.question is None and now - actor.asked_at > self._patience / 6:
      actor.asked_at = now
      actor.question = actor.watch('ping')

  def _read(self, actor: Actor) -> None:
    try:
      answer = ray.get(actor.question)
    except ray.exceptions.RayError as error:
      if not actor.is_ready:
        failed = self._failed_starts.get(actor.node, 0) + 1
        self._failed_starts[actor.node] = failed
      self._lose(actor, first_line(error))
      return
    if not actor.is_ready:
      if answer['versions'] != self._versions:
        self._failed_starts[actor.node] = _MAX_FAILED_STARTS
        self._lose(
          actor,
          f'it has the versions {answer["versions"]}, this process has '
          f'{self._versions}',
        )
        return
      actor.devices = answer['devices']
      actor.is_ready = True
      self.lost_nodes.discard(actor.node)
      self._silent.pop(actor.node, None)
      self._failed_starts.pop(actor.node, None)

  def lose(self, actor: Actor, why: str) -> None:
    """Notes the loss of an actor. `look` starts another."""
    with self._looking:
      self._lose(actor, why)

  def _lose(self, actor: Actor, why: str) -> None:
    if actor.why_lost is not None:
      return
    actor.why_lost = why
    self.actors.remove(actor)
    message = f'the actor on {actor.address} was lost: {why}'
    self.lost.append(message)
    logging.warning('Ray: %s', message)
    try:
      ray.kill(actor.handle)
    except Exception:
      logging.debug('The actor was gone already.', exc_info=True)

  def close(self) -> None:
    """Ends all actors."""
    if ray.is_initialized():
      for actor in self.actors:
        ray.kill(actor.handle)
    self.actors = []


def first_line(error: Exception) -> str:
  """Returns what an error of Ray says, in one line."""
  lines = [line.strip() for line in str(error).splitlines() if line.strip()]
  # The last line of a trace is the error itself.
  text = lines[-1] if 'Traceback' in str(error) else lines[0]
  return text[:300]
