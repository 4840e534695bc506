"""Measures the runtime ray: what travels, and what it costs.

  python -m benchmarks.ray_cluster

A cluster of processes of this machine: a head with the driver, and one or two
nodes with one core each, to which they are pinned. FedSA's rounds run there and
in process (as many clients at a time as there are nodes, on the same cores),
alternately. Printed are the seconds of a round (median), the ratio, the ratio
of the CPU seconds of all processes, which other programs on the machine disturb
less, and the megabytes (1e6 bytes) per round between the driver and the nodes.

Bytes are counted by the kernel: all TCP connections between processes of the
driver's node and processes of the other nodes (`ss`, of iproute2). This
includes Ray's own heartbeats.
"""

from collections.abc import Iterable, Iterator, Sequence
import contextlib
import os
import re
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from typing import Any

from absl import app
from absl import flags
import psutil

from benchmarks import overhead
from launch import runner

_NODES = flags.DEFINE_list('nodes', ['1', '2'], 'Numbers of nodes.')

_STORE_BYTES = 400 * 2**20

# --rounds, --num_clients, --num_examples and --models are those of
# benchmarks.overhead.


@contextlib.contextmanager
def pinned(cores: Iterable[int]) -> Iterator[None]:
  """This process, and processes it starts, have only these cores meanwhile."""
  before = os.sched_getaffinity(0)

  def pin(allowed: Iterable[int]) -> None:
    for thread in psutil.Process().threads():
      with contextlib.suppress(ProcessLookupError):
        os.sched_setaffinity(thread.id, allowed)

  pin(cores)
  try:
    yield
  finally:
    pin(before)


class Nodes:
  """A head without cores, and nodes pinned to one core each.

  Attributes:
    address: Address of the head.
  """

  def __init__(self, folder: str, count: int):
    """Starts the processes."""
    from ray import cluster_utils
    from ray._private import utils

    # Ray notes the address there, and does not make the folder.
    os.makedirs(
      os.path.dirname(utils.get_ray_address_file(None)), exist_ok=True
    )
    self._cluster = cluster_utils.Cluster(
      initialize_head=True,
      head_node_args={
        'num_cpus': 0,
        'include_dashboard': False,
        'object_store_memory': _STORE_BYTES,
        'temp_dir': folder,
      },
    )
    self.address = self._cluster.address
    self._nodes: list[Any] = []
    for _ in range(count):
      self.add()

  def add(self) -> None:
    """Starts one more node, of one core."""
    cores = sorted(os.sched_getaffinity(0))
    number = len(self._nodes)
    with pinned([cores[number % len(cores)]]):
      self._nodes.append(
        self._cluster.add_node(
          num_cpus=1,
          object_store_memory=_STORE_BYTES,
          node_ip_address=f'127.0.0.{number + 2}',
        )
      )

  def processes(self, number: int) -> list[psutil.Process]:
    """Returns the processes of a node."""
    found = []
    for kind in self._nodes[number].all_processes.values():
      for info in kind:
        with contextlib.suppress(psutil.NoSuchProcess):
          process = psutil.Process(info.process.pid)
          found += [process, *process.children(recursive=True)]
    return found

  def pids(self) -> set[int]:
    """Returns the processes of the nodes, without those of the head."""
    return {
      process.pid
      for number in range(len(self._nodes))
      for process in self.processes(number)
    }

  def cpu_seconds(self) -> float:
    """Returns the CPU time so far of this process, head and nodes."""
    this = psutil.Process()
    total = 0.0
    for process in [this, *this.children(recursive=True)]:
      with contextlib.suppress(psutil.NoSuchProcess):
        total += sum(process.cpu_times()[:2])
    return total

  def close(self) -> None:
    """Ends the processes."""
    for number in range(len(self._nodes)):
      for process in self.processes(number):
        with contextlib.suppress(psutil.NoSuchProcess):
          process.send_signal(signal.SIGCONT)
    self._cluster.shutdown()


@contextlib.contextmanager
def connected(count: int) -> Iterator[tuple[Nodes, Any]]:
  """Yields nodes, and a context that computes on them."""
  import ray

  from tff_fedsa.execution.ray import contexts

  folder = tempfile.mkdtemp(prefix='ray_')
  nodes = Nodes(folder, count)
  try:
    context = contexts.create_ray_context(
      nodes.address,
      insecure=True,
      results_stay=True,
      ray_options={'_node_ip_address': nodes.address.partition(':')[0]},
    )
    yield nodes, context
    context.runtime.pool.close()
  finally:
    ray.shutdown()
    nodes.close()
    shutil.rmtree(folder, ignore_errors=True)


def traffic(pids: set[int]) -> dict[Any, tuple[int, int]]:
  """Returns bytes to and from some processes, by their connection.

  Connections among these processes are left out.
  """
  listed = subprocess.run(
    ['ss', '-tinpHO'], capture_output=True, text=True, check=True
  ).stdout
  ours, found = set(), {}
  for line in listed.splitlines():
    owners = {int(pid) for pid in re.findall(r'pid=(\d+)', line)}
    fields = line.split()
    if owners & pids:
      local, peer = fields[3], fields[4]
      ours.add((local, peer))
      numbers = {
        name: int(number)
        for name, number in re.findall(r'(bytes_\w+):(\d+)', line)
      }
      found[local, peer] = (
        numbers.get('bytes_received', 0),
        numbers.get('bytes_acked', 0),
      )
  return {key: value for key, value in found.items() if key[::-1] not in ours}


def difference(
  before: dict[Any, tuple[int, int]], after: dict[Any, tuple[int, int]]
) -> tuple[float, float]:
  """Returns the megabytes to the processes and back between two counts."""
  sums = [0, 0]
  for key, numbers in after.items():
    for i, number in enumerate(numbers):
      sums[i] += number - before.get(key, (0, 0))[i]
  return sums[0] / 1e6, sums[1] / 1e6


def main(argv: Sequence[str]) -> None:
  """Measures and prints a table."""
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected arguments: {argv[1:]}')
  import tensorflow_federated as tff

  from tff_fedsa.execution.in_process import contexts

  # Before TensorFlow starts.
  contexts.set_in_process_context(intra_op_threads=1)
  values = flags.FLAGS
  workload = overhead.Workload(
    values.models[0],
    int(values.batch_sizes[0]),
    values.num_clients,
    values.num_examples,
  )
  contender = overhead.build_federated(workload)
  print(
    '| nodes | in process, s | ray, s | ratio | of CPU seconds | '
    'MB to nodes, first round | later | MB back, first round | later |'
  )
  print('|---|---|---|---|---|---|---|---|---|')
  cores = sorted(os.sched_getaffinity(0))
  for count in map(int, _NODES.value):
    local = contexts.create_in_process_context(
      max_concurrent_clients=count, intra_op_threads=1
    )
    with connected(count) as (nodes, context):
      seconds: dict[Any, list[float]] = {local: [], context: []}
      cpu: dict[Any, list[float]] = {local: [], context: []}
      states = {local: contender.initial, context: contender.initial}
      moved = []
      for _ in range(values.rounds + 2):
        for one in (local, context):
          tff.framework.set_default_context(one)
          before = traffic(nodes.pids())
          with pinned(cores[:count] if one is local else cores):
            started, cpu_started = time.perf_counter(), nodes.cpu_seconds()
            states[one] = contender.next(states[one])
            seconds[one].append(time.perf_counter() - started)
            cpu[one].append(nodes.cpu_seconds() - cpu_started)
          if one is context:
            moved.append(difference(before, traffic(nodes.pids())))
      median = [statistics.median(seconds[one][2:]) for one in seconds]
      used = [statistics.median(cpu[one][2:]) for one in cpu]
      to, back = zip(*moved)
      print(
        f'| {count} | {median[0]:.2f} | {median[1]:.2f} | '
        f'{median[1] / median[0]:.2f} | {used[1] / used[0]:.2f} | '
        f'{to[0]:.2f} | '
        f'{statistics.median(to[2:]):.2f} | {back[0]:.2f} | '
        f'{statistics.median(back[2:]):.2f} |',
        flush=True,
      )


if __name__ == '__main__':
  runner.run(main)
