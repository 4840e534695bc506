"""The connection of this process to a Ray cluster."""

from collections.abc import Iterator, Mapping
import contextlib
import importlib.util
import ipaddress
import os
import signal
import socket
import sys
import threading
from typing import Any, Optional

from etils import epy

from tff_fedsa.execution.ray import certificates as certificates_lib
from tff_fedsa.runs import errors

with epy.lazy_imports():
  import ray

_LOOPBACK = '127.0.0.1'
# Ray reports how it is used, unless it is told not to.
_ENVIRONMENT = {'RAY_USAGE_STATS_ENABLED': '0'}


def require_ray() -> None:
  """Checks that Ray is installed.

  Raises:
    UserError: If it is not.
  """
  if importlib.util.find_spec('ray') is None:
    raise errors.UserError(
      'The runtime ray needs the package ray, which is not installed: `make '
      'setup-ray` (in a checkout) or `pip install tff_fedsa[ray]` installs it.'
    )


def connect(
  address: str,
  *,
  certificates: Optional[str] = None,
  insecure: bool = False,
  options: Optional[Mapping[str, Any]] = None,
) -> None:
  """Connects this process to a cluster, unless it is connected.

  Args:
    address: `local` starts a cluster of this machine, which ends with this
      process; `auto` looks for one that runs on this machine; HOST:PORT is the
      address of the cluster's head, of which a node runs on this machine.
    certificates: Directory of a set of certificates (`tff-fedsa certificates`),
      for TLS. Default: the environment variables of Ray (RAY_USE_TLS, …).
    insecure: Whether to connect without TLS to other machines.
    options: Further arguments of `ray.init`.

  Raises:
    UserError: If Ray is missing, the address is malformed, no cluster answers
      there, or the connection would not be encrypted.
  """
  require_ray()
  if certificates is not None:
    _use_certificates(certificates)
  if address not in ('local', 'auto'):
    host, separator, port = address.rpartition(':')
    if not (separator and host and port.isdecimal()):
      raise errors.UserError(
        f'Expected the address local, auto or HOST:PORT, found {address!r}.'
      )
    if not insecure and not uses_tls() and not _is_loopback(host):
      raise _unencrypted(address)
  if not ray.is_initialized():
    _start(address, dict(options or {}))
  elif address not in ('local', 'auto', head()):
    raise errors.UserError(
      f'This process is connected to the Ray cluster at {head()}, not to '
      f'{address}: call `ray.shutdown()` first.'
    )
  if not insecure and not uses_tls():
    hosts = {head().rpartition(':')[0]}
    hosts.update(node['NodeManagerAddress'] for node in ray.nodes())
    # Nodes with any other address, also of loopback, listen on all addresses.
    for host in sorted(hosts - {_LOOPBACK}):
      ray.shutdown()
      raise _unencrypted(host)


def head() -> str:
  """Returns the address of the head of the connected cluster."""
  return ray.get_runtime_context().gcs_address


def uses_tls() -> bool:
  """Returns whether Ray encrypts its connections and asks for certificates."""
  return os.environ.get('RAY_USE_TLS', '0').lower() in ('1', 'true')


def _use_certificates(directory: str) -> None:
  wanted = certificates_lib.environment(directory)
  if 'ray' in sys.modules and any(
    os.environ.get(name) != value for name, value in wanted.items()
  ):
    # Lazily imported modules are in `sys.modules` only after their first use.
    raise errors.UserError(
      'The certificates must be set before Ray is imported: start again, and '
      'make the context first.'
    )
  os.environ.update(wanted)


def _start(address: str, options: dict[str, Any]) -> None:
  for name, value in _ENVIRONMENT.items():
    os.environ.setdefault(name, value)
  if address == 'local':
    options = {
      'num_cpus': len(os.sched_getaffinity(0)),
      'include_dashboard': False,
      # Then Ray listens on this address only.
      '_node_ip_address': _LOOPBACK,
      **options,
    }
  try:
    with _kept_signal_handlers():
      ray.init(
        address=address,
        log_to_driver=False,
        logging_level='ERROR',
        **options,
      )
  except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
    raise errors.UserError(
      f'No Ray cluster answers at {address!r}: '
      f'{str(error).strip().partition(chr(10))[0]} Start a node of it on this '
      'machine with `ray start` (docs/clusters.md).'
    ) from error


@contextlib.contextmanager
def _kept_signal_handlers() -> Iterator[None]:
  """Gives SIGTERM its handler back, which Ray replaces."""
  if threading.current_thread() is not threading.main_thread():
    yield
    return
  handler = signal.getsignal(signal.SIGTERM)
  try:
    yield
  finally:
    signal.signal(signal.SIGTERM, handler)


def _is_loopback(host: str) -> bool:
  try:
    found = {info[4][0] for info in socket.getaddrinfo(host.strip('[]'), None)}
  except OSError:
    return False
  return all(ipaddress.ip_address(one).is_loopback for one in found)


def _unencrypted(where: str) -> errors.UserError:
  return errors.UserError(
    f'The connection to Ray at {where} would be neither encrypted nor '
    'protected by certificates: whoever reaches its ports can run any program '
    'there and here. `tff-fedsa certificates --directory=DIR` makes '
    'certificates for --certificates=DIR (docs/clusters.md); --insecure '
    'connects without them.'
  )
