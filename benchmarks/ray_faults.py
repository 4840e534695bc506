"""Breaks a Ray cluster during a round, and measures what it costs.

  python -m benchmarks.ray_faults

Two nodes of one core each (processes of this machine) compute twelve clients,
whose states stay on the nodes. During the third of six rounds something is
lost. Printed are the seconds of that round and of all later ones, the seconds
without a fault, and whether the states in the end have the bits of an
undisturbed run in process. Times depend on `deadline_seconds` (60, the
default) and on Ray's own checks of its nodes.

The last row kills the driver, a program that trains with checkpoints, and
resumes it.
"""

from collections.abc import Callable, Sequence
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any

from absl import app
import numpy as np

from benchmarks import ray_nodes
from launch import runner

_STEPS = 60_000
_CLIENTS = 12
_ROUNDS = 6


def _freeze_for_a_while(node: Any) -> None:
  ray_nodes.send(node, signal.SIGSTOP)
  # It is given up after 30 s: half of `deadline_seconds`.
  time.sleep(40.0)
  ray_nodes.send(node, signal.SIGCONT)


def _first(break_fn: Callable[..., None], *arguments: Any) -> Callable:
  """Returns a function that breaks the first of the nodes."""
  return lambda nodes: break_fn(nodes.nodes[0], *arguments)


FAULTS: dict[str, Callable[[ray_nodes.Nodes], Any]] = {
  'none': lambda nodes: None,
  'an actor is killed': _first(ray_nodes.kill_actors),
  'a node is killed': _first(ray_nodes.send, signal.SIGKILL),
  'a node freezes': _first(ray_nodes.send, signal.SIGSTOP),
  'a node freezes for 40 s': _first(_freeze_for_a_while),
  'a node joins': ray_nodes.Nodes.add,
}


def _build_round() -> Callable[[list[Any]], list[Any]]:
  import tensorflow as tf
  import tensorflow_federated as tff

  state_type = tff.TensorType(np.float32, [None])

  @tff.tensorflow.computation(state_type)
  def step(x):
    limit = tf.constant(_STEPS) + tf.cast(x[0] * 0, tf.int32)
    (steps,) = tf.while_loop(lambda i: i < limit, lambda i: (i + 1,), (0,))
    return tf.sin(x) + tf.cast(steps, tf.float32)

  @tff.federated_computation(tff.FederatedType(state_type, tff.CLIENTS))
  def next_states(states):
    return tff.federated_map(step, states)

  return lambda states: list(next_states(states))


def _first_states() -> list[np.ndarray]:
  return [np.arange(100_000, dtype=np.float32) + i for i in range(_CLIENTS)]


def measure(fault: str, run: Callable[[list[Any]], list[Any]]) -> Any:
  """Returns the seconds of each round, and the states in the end."""
  import tensorflow_federated as tff

  with ray_nodes.connected(2) as (nodes, context):
    tff.framework.set_default_context(context)
    states: list[Any] = _first_states()
    seconds = []
    for number in range(_ROUNDS):
      timer = threading.Timer(0.3, FAULTS[fault], [nodes])
      started = time.perf_counter()
      if number == 2:
        timer.start()
      states = run(states)
      seconds.append(time.perf_counter() - started)
      if number == 2:
        timer.join()
    return seconds, [np.asarray(state) for state in states]


def resume() -> tuple[float, bool]:
  """Returns seconds of a killed and resumed run, and whether it is equal.

  The rows of an undisturbed run in process are those that are expected.
  """
  with tempfile.TemporaryDirectory() as folder:

    def start(name: str, runtime: str) -> subprocess.Popen:
      return subprocess.Popen(
        [
          *(sys.executable, '-m', 'launch.train', '--flagfile=fedsa.digits'),
          *('--total_rounds=8', '--rounds_per_checkpoint=1', '--noprogress'),
          *(f'--runtime={runtime}', f'--root_output_dir={folder}'),
          f'--experiment_name={name}',
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
      )

    assert start('whole', 'in_process').wait() == 0
    path = os.path.join(folder, 'killed', 'metrics.csv')
    process = start('killed', 'ray')
    while process.poll() is None and _num_lines(path) < 5:
      time.sleep(0.02)
    process.kill()
    process.wait()
    was_killed = _num_lines(path) < 10
    started = time.perf_counter()
    assert start('killed', 'ray').wait() == 0
    seconds = time.perf_counter() - started
    from tff_fedsa.runs import metrics
    from tff_fedsa.runs import recorders

    rows = [
      [
        {k: v for k, v in row.items() if k not in metrics.VOLATILE_COLUMNS}
        for row in recorders.read_csv(os.path.join(folder, name, 'metrics.csv'))
      ]
      for name in ('whole', 'killed')
    ]
    return seconds, was_killed and rows[0] == rows[1]


def _num_lines(path: str) -> int:
  if not os.path.exists(path):
    return 0
  with open(path) as file:
    return len(file.readlines())


def main(argv: Sequence[str]) -> None:
  """Prints the table."""
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected arguments: {argv[1:]}')
  from tff_fedsa.execution.in_process import contexts

  contexts.set_in_process_context(intra_op_threads=1)
  run = _build_round()
  expected: list[Any] = _first_states()
  for _ in range(_ROUNDS):
    expected = run(expected)
  print('| fault | round before, s | its round, s | later rounds, s | equal |')
  print('|---|---|---|---|---|')
  for fault in FAULTS:
    seconds, states = measure(fault, run)
    equal = all(map(np.array_equal, states, expected))
    later = ', '.join(f'{one:.1f}' for one in seconds[3:])
    print(
      f'| {fault} | {seconds[1]:.1f} | {seconds[2]:.1f} | {later} | '
      f'{"yes" if equal else "no"} |',
      flush=True,
    )
  seconds, equal = resume()
  print(
    f'| the driver is killed, and resumed |  | {seconds:.1f} until the end |  '
    f'| {"yes" if equal else "no"} |'
  )


if __name__ == '__main__':
  runner.run(main)
