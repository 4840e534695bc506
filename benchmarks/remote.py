"""Measures the traffic to workers and back, and its cost.

  python -m benchmarks.remote
  python -m benchmarks.remote --cases=stateful

Two workers on this machine, reached through relays that count; the cases are
those of benchmarks.runtime. Printed are the megabytes (1e6 bytes) of a round in
each direction, all clients and workers together, and the median seconds of a
round, directly connected, next to those in process. Here both share the same
cores and no network is in between: what is left is the cost of sending.
"""

import collections
from collections.abc import Sequence
import os
import socket
import statistics
import threading
import time

from absl import app
from absl import flags
import portpicker

from benchmarks import runtime
from launch import runner

# --cases and --rounds are those of benchmarks.runtime.
_DEFAULT_CASES = ('fed_avg_10', 'stateful_1', 'data_set_6mb', 'fed_sa')


class Relay:
  """Forwards connections, and counts their bytes.

  Attributes:
    port: Port at which it listens.
    sent: Bytes to the target.
    received: Bytes from it.
  """

  def __init__(self, target_port: int):
    """Starts to listen."""
    self.sent = self.received = 0
    self._target = target_port
    self._server = socket.create_server(('localhost', 0))
    self.port = self._server.getsockname()[1]
    threading.Thread(target=self._accept, daemon=True).start()

  def _accept(self) -> None:
    while True:
      near, _ = self._server.accept()
      far = socket.create_connection(('localhost', self._target))
      for source, sink, is_sent in ((near, far, True), (far, near, False)):
        threading.Thread(
          target=self._pass_on, args=(source, sink, is_sent), daemon=True
        ).start()

  def _pass_on(
    self, source: socket.socket, sink: socket.socket, is_sent: bool
  ) -> None:
    try:
      while data := source.recv(1 << 18):
        if is_sent:
          self.sent += len(data)
        else:
          self.received += len(data)
        sink.sendall(data)
    except OSError:
      pass
    sink.close()


def main(argv: Sequence[str]) -> None:
  """Measures and prints a table."""
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected arguments: {argv[1:]}')
  import tensorflow_federated as tff

  from tff_fedsa.execution import workers
  from tff_fedsa.execution.in_process import contexts as in_process
  from tff_fedsa.execution.remote import contexts as remote

  local = in_process.create_in_process_context()
  workers.end_with_this_process()
  ports = [portpicker.pick_unused_port() for _ in range(2)]
  # Like `tff-fedsa worker` on a machine with half the cores.
  clients = max(1, len(os.sched_getaffinity(0)) // 2)
  for port in ports:
    workers.OwnedWorker(
      [
        workers.binary_path(),
        f'--port={port}',
        f'--max_concurrent_computation_calls={clients}',
      ]
    )
  relays = [Relay(port) for port in ports]
  direct, counted = (
    remote.create_remote_context(
      [f'localhost:{port}' for port in used], max_concurrent_clients=clients
    )
    for used in (ports, [relay.port for relay in relays])
  )
  print('| case | MB to workers | MB back | in process, s | remote, s |')
  print('|---|---|---|---|---|')
  for name, build in runtime.CASES.items():
    if name.startswith(tuple(flags.FLAGS.cases) or _DEFAULT_CASES):
      case = build()
      tff.framework.set_default_context(counted)
      # Functions are sent once, not in every round.
      state = case.next(case.initialize())
      before = [(relay.sent, relay.received) for relay in relays]
      case.next(state)
      sent = sum(r.sent - b[0] for r, b in zip(relays, before)) / 1e6
      back = sum(r.received - b[1] for r, b in zip(relays, before)) / 1e6
      seconds = collections.defaultdict(list)
      for _ in range(flags.FLAGS.rounds + 1):
        for context in (local, direct):
          tff.framework.set_default_context(context)
          started = time.perf_counter()
          state = case.next(state)
          seconds[context].append(time.perf_counter() - started)
      print(
        f'| {name} | {sent:.2f} | {back:.2f} | '
        + ' | '.join(
          f'{statistics.median(seconds[context][1:]):.3f}'
          for context in (local, direct)
        )
        + ' |',
        flush=True,
      )


if __name__ == '__main__':
  runner.run(main)
