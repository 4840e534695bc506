"""Simulates how `--runtime=ray` divides clients among unequal actors.

  python -m benchmarks.scheduling

Clients have the architectures of HtFE8 in turn, whose times differ by a factor
of 26. The simulation knows neither times nor speeds in its first round. It
computes no client: only `scheduling.assign` and `scheduling.Times` run. Printed
is the time of a round divided by the least possible time: the time if work
could be divided at will, but not less than the longest client on the fastest
actor. Each actor is a node of its own, and has the data and states of the
clients that it computed last. The last column says how many clients moved to
another node.
"""

from collections.abc import Mapping, Sequence
import heapq
from typing import Any, NamedTuple

from absl import app
import numpy as np

from tff_fedsa.execution.ray import scheduling

# Seconds of an epoch over 500 images of 32 x 32 on a CPU. The first three and
# ResNet-18 were measured. The deeper ResNets follow from their operations (He
# et al., 2016, table 1), divided by those of ResNet-18.
HTFE8_SECONDS = (
  0.47,
  2.42,
  2.67,
  1.91,
  1.91 * 3.6 / 1.8,
  1.91 * 3.8 / 1.8,
  1.91 * 7.6 / 1.8,
  1.91 * 11.3 / 1.8,
)
FLEETS: Mapping[str, Sequence[float]] = {
  '2 equal actors': (1, 1),
  '4 equal actors': (1, 1, 1, 1),
  '8 actors, one half as fast': (1, 1, 1, 1, 1, 1, 1, 2),
  '4 actors, 1 to 4 times as slow': (1, 1.5, 2, 4),
}
_NOISE = 0.05
# Data and state of a client, as in `benchmarks.ray_cluster`.
_BYTES = 4_000_000


class Round(NamedTuple):
  """A simulated round.

  Attributes:
    ratio: Its time, divided by the least possible time.
    moves: Clients that another actor had computed in the round before.
  """

  ratio: float
  moves: int


def simulate(
  slowness: Sequence[float], num_clients: int, rounds: int, seed: int = 0
) -> list[Round]:
  """Returns what each round took.

  Args:
    slowness: Seconds of a client on each actor, as multiples of its usual time.
      Each actor computes one client at a time.
    num_clients: Clients of a round.
    rounds: Rounds of the run.
    seed: Seed of the noise of times.
  """
  rng = np.random.default_rng(seed)
  times = scheduling.Times()
  work = [HTFE8_SECONDS[i % len(HTFE8_SECONDS)] for i in range(num_clients)]
  capacity = sum(1 / one for one in slowness)
  least = max(sum(work) / capacity, max(work) * min(slowness))
  found = []
  homes: dict[int, int] = {}
  for _ in range(rounds):
    before = dict(homes)
    seconds = _round(work, slowness, times, homes, rng)
    moves = sum(homes[client] != home for client, home in before.items())
    found.append(Round(seconds / least, moves))
  return found


def _round(
  work: Sequence[float],
  slowness: Sequence[float],
  times: scheduling.Times,
  homes: dict[int, int],
  rng: np.random.Generator,
) -> float:
  """Returns the seconds of a round; `homes` gets the clients' actors."""
  now = 0.0
  waiting = list(range(len(work)))
  running: list[tuple[float, int, int, float]] = []
  while waiting or running:
    busy: dict[int, float] = {}
    for _, actor, client, started in running:
      expected = times.seconds(client) * times.slowness(actor)
      busy[actor] = max(started + expected - now, 1e-3)
    places = [
      scheduling.Place(actor, str(actor), [busy.get(actor, 0.0)])
      for actor in range(len(slowness))
    ]
    missing = {
      client: {
        str(actor): 0 if actor == homes.get(client) else _BYTES
        for actor in range(len(slowness))
      }
      for client in waiting
    }
    for client, actor in scheduling.assign(waiting, places, times, missing):
      waiting.remove(client)
      seconds = (
        work[client] * slowness[actor] * rng.uniform(1 - _NOISE, 1 + _NOISE)
      )
      seconds += scheduling.seconds_to_move(missing[client][str(actor)])
      homes[client] = actor
      heapq.heappush(running, (now + seconds, actor, client, now))
    now, actor, client, started = heapq.heappop(running)
    times.add(client, actor, now - started)
  return now


def table() -> list[dict[str, Any]]:
  """Returns one row for each fleet."""
  rows = []
  for name, slowness in FLEETS.items():
    # So many clients that their number does not decide.
    rounds = simulate(slowness, 8 * len(slowness), 10)
    rows.append(
      {
        'fleet': name,
        'clients': 8 * len(slowness),
        'first': rounds[0].ratio,
        'third': rounds[2].ratio,
        'tenth': rounds[-1].ratio,
        'moves': rounds[-1].moves,
      }
    )
  return rows


def main(argv: Sequence[str]) -> None:
  """Prints the table."""
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected arguments: {argv[1:]}')
  print(
    '| fleet | clients | round 1 | round 3 | round 10 | moves in round 10 |'
  )
  print('|---|---|---|---|---|---|')
  for row in table():
    print(
      f'| {row["fleet"]} | {row["clients"]} | {row["first"]:.2f} | '
      f'{row["third"]:.2f} | {row["tenth"]:.2f} | {row["moves"]} |'
    )


if __name__ == '__main__':
  app.run(main)
