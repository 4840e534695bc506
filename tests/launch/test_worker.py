"""`launch.worker`: who can connect, and its end."""

import signal
import socket
import subprocess
import sys

import portpicker
import psutil
import pytest

from tff_fedsa.execution import port_guard

# Jobs in the background of a shell ignore SIGINT.
_PROGRAM = """
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module('launch.worker', run_name='__main__', alter_sys=True)
"""


def _start(*arguments):
  port = portpicker.pick_unused_port()
  program = subprocess.Popen(
    [sys.executable, '-c', _PROGRAM, f'--port={port}', *arguments],
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )
  lines = []
  for line in program.stdout:
    lines.append(line)
    if f'port {port}' in line:
      (worker,) = psutil.Process(program.pid).children()
      return program, worker, port, line
  raise AssertionError(f'It ended with {program.wait()}: {lines}')


def _is_answered(host, port):
  """Returns whether the other side speaks first, as HTTP/2 servers do."""
  with socket.create_connection((host, port), 60) as connection:
    connection.settimeout(60)
    try:
      return bool(connection.recv(9))
    except ConnectionResetError:
      return False


@pytest.mark.parametrize(
  'number, status',
  [
    (signal.SIGINT, 128 + signal.SIGINT),
    (signal.SIGTERM, 128 + signal.SIGTERM),
    (signal.SIGKILL, -signal.SIGKILL),
  ],
)
def test_the_worker_ends_with_the_program(number, status):
  program, worker, port, _ = _start()
  assert worker.is_running()
  program.send_signal(number)
  # Reads to the end of the pipe: hangs if the worker holds it.
  program.communicate(timeout=120)
  assert program.returncode == status
  psutil.wait_procs([worker], timeout=60)
  assert not worker.is_running()
  port_guard.require_free(port)


def test_the_program_ends_with_the_worker():
  program, worker, _, _ = _start()
  worker.kill()
  assert program.wait(timeout=120) == 1


def test_only_this_machine_is_let_in_unless_asked_for():
  addresses = sorted(port_guard.machine_addresses())
  if not addresses:
    pytest.skip('This machine has no address but loopback.')
  closed, _, port, line = _start()
  assert 'all users of this machine' in line
  assert _is_answered('localhost', port)
  for address in addresses:
    assert not _is_answered(address, port), address
  closed.kill()
  closed.communicate()
  opened, _, port, line = _start(f'--host={addresses[0]}')
  assert f'all machines that reach {addresses[0]}' in line
  assert _is_answered('localhost', port)
  for address in addresses:
    assert _is_answered(address, port) == (address == addresses[0]), address
  opened.kill()
  opened.communicate()


def test_guards_follow_the_addresses_of_the_machine(monkeypatch):
  port = portpicker.pick_unused_port()
  monkeypatch.setattr(port_guard, 'machine_addresses', set)
  guard = port_guard.PortGuard(port)
  with pytest.raises(ConnectionRefusedError):
    socket.create_connection(('127.0.0.2', port))
  # As if the machine had got another address.
  monkeypatch.setattr(port_guard, 'machine_addresses', lambda: {'127.0.0.2'})
  guard.turn_away(0)
  with socket.create_connection(('127.0.0.2', port), 10) as connection:
    guard.turn_away(10)
    assert connection.recv(1) == b''
  monkeypatch.setattr(port_guard, 'machine_addresses', set)
  guard.turn_away(0)
  with pytest.raises(ConnectionRefusedError):
    socket.create_connection(('127.0.0.2', port))
  guard.close()


@pytest.mark.parametrize(
  'arguments, message',
  [
    (['--port={taken}'], 'port {taken} cannot be used: Address already in use'),
    (['--host=256.0.0.1'], '--host=256.0.0.1 is none of localhost, all'),
    (['--max_concurrent_clients=0'], 'max_concurrent_clients'),
    (['--port=0'], 'port'),
    (['host1:80'], 'Unexpected arguments'),
  ],
)
def test_what_cannot_be_done_is_said_in_one_line(arguments, message):
  with socket.create_server(('localhost', 0)) as server:
    taken = server.getsockname()[1]
    result = subprocess.run(
      [
        sys.executable,
        '-m',
        'launch.worker',
        *(argument.format(taken=taken) for argument in arguments),
      ],
      capture_output=True,
      text=True,
      timeout=120,
    )
  assert result.returncode != 0
  assert message.format(taken=taken) in result.stdout + result.stderr
  assert 'Traceback' not in result.stderr
