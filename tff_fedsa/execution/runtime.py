"""Settings of the runtime: where clients are computed."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Annotated, Optional

from etils import epy

from tff_fedsa import settings

with epy.lazy_imports():
  import tensorflow as tf

  from tff_fedsa.execution import native
  from tff_fedsa.execution.in_process import contexts
  from tff_fedsa.execution.remote import contexts as remote_contexts

RUNTIMES = ('in_process', 'native', 'remote')


@dataclasses.dataclass(frozen=True)
class RuntimeConfig(settings.Settings):
  """The runtime that computes clients.

  Attributes:
    runtime: Runtime of the clients. in_process: this process, on GPUs if there
      are any; native: TFF's stock C++ runtime in a child process, on CPUs only;
      remote: the same C++ runtime on other machines, see `workers`.
    workers: host:port of each worker, separated by commas (runtime remote
      only). `tff-fedsa worker` starts a worker on its host
      (docs/runtimes.md).
    max_concurrent_clients: Clients computed at a time (on each GPU or worker),
      >= 1. Default: one per core, 2 on a GPU.
    intra_op_threads: Threads of one operation with the runtime in_process,
      >= 1. Default: the cores divided by the clients computed at a time. The
      last digits of results depend on it.
    deterministic_ops: Whether to use only kernels that give the same bits in
      every run (runtime in_process). GPUs have faster kernels. The last digits
      of results depend on it.
    tf32: Whether GPUs may round the inputs of matrix products and convolutions
      to TensorFloat-32, which is faster on NVIDIA's Ampere and later (runtime
      in_process). It is TensorFlow's default.
  """

  runtime: Annotated[str, settings.OneOf(RUNTIMES)] = 'in_process'
  workers: Annotated[tuple[str, ...], settings.Free()] = ()
  max_concurrent_clients: Annotated[
    Optional[int], settings.AtLeast(1), settings.Free()
  ] = None
  intra_op_threads: Annotated[Optional[int], settings.AtLeast(1)] = None
  deterministic_ops: bool = False
  tf32: bool = True

  def __post_init__(self):
    super().__post_init__()
    if self.runtime == 'remote' and not self.workers:
      raise settings.SettingsError(
        '`runtime`=remote needs `workers`=host:port,…, the addresses of '
        'workers that `tff-fedsa worker` has started.'
      )

  def without_effect(self) -> Mapping[str, str]:
    """Returns the fields that the other fields make pointless."""
    because = f'`runtime`={self.runtime}'
    pointless: dict[str, str] = {}
    if self.runtime != 'in_process':
      pointless |= dict.fromkeys(
        ('intra_op_threads', 'deterministic_ops', 'tf32'), because
      )
    if self.runtime != 'remote':
      pointless['workers'] = because
    return pointless

  def start(self, *, without_workers: bool = False) -> None:
    """Makes the runtime TFF's default.

    Args:
      without_workers: Compute in this process instead of on workers, which may
        be gone. Results are the same. `intra_op_threads` is ignored, because it
        belongs to training, and TensorFlow may have started.

    Raises:
      ValueError: If a worker's address is malformed, or `intra_op_threads` is
        given after TensorFlow has started.
    """
    max_concurrent_clients = self.max_concurrent_clients
    if self.runtime == 'native':
      native.set_native_context(max_concurrent_clients=max_concurrent_clients)
    elif self.runtime == 'remote' and not without_workers:
      remote_contexts.set_remote_context(
        self.workers, max_concurrent_clients=max_concurrent_clients
      )
    else:
      if self.deterministic_ops:
        tf.config.experimental.enable_op_determinism()
      tf.config.experimental.enable_tensor_float_32_execution(self.tf32)
      contexts.set_in_process_context(
        max_concurrent_clients=max_concurrent_clients,
        intra_op_threads=None if without_workers else self.intra_op_threads,
      )
