"""Settings of the runtime: where clients are computed."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Annotated, Optional

from etils import epy

from tff_fedsa import settings
from tff_fedsa.runs import errors

with epy.lazy_imports():
  import tensorflow as tf

  from tff_fedsa.execution import native
  from tff_fedsa.execution.in_process import contexts
  from tff_fedsa.execution.ray import contexts as ray_contexts
  from tff_fedsa.execution.remote import contexts as remote_contexts

RUNTIMES = ('in_process', 'native', 'remote', 'ray')
# They compute clients with the in-process executor.
_WITH_OUR_EXECUTOR = ('in_process', 'ray')


@dataclasses.dataclass(frozen=True)
class RuntimeConfig(settings.Settings):
  """The runtime that computes clients.

  Attributes:
    runtime: Runtime of the clients. in_process: this process, on GPUs if there
      are any; native: TFF's stock C++ runtime in a child process, on CPUs only;
      remote: the same C++ runtime on other machines, see `workers`; ray: the
      cores and GPUs of a Ray cluster, see `ray_address` (docs/clusters.md).
    workers: host:port of each worker, separated by commas (runtime remote
      only). `tff-fedsa worker` starts a worker on its host
      (docs/runtimes.md).
    ray_address: Cluster of the runtime ray. local: one of this machine, which
      ends with the run; auto: the one that runs on this machine; HOST:PORT: the
      address of its head. This machine is then a node of the cluster.
    certificates: Directory of certificates for encrypted connections (runtime
      ray only). `tff-fedsa certificates` makes them. Default: what Ray's
      environment variables say.
    insecure: Whether to use a cluster of several machines without encryption
      (runtime ray only). Whoever reaches its ports can run any program there.
    max_concurrent_clients: Clients computed at a time (on each GPU or worker),
      >= 1. Default: one per core, 2 on a GPU.
    intra_op_threads: Threads of one operation with the runtimes in_process and
      ray, >= 1. Default: the cores divided by the clients computed at a time.
      The last digits of results depend on it.
    deterministic_ops: Whether to use only kernels that give the same bits in
      every run (runtimes in_process and ray). GPUs have faster kernels. The
      last digits of results depend on it.
    tf32: Whether GPUs may round the inputs of matrix products and convolutions
      to TensorFloat-32, which is faster on NVIDIA's Ampere and later (runtimes
      in_process and ray). It is TensorFlow's default.
    mixed_precision: Whether GPUs compute matrix products and convolutions in
      float16 (runtime in_process, on GPUs only). Weights and sums stay float32.
      Losses are not scaled, so small gradients may become 0. Results are not
      those of float32.
    jit_compile: Whether XLA compiles clients' training steps (runtimes
      in_process and ray). It compiles a step anew for each architecture and
      size of a batch, which takes seconds (docs/gpu.md). The last digits of
      results depend on it, and so do the draws of dropout and augmentation.
  """

  runtime: Annotated[str, settings.OneOf(RUNTIMES)] = 'in_process'
  workers: Annotated[tuple[str, ...], settings.Free()] = ()
  ray_address: Annotated[str, settings.Free()] = 'local'
  certificates: Annotated[Optional[str], settings.Free()] = None
  insecure: Annotated[bool, settings.Free()] = False
  max_concurrent_clients: Annotated[
    Optional[int], settings.AtLeast(1), settings.Free()
  ] = None
  intra_op_threads: Annotated[Optional[int], settings.AtLeast(1)] = None
  deterministic_ops: bool = False
  tf32: bool = True
  mixed_precision: bool = False
  jit_compile: bool = False

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
    if self.runtime not in _WITH_OUR_EXECUTOR:
      pointless |= dict.fromkeys(
        ('intra_op_threads', 'deterministic_ops', 'tf32', 'jit_compile'),
        because,
      )
    if self.runtime != 'in_process':
      pointless['mixed_precision'] = because
    if self.runtime != 'remote':
      pointless['workers'] = because
    if self.runtime != 'ray':
      pointless |= dict.fromkeys(
        ('ray_address', 'certificates', 'insecure'), because
      )
    return pointless

  def start(
    self, *, without_workers: bool = False, secure_in_the_clear: bool = False
  ) -> None:
    """Makes the runtime TFF's default.

    Args:
      without_workers: Compute in this process instead of on workers, which may
        be gone. Results are the same. `intra_op_threads` is ignored, because it
        belongs to training, and TensorFlow may have started.
      secure_in_the_clear: Compute secure sums as plain sums, without secrecy
        (not with the runtime native, which has no secure sums).

    Raises:
      ValueError: If a worker's address is malformed, or `intra_op_threads` is
        given after TensorFlow has started.
      UserError: If there is no cluster, or the connection to it would not be
        encrypted (runtime ray), or if there is no GPU for `mixed_precision`.
    """
    max_concurrent_clients = self.max_concurrent_clients
    if self.runtime == 'native':
      native.set_native_context(max_concurrent_clients=max_concurrent_clients)
    elif self.runtime == 'remote' and not without_workers:
      remote_contexts.set_remote_context(
        self.workers,
        max_concurrent_clients=max_concurrent_clients,
        secure_in_the_clear=secure_in_the_clear,
      )
    elif self.runtime == 'ray' and not without_workers:
      self._choose_kernels()
      ray_contexts.set_ray_context(
        self.ray_address,
        max_concurrent_clients=max_concurrent_clients,
        intra_op_threads=self.intra_op_threads,
        deterministic_ops=self.deterministic_ops,
        tf32=self.tf32,
        jit_compile=self.jit_compile,
        certificates=self.certificates,
        insecure=self.insecure,
        secure_in_the_clear=secure_in_the_clear,
        results_stay=True,
      )
    else:
      if self.mixed_precision and not without_workers:
        self._check_mixed_precision()
      self._choose_kernels()
      contexts.set_in_process_context(
        max_concurrent_clients=max_concurrent_clients,
        intra_op_threads=None if without_workers else self.intra_op_threads,
        jit_compile=self.jit_compile,
        secure_in_the_clear=secure_in_the_clear,
      )

  def _choose_kernels(self) -> None:
    if self.deterministic_ops:
      tf.config.experimental.enable_op_determinism()
    tf.config.experimental.enable_tensor_float_32_execution(self.tf32)
    # Grappler's, which exists for GPUs only.
    name = 'auto_mixed_precision'
    options = tf.config.optimizer.get_experimental_options()
    if options.get(name, False) != self.mixed_precision:
      tf.config.optimizer.set_experimental_options({name: self.mixed_precision})

  def _check_mixed_precision(self) -> None:
    if not tf.config.list_physical_devices('GPU'):
      raise errors.UserError(
        '`mixed_precision` needs a GPU: found none. Leave it out: CPUs compute '
        'in float32. `tff-fedsa devices` says why a GPU is not used.'
      )
