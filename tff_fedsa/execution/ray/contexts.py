"""TFF execution contexts with clients on a Ray cluster."""

from collections.abc import Mapping
from typing import Any, Optional
import weakref

import tensorflow_federated as tff
import tree

from tff_fedsa.execution import arrays
from tff_fedsa.execution import versions
from tff_fedsa.execution.in_process import contexts
from tff_fedsa.execution.in_process import executor
from tff_fedsa.execution.ray import client_pool
from tff_fedsa.execution.ray import cluster
from tff_fedsa.execution.ray import fleet
from tff_fedsa.runs import errors

# Contexts with equal options share their actors, which take all cores.
_pools: weakref.WeakValueDictionary[Any, client_pool.RayClientPool] = (
  weakref.WeakValueDictionary()
)


def set_ray_context(
  address: str = 'local', **options: Any
) -> contexts.InProcessContext:
  """Makes a cluster TFF's runtime; takes `create_ray_context`'s arguments."""
  context = create_ray_context(address, **options)
  tff.framework.set_default_context(context)
  return context


def create_ray_context(
  address: str = 'local',
  *,
  max_concurrent_clients: Optional[int] = None,
  intra_op_threads: Optional[int] = None,
  deterministic_ops: bool = False,
  tf32: bool = True,
  jit_compile: bool = False,
  certificates: Optional[str] = None,
  insecure: bool = False,
  deadline_seconds: float = 60.0,
  rounds_per_copy: int = 10,
  default_num_clients: int = 0,
  secure_in_the_clear: bool = False,
  numpy_results: bool = True,
  results_stay: bool = False,
  ray_options: Optional[Mapping[str, Any]] = None,
) -> contexts.InProcessContext:
  """Returns a synchronous context, with actors on all nodes of a cluster.

  Each GPU of the cluster has an actor, or each group of up to 8 cores on nodes
  without GPUs. Actors run the clients' TensorFlow functions. Everything else
  runs in this process, in the order of the clients. So results do not depend on
  the assignment of clients to actors, and a lost actor only makes the round
  longer.

  Args:
    address: `local`: a cluster of this machine, which ends with this process;
      `auto`: the one that runs on this machine; HOST:PORT: the address of the
      head of a cluster that has a node on this machine.
    max_concurrent_clients: Clients at a time of an actor. Default: one per
      core, 2 on a GPU.
    intra_op_threads: Threads of one operation on the CPU. Default: the cores of
      an actor divided by its clients at a time. The last digits of results
      depend on it.
    deterministic_ops: Whether actors use only kernels that give the same bits
      in every run.
    tf32: Whether GPUs may round inputs of matrix products to TensorFloat-32.
    jit_compile: See `in_process.contexts.create_in_process_context`.
    certificates: Directory of certificates (`tff-fedsa certificates`), for
      encrypted connections. Default: Ray's environment variables.
    insecure: Whether to connect to other machines without encryption.
    deadline_seconds: Time after which a silent actor is given up: after half of
      it other actors get its clients. If no actor is left for that time, an
      error is raised. Actors answer while they compute, so clients may take
      longer.
    rounds_per_copy: Computations in a row after which a result that stays on
      its node is copied to the disk of this process. After the loss of a node
      at most that many are repeated.
    default_num_clients: See there.
    secure_in_the_clear: See there.
    numpy_results: See there.
    results_stay: Whether large values of clients in results stay where they
      were computed (`arrays.RemoteArray`), until their values are used.
    ray_options: Further arguments of `ray.init`.

  Raises:
    UserError: If Ray is missing, no cluster answers, or the connection would
      not be encrypted.
    ValueError: If a number is less than 1.
    versions.VersionError: If Python, TensorFlow or TFF have an unsupported
      version.
    fleet.ClusterError: If no node of the cluster can compute.
  """
  pool = _connect(
    address,
    fleet.ActorOptions(
      max_concurrent_clients, intra_op_threads, deterministic_ops, tf32
    ),
    certificates=certificates,
    insecure=insecure,
    deadline_seconds=deadline_seconds,
    rounds_per_copy=rounds_per_copy,
    ray_options=ray_options,
  )
  return contexts.InProcessContext(
    executor.Runtime(pool),
    only_cpus=pool.only_cpus,
    jit_compile=jit_compile,
    default_num_clients=default_num_clients,
    secure_in_the_clear=secure_in_the_clear,
    numpy_results=numpy_results,
    fetch_results=_keep if results_stay else _fetch,
  )


def create_async_ray_context(
  address: str = 'local', **options: Any
) -> tff.framework.AsyncExecutionContext:
  """Makes one for `tff.program`; takes `create_ray_context`'s."""
  return create_ray_context(address, **options).to_async()


def _keep(result: Any) -> Any:
  return result


def _fetch(result: Any) -> Any:
  return tree.traverse(_fetched, result)


def _fetched(value: Any) -> Any:
  return value.fetch() if isinstance(value, arrays.RemoteArray) else None


def _connect(
  address: str,
  options: fleet.ActorOptions,
  *,
  certificates: Optional[str],
  insecure: bool,
  deadline_seconds: float,
  rounds_per_copy: int,
  ray_options: Optional[Mapping[str, Any]],
) -> client_pool.RayClientPool:
  versions.require('ray', 'in_process')
  for name, number in (
    ('max_concurrent_clients', options.max_concurrent_clients),
    ('intra_op_threads', options.intra_op_threads),
    ('deadline_seconds', deadline_seconds),
    ('rounds_per_copy', rounds_per_copy),
  ):
    if number is not None and number < 1:
      raise errors.UserError(f'Expected {name} >= 1, found {number}.')
  cluster.connect(
    address, certificates=certificates, insecure=insecure, options=ray_options
  )
  key = cluster.head(), options, deadline_seconds, rounds_per_copy
  pool = _pools.get(key)
  if pool is None or pool.is_closed:
    pool = _pools[key] = client_pool.RayClientPool(
      options,
      deadline_seconds=deadline_seconds,
      rounds_per_copy=rounds_per_copy,
    )
  return pool
