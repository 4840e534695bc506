"""TFF execution contexts with clients on remote workers."""

from collections.abc import Sequence
import re
from typing import Any, Optional

import tensorflow_federated as tff

from tff_fedsa.execution import versions
from tff_fedsa.execution.in_process import contexts
from tff_fedsa.execution.in_process import executor
from tff_fedsa.execution.remote import client_pool
from tff_fedsa.runs import errors

_ADDRESS = re.compile(r'([\w.-]+|\[[0-9a-fA-F:.]+\]):(?P<port>\d{1,5})')


def set_remote_context(
  workers: Sequence[str], **options: Any
) -> contexts.InProcessContext:
  """Makes workers TFF's runtime; takes `create_remote_context`'s arguments."""
  context = create_remote_context(workers, **options)
  tff.framework.set_default_context(context)
  return context


def create_remote_context(
  workers: Sequence[str],
  *,
  max_concurrent_clients: Optional[int] = None,
  deadline_seconds: float = 60.0,
  default_num_clients: int = 0,
  secure_in_the_clear: bool = False,
  numpy_results: bool = True,
) -> contexts.InProcessContext:
  """Returns a synchronous context, connected to all workers.

  The workers run the clients' TensorFlow functions. Everything else runs in
  this process, in the order of the clients. So results do not depend on the
  assignment of clients to workers, and a lost worker only makes the round
  longer.

  Args:
    workers: 'host:port' of each worker, started by `tff-fedsa worker`.
    max_concurrent_clients: Clients sent to each worker at a time. Default: the
      cores of its machine.
    deadline_seconds: Time after which a silent worker is given up. Its clients
      go to other workers. If no worker is left, an error is raised. Workers
      answer while they compute, so clients may take longer.
    default_num_clients: See `in_process.contexts.create_in_process_context`.
    secure_in_the_clear: See there.
    numpy_results: See there.

  Raises:
    ValueError: If an address is malformed or given twice, or a number is out
      of range.
    versions.VersionError: If TFF, TensorFlow or Python have an unsupported
      version.
    client_pool.WorkersLostError: If a worker does not answer within a sixth of
      the deadline.
  """
  return contexts.InProcessContext(
    _connect(workers, max_concurrent_clients, deadline_seconds),
    default_num_clients=default_num_clients,
    secure_in_the_clear=secure_in_the_clear,
    numpy_results=numpy_results,
  )


def create_async_remote_context(
  workers: Sequence[str], **options: Any
) -> tff.framework.AsyncExecutionContext:
  """Makes one for `tff.program`; takes `create_remote_context`'s."""
  return create_remote_context(workers, **options).to_async()


def _connect(
  workers: Sequence[str],
  max_concurrent_clients: Optional[int],
  deadline_seconds: float,
) -> executor.Runtime:
  versions.require('remote', 'in_process')
  if isinstance(workers, str) or not workers:
    raise errors.UserError(
      f"Expected a list of workers ['host:port', ...], found {workers!r}."
    )
  for address in workers:
    match = _ADDRESS.fullmatch(address)
    if match is None or not 0 < int(match['port']) < 65536:
      raise errors.UserError(
        f"Expected 'host:port' of a worker, with a port of 1 to 65535, found "
        f'{address!r}.'
      )
  if len(set(workers)) < len(workers):
    raise errors.UserError(f'Expected each worker once, found {list(workers)}.')
  for name, number, least in (
    ('max_concurrent_clients', max_concurrent_clients, 1),
    ('deadline_seconds', deadline_seconds, 1),
  ):
    if number is not None and number < least:
      raise errors.UserError(f'Expected {name} >= {least}, found {number}.')
  return executor.Runtime(
    client_pool.RemoteClientPool(
      workers, max_concurrent_clients, deadline_seconds
    )
  )
