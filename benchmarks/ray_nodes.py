"""Ray clusters of several nodes on this machine, for measurements and tests."""

from collections.abc import Iterable, Iterator, Mapping
import contextlib
import os
import shutil
import signal
import tempfile
from typing import Any, Optional

import psutil


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
    nodes: Ray's objects of the other nodes, lost ones too.
  """

  def __init__(
    self,
    folder: str,
    count: int,
    *,
    store_bytes: int,
    system_config: Optional[Mapping[str, Any]],
  ):
    """Starts the processes."""
    os.environ['RAY_USAGE_STATS_ENABLED'] = '0'
    # Its import takes a second.
    from ray import cluster_utils
    from ray._private import utils

    # Ray notes the latest cluster's address there, and does not make the folder
    # if a cluster has another one for its own files.
    os.makedirs(
      os.path.dirname(utils.get_ray_address_file(None)), exist_ok=True
    )
    self._store = {'object_store_memory': store_bytes}
    self._cluster = cluster_utils.Cluster(
      initialize_head=True,
      head_node_args={
        'num_cpus': 0,
        'include_dashboard': False,
        'temp_dir': folder,
        '_system_config': dict(system_config or {}),
        **self._store,
      },
    )
    self.address = self._cluster.address
    self.nodes: list[Any] = []
    for _ in range(count):
      self.add()

  def add(self) -> Any:
    """Starts one more node, of one core, and returns it."""
    cores = sorted(os.sched_getaffinity(0))
    number = len(self.nodes)
    with pinned([cores[number % len(cores)]]):
      self.nodes.append(
        self._cluster.add_node(
          num_cpus=1,
          # The driver belongs to the node that has its address.
          node_ip_address=f'127.0.0.{number + 2}',
          **self._store,
        )
      )
    return self.nodes[-1]

  def close(self) -> None:
    """Ends the processes."""
    for node in self.nodes:
      send(node, signal.SIGCONT)
    self._cluster.shutdown()


def processes(node: Any) -> list[psutil.Process]:
  """Returns the processes of a node that run."""
  found = []
  for kind in node.all_processes.values():
    for info in kind:
      with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(info.process.pid)
        found += [process, *process.children(recursive=True)]
  return found


def send(node: Any, number: int) -> None:
  """Sends a signal to all processes of a node."""
  for process in processes(node):
    with contextlib.suppress(psutil.NoSuchProcess):
      process.send_signal(number)


def kill_actors(node: Any) -> None:
  """Kills the actors of a node, but not the node."""
  for process in processes(node):
    with contextlib.suppress(psutil.NoSuchProcess):
      # Ray names the process of an actor after its class.
      if process.name().startswith('ray::'):
        process.kill()


@contextlib.contextmanager
def connected(
  count: int,
  *,
  store_bytes: int = 400 * 2**20,
  system_config: Optional[Mapping[str, Any]] = None,
  **options: Any,
) -> Iterator[tuple[Nodes, Any]]:
  """Yields nodes, and a context that computes on them.

  Args:
    count: Nodes beside the head.
    store_bytes: Bytes of each node's object store.
    system_config: Ray's own settings, such as those of its health checks.
    **options: Arguments of `create_ray_context`.
  """
  import ray

  from tff_fedsa.execution.ray import contexts

  # The paths of Ray's sockets are too long in other folders.
  folder = tempfile.mkdtemp(prefix='ray_')
  nodes = Nodes(
    folder, count, store_bytes=store_bytes, system_config=system_config
  )
  context = None
  try:
    context = contexts.create_ray_context(
      nodes.address,
      results_stay=True,
      # That of the head. The other nodes may be lost.
      ray_options={'_node_ip_address': nodes.address.partition(':')[0]},
      **{'insecure': True, **options},
    )
    yield nodes, context
  finally:
    if context is not None:
      context.runtime.pool.close()
    ray.shutdown()
    nodes.close()
    shutil.rmtree(folder, ignore_errors=True)
