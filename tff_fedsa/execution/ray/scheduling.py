"""Which client runs next, and where: pure functions of times and sizes.

Clients start longest first, each where it ends earliest. So a long client does
not start last, and a slow actor gets short clients. A client stays on the node
that has its data and state, as long as the round does not end later for it.
"""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

# Cost of bytes that a node lacks: a network of 1 Gbit/s, and a fixed time that
# keeps clients where they are if there is little to gain.
_SECONDS_PER_BYTE = 8e-9
_SECONDS_PER_MOVE = 0.05
# Weight of the newest measurement.
_NEWEST = 0.5
_UNKNOWN_SECONDS = 1.0
# A client stays on its node if that costs less than this part of its time.
_STAYS_LONGER = 0.1


class Times:
  """Measured seconds of clients, and the speeds of actors."""

  def __init__(self) -> None:
    self._seconds: dict[Any, float] = {}
    self._slowness: dict[Any, float] = {}
    self._mean = 0.0

  def add(self, client: Any, actor: Any, seconds: float) -> None:
    """Notes a measurement.

    Args:
      client: What identifies function and client.
      actor: What identifies the actor.
      seconds: Time of the client on the actor.
    """
    slowness = self._slowness.get(actor, 1.0)
    known = self._seconds.get(client)
    if known is not None and known > 0:
      # The client took longer than elsewhere: the actor is slow, too.
      ratio = min(max(seconds / known, 0.05), 20.0)
      slowness += _NEWEST / 2 * (ratio - slowness)
      self._slowness[actor] = slowness
    normal = seconds / slowness
    self._seconds[client] = (
      normal if known is None else known + _NEWEST * (normal - known)
    )
    self._mean = normal if not self._mean else 0.9 * self._mean + 0.1 * normal

  def seconds(self, client: Any) -> float:
    """Returns the expected seconds of a client on an actor of usual speed."""
    return self._seconds.get(client, self._mean or _UNKNOWN_SECONDS)

  def slowness(self, actor: Any) -> float:
    """Returns the factor by which an actor is slower than the usual one."""
    return self._slowness.get(actor, 1.0)


@dataclasses.dataclass
class Place:
  """An actor with room for clients.

  Attributes:
    actor: What identifies the actor.
    node: Its node.
    slots: For each client that it computes at a time, the seconds until the
      slot is free; 0 if it is free.
  """

  actor: Any
  node: str
  slots: list[float]


def seconds_to_move(missing_bytes: int) -> float:
  """Returns the seconds after which a node has what it lacks."""
  if not missing_bytes:
    return 0.0
  return _SECONDS_PER_MOVE + missing_bytes * _SECONDS_PER_BYTE


def assign(
  clients: Sequence[Any],
  places: Sequence[Place],
  times: Times,
  missing_bytes: Mapping[Any, Mapping[str, int]],
) -> list[tuple[Any, Any]]:
  """Returns the clients that start now, with their actors.

  Each client stays on the node that lacks least of its data and state, if it
  ends there before the round could end at best, and a tenth of its time later.
  Other clients go where they end earliest. A client whose actor is still busy
  waits for it.

  Args:
    clients: The waiting clients.
    places: All actors. Their slots change.
    times: What is known about both.
    missing_bytes: Bytes that a node lacks, by client and node. Default: 0.
  """
  started: list[tuple[Any, Any]] = []
  if not places:
    return started
  round_end = _least_end(clients, places, times)
  free = sum(slot <= 0 for place in places for slot in place.slots)
  for client in sorted(clients, key=times.seconds, reverse=True):
    if len(started) == free:
      break
    work = times.seconds(client)
    lacks = missing_bytes.get(client, {})
    lacking = [lacks.get(place.node, 0) for place in places]
    ends = [
      max(min(place.slots), 0.0)
      + work * times.slowness(place.actor)
      + seconds_to_move(lacking[index])
      for index, place in enumerate(places)
    ]
    _, index = min(zip(ends, range(len(places))))
    _, home_end, home = min(zip(lacking, ends, range(len(places))))
    if home_end <= round_end + _STAYS_LONGER * work:
      index = home
    place = places[index]
    slot = min(range(len(place.slots)), key=place.slots.__getitem__)
    if place.slots[slot] <= 0:
      started.append((client, place.actor))
    place.slots[slot] = ends[index]
  return started


def _least_end(
  clients: Sequence[Any], places: Sequence[Place], times: Times
) -> float:
  """Returns when the round would end if work could be divided at will."""
  work = sum(times.seconds(client) for client in clients)
  speed = 0.0
  for place in places:
    slowness = times.slowness(place.actor)
    work += sum(max(slot, 0.0) for slot in place.slots) / slowness
    speed += len(place.slots) / slowness
  return work / speed
