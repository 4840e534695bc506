"""Computes clients for a run on another machine, with TFF's own worker.

  tff-fedsa worker --port=8000

The run names the workers: `tff-fedsa train --runtime=remote
--workers=host1:8000,host2:8000 …`. docs/runtimes.md explains how to connect the
machines.

The worker has no password and no encryption. Whoever can connect can compute
anything as the user who started it, and read that user's files. So by default
only this machine can connect, for example through an SSH tunnel. --host opens
other addresses. The worker ends when this program ends, for any reason.
"""

from collections.abc import Sequence
import getpass
import os
import signal
import socket
import sys
import time

from absl import app
from absl import flags

from tff_fedsa.execution import port_guard
from tff_fedsa.execution import workers

_PORT = flags.DEFINE_integer(
  'port', 8000, 'Port to listen on.', lower_bound=1, upper_bound=65535
)
_HOST = flags.DEFINE_string(
  'host',
  'localhost',
  'Address at which the worker accepts connections. localhost: from this '
  'machine only; an address of this machine, e.g. in a private network: also '
  'through that address; all: through every address.',
)
_MAX_CONCURRENT_CLIENTS = flags.DEFINE_integer(
  'max_concurrent_clients',
  None,
  'Clients computed at a time. Default: one per core.',
  lower_bound=1,
)

_MAX_MESSAGE_MEGABYTES = 2000


def main(argv: Sequence[str]) -> None:
  """Runs the worker until it is told to stop."""
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected arguments: {argv[1:]}')
  try:
    serve()
  except FileNotFoundError as error:
    sys.exit(f'error: {error}')
  except OSError as error:
    sys.exit(f'error: port {_PORT.value} cannot be used: {error.strerror}')
  except KeyboardInterrupt:
    sys.exit(128 + signal.SIGINT)


def serve() -> None:
  """Starts the worker and guards its port; returns only by an exception."""
  port = _PORT.value
  cores = len(os.sched_getaffinity(0))
  at_a_time = _MAX_CONCURRENT_CLIENTS.value or cores
  port_guard.require_free(port)
  guard = _build_guard(port)
  workers.end_with_this_process()
  # Errors only. Otherwise the worker would say that it listens on all
  # addresses, which is true only without the guard.
  level = os.environ.get('TF_CPP_MIN_LOG_LEVEL', '2')
  os.environ['TF_CPP_MIN_LOG_LEVEL'] = min(level, '2')
  worker = workers.OwnedWorker(
    [
      workers.binary_path(),
      f'--port={port}',
      f'--max_concurrent_computation_calls={at_a_time}',
      f'--grpc_max_message_length_megabytes={_MAX_MESSAGE_MEGABYTES}',
    ],
    log=None,
  )
  while not worker.has_ended() and not _listens(port):
    time.sleep(0.1)
  if not worker.has_ended():
    print(
      f"TFF's worker listens on port {port} (clients at a time: {at_a_time}); "
      f'whoever can connect acts as user {getpass.getuser()}: {_who()}.',
      flush=True,
    )
  while not worker.has_ended():
    guard.turn_away(1.0)
  sys.exit(f'error: the worker ended with status {worker.wait()}')


def _build_guard(port: int) -> port_guard.PortGuard:
  addresses = port_guard.machine_addresses()
  if _HOST.value == 'all':
    return port_guard.PortGuard(port, addresses)
  if _HOST.value == 'localhost':
    return port_guard.PortGuard(port)
  if _HOST.value not in addresses:
    sys.exit(
      f'error: --host={_HOST.value} is none of localhost, all, '
      f'{", ".join(sorted(addresses))}'
    )
  return port_guard.PortGuard(port, [_HOST.value])


def _who() -> str:
  if _HOST.value == 'localhost':
    return 'all users of this machine'
  if _HOST.value == 'all':
    return 'all machines that reach this one'
  return f'all users of this machine, all machines that reach {_HOST.value}'


def _listens(port: int) -> bool:
  try:
    socket.create_connection(('localhost', port), 1.0).close()
    return True
  except OSError:
    return False


if __name__ == '__main__':
  app.run(main)
