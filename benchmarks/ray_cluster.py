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

from collections.abc import Sequence
import contextlib
import os
import re
import statistics
import subprocess
import time
from typing import Any

from absl import app
from absl import flags
import psutil

from benchmarks import overhead
from benchmarks import ray_nodes
from launch import runner

_NODES = flags.DEFINE_list('nodes', ['1', '2'], 'Numbers of nodes.')

# --rounds, --num_clients, --num_examples and --models are those of
# benchmarks.overhead.


def _pids(nodes: ray_nodes.Nodes) -> set[int]:
  """Returns the processes of the nodes, without those of the head."""
  return {
    process.pid for node in nodes.nodes for process in ray_nodes.processes(node)
  }


def _cpu_seconds() -> float:
  """Returns the CPU time so far of this process, head and nodes."""
  this = psutil.Process()
  total = 0.0
  for process in [this, *this.children(recursive=True)]:
    with contextlib.suppress(psutil.NoSuchProcess):
      total += sum(process.cpu_times()[:2])
  return total


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
    with ray_nodes.connected(count) as (nodes, context):
      seconds: dict[Any, list[float]] = {local: [], context: []}
      cpu: dict[Any, list[float]] = {local: [], context: []}
      states = {local: contender.initial, context: contender.initial}
      moved = []
      for _ in range(values.rounds + 2):
        for one in (local, context):
          tff.framework.set_default_context(one)
          before = traffic(_pids(nodes))
          with ray_nodes.pinned(cores[:count] if one is local else cores):
            started, cpu_started = time.perf_counter(), _cpu_seconds()
            states[one] = contender.next(states[one])
            seconds[one].append(time.perf_counter() - started)
            cpu[one].append(_cpu_seconds() - cpu_started)
          if one is context:
            moved.append(difference(before, traffic(_pids(nodes))))
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
