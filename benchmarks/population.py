"""Measures a large population: states, checkpoints, rounds, memory.

  python -m benchmarks.population

compares populations that take part a few clients at a time. Goals (of 10,000
clients, 20 KB each): a checkpoint of 100 changed states in a second, a start in
five, rounds no more than 1.2 times those of a population of 100, and nothing
that grows over 300 rounds.

  python -m benchmarks.population --nostores --runtimes=in_process,ray \
      --clients=100,1000,10000 --clients_per_round=10 --rounds=60

compares the rounds of populations in several runtimes. Ray has a cluster of
this machine. Memory is that of the process of the run.
"""

from collections.abc import Callable, Sequence
from concurrent import futures
import multiprocessing
import os
import statistics
import tempfile
import threading
import time
from typing import Any, NamedTuple

from absl import app
from absl import flags
import numpy as np
import psutil

from launch import runner
from tff_fedsa.client import client_state
from tff_fedsa.client import client_store
from tff_fedsa.runs import checkpoints

_CLIENTS = flags.DEFINE_list(
  'clients', ['100', '10000'], 'Sizes of the populations.'
)
_STORES = flags.DEFINE_bool('stores', True, 'Whether to time stores, too.')
_RUNTIMES = flags.DEFINE_list(
  'runtimes', ['in_process'], 'Runtimes of the rounds: in_process, ray.'
)
_CLIENTS_PER_ROUND = flags.DEFINE_integer(
  'clients_per_round', 20, 'Clients that take part in a round.', lower_bound=1
)
_ROUNDS = flags.DEFINE_integer('rounds', 300, 'Rounds of each.', lower_bound=30)
_DIRECTORY = flags.DEFINE_string(
  'directory', None, 'Where files are written; default: a temporary one.'
)

_CHANGED = 100
_NUM_CLASSES, _FEATURE_DIM = 10, 16
_WEIGHTS = 4800  # 20 KB with the prototypes.


def _state(client_id: int) -> client_state.ClientState:
  return client_state.ClientState(
    architecture=np.int32(0),
    weights=np.full([_WEIGHTS], client_id, np.float32),
    optimizer=np.zeros([0], np.float32),
    prototypes=np.zeros([_NUM_CLASSES, _FEATURE_DIM], np.float32),
    counts=np.zeros([_NUM_CLASSES], np.float32),
    seed=np.array([0, client_id], np.int32),
  )


class StoreTimes(NamedTuple):
  """Seconds that stores and checkpoints take.

  Attributes:
    put: Seconds to put the states of all clients.
    first: A checkpoint of all of them.
    again: A checkpoint of `_CHANGED` that changed.
    start: A start from that checkpoint.
    touched: The first look at `_CHANGED` of them.
  """

  put: float
  first: float
  again: float
  start: float
  touched: float


def time_store(num_clients: int, where: str, directory: str) -> StoreTimes:
  """Times a store of a population.

  Args:
    num_clients: Size of the population, >= `_CHANGED`.
    where: memory or disk.
    directory: Directory of checkpoints and states.
  """

  def new_store() -> client_store.ClientStateStore:
    if where == 'memory':
      return client_store.MemoryStore(_state)
    return client_store.DiskStore(_state, os.path.join(directory, 'states'))

  manager = checkpoints.CheckpointManager(
    os.path.join(directory, 'checkpoints')
  )
  server = {'anchors': np.zeros([_NUM_CLASSES, _FEATURE_DIM], np.float32)}
  store = new_store()

  def put(client_ids: Sequence[int], value: int) -> None:
    for client_id in client_ids:
      store.put(client_id, _state(value))

  def start() -> None:
    nonlocal store
    store = new_store()
    manager.restore(server, store)

  def look() -> None:
    for client_id in range(_CHANGED):
      store.get(client_id)

  seconds = [
    _seconds(lambda: put(range(num_clients), 1)),
    _seconds(lambda: manager.save(1, server, store, [])),
  ]
  put(range(0, num_clients, num_clients // _CHANGED), 2)
  seconds += [
    _seconds(lambda: manager.save(2, server, store, [])),
    _seconds(start),
    _seconds(look),
  ]
  return StoreTimes(*seconds)


def _seconds(work: Callable[[], Any]) -> float:
  started = time.perf_counter()
  work()
  return time.perf_counter() - started


class Usage(NamedTuple):
  """Resources of a process."""

  states: int
  memory_mb: float
  descriptors: int
  threads: int
  temporary_files: int


def usage(store: client_store.ClientStateStore) -> Usage:
  """Returns the current resources of this process.

  Args:
    store: The client states in it.
  """
  this = psutil.Process()
  return Usage(
    len(store.client_ids()),
    this.memory_info().rss / 1e6,
    this.num_fds(),
    threading.active_count(),
    len(os.listdir(tempfile.gettempdir())),
  )


class Rounds(NamedTuple):
  """Measurements of a run of a population.

  Attributes:
    start: Seconds from the call to the end of the first evaluation.
    seconds: Seconds of each round, without evaluation and checkpoint.
    usages: After a third of the rounds, and after the last one.
  """

  start: float
  seconds: list[float]
  usages: list[Usage]


def time_rounds(
  num_clients: int, clients_per_round: int, rounds: int, directory: str
) -> Rounds:
  """Trains FedSA on clients of ten random images each, in TFF's context.

  Args:
    num_clients: Size of the population.
    clients_per_round: Those that take part in a round.
    rounds: How many.
    directory: Directory of checkpoints; one is written every ten rounds.
  """
  from tff_fedsa import simulation
  from tff_fedsa.algorithms import fedsa
  from tff_fedsa.data import input_spec
  from tff_fedsa.data import tasks
  from tff_fedsa.evaluation import client_evaluation
  from tff_fedsa.models import families

  rng = np.random.default_rng(0)
  spec = input_spec.InputSpec((8, 8, 1), 'uint8', 1 / 127.5, -1.0)

  def examples(size: int) -> dict[str, np.ndarray]:
    return {
      'x': rng.integers(0, 256, [size, 8, 8, 1]).astype(np.uint8),
      'y': rng.integers(0, _NUM_CLASSES, size).astype(np.int32),
    }

  task = tasks.FederatedTask(
    'random',
    spec,
    tuple(map(str, range(_NUM_CLASSES))),
    tuple(
      tasks.ClientExamples(examples(10), examples(2))
      for _ in range(num_clients)
    ),
  )
  models = families.build_family(
    'digits_mlp', spec.model_shape, _NUM_CLASSES, _FEATURE_DIM
  )
  process = fedsa.build_fedsa(models, input_spec=spec)
  store = client_store.MemoryStore(client_state.build_initial_state_fn(models))
  started = time.perf_counter()
  found = Rounds(0.0, [], [])

  def on_round(round_num: int, unused_row: Any) -> None:
    nonlocal started, found
    now = time.perf_counter()
    if round_num == 0:
      found = found._replace(start=now - started)
    elif round_num % 10:
      # Others have a checkpoint.
      found.seconds.append(now - started)
    if round_num in (rounds // 3, rounds):
      found.usages.append(usage(store))
    started = time.perf_counter()

  simulation.run(
    process,
    client_evaluation.build_evaluation(models, spec),
    task,
    store,
    simulation.SimulationConfig(
      total_rounds=rounds,
      clients_per_round=clients_per_round,
      rounds_per_evaluation=rounds,
      rounds_per_checkpoint=10,
    ),
    checkpoint_manager=checkpoints.CheckpointManager(directory),
    on_round=on_round,
  )
  return found


def time_rounds_of(
  runtime: str,
  num_clients: int,
  clients_per_round: int,
  rounds: int,
  directory: str,
) -> Rounds:
  """Returns `time_rounds` of a runtime, in a process of its own.

  Args:
    runtime: in_process or ray.
    num_clients: See `time_rounds`, also for the other arguments.
    clients_per_round: See there.
    rounds: See there.
    directory: An empty directory for all files.
  """
  sizes = num_clients, clients_per_round, rounds
  spawn = multiprocessing.get_context('spawn')
  with futures.ProcessPoolExecutor(1, spawn) as process:
    return process.submit(_start_and_time, runtime, sizes, directory).result()


def _start_and_time(
  runtime: str, sizes: tuple[int, int, int], directory: str
) -> Rounds:
  from tff_fedsa.execution import runtime as runtime_lib

  # Names of Ray's sockets have to be short.
  os.environ.setdefault('RAY_TMPDIR', tempfile.gettempdir())
  # Other programs have temporary files, too.
  tempfile.tempdir = os.environ['TMPDIR'] = os.path.join(directory, 'tmp')
  os.mkdir(tempfile.tempdir)
  runtime_lib.RuntimeConfig(runtime=runtime).start()
  return time_rounds(*sizes, os.path.join(directory, 'checkpoints'))


def _print_stores(sizes: Sequence[int]) -> None:
  print(
    '| clients | states | put of all | first checkpoint | checkpoint of '
    f'{_CHANGED} changed | start | first look at {_CHANGED} |\n'
    '|---|---|---|---|---|---|---|'
  )
  for size in sizes:
    for where in ('memory', 'disk'):
      with tempfile.TemporaryDirectory(dir=_DIRECTORY.value) as directory:
        times = time_store(size, where, directory)
      cells = ' | '.join(f'{seconds:.2f} s' for seconds in times)
      print(f'| {size:,} | {where} | {cells} |', flush=True)
  print()


def main(argv: Sequence[str]) -> None:
  """Measures and prints tables."""
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected arguments: {argv[1:]}')
  sizes = [int(size) for size in _CLIENTS.value]
  if _STORES.value:
    _print_stores(sizes)
  print(
    '| runtime | clients | start, with evaluation of all | round, median '
    '| states kept | memory, MB | descriptors | threads | temporary files |\n'
    '|---|---|---|---|---|---|---|---|---|'
  )
  for runtime in _RUNTIMES.value:
    for size in sizes:
      with tempfile.TemporaryDirectory(dir=_DIRECTORY.value) as directory:
        found = time_rounds_of(
          runtime, size, _CLIENTS_PER_ROUND.value, _ROUNDS.value, directory
        )
      changes = ' | '.join(
        f'{before:,.0f} to {after:,.0f}' for before, after in zip(*found.usages)
      )
      print(
        f'| {runtime} | {size:,} | {found.start:.1f} s | '
        f'{1e3 * statistics.median(found.seconds):.1f} ms | {changes} |',
        flush=True,
      )


if __name__ == '__main__':
  runner.run(main)
