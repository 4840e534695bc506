"""TFF execution contexts that compute in this process."""

from collections.abc import Callable, Sequence
import functools
import os
from typing import Any, Optional

from absl import logging
import tensorflow as tf
import tensorflow_federated as tff
from tensorflow_federated.proto.v0 import computation_pb2
from tensorflow_federated.python.core.backends.test import (
  compiler as test_compiler,
)
from tensorflow_federated.python.core.environments.tensorflow_backend import (
  compiled_computation_transformations as graph_transformations,
)
from tensorflow_federated.python.core.environments.tensorflow_backend import (
  tensorflow_tree_transformations,
)
from tensorflow_federated.python.core.impl.compiler import building_blocks
from tensorflow_federated.python.core.impl.compiler import transformation_utils
from tensorflow_federated.python.core.impl.compiler import transformations
from tensorflow_federated.python.core.impl.computation import computation_impl
from tensorflow_federated.python.core.impl.context_stack import (
  context_stack_impl,
)

from tff_fedsa.execution import devices as devices_lib
from tff_fedsa.execution import versions
from tff_fedsa.execution.in_process import client_pool
from tff_fedsa.execution.in_process import control_flow
from tff_fedsa.execution.in_process import eager_tensors
from tff_fedsa.execution.in_process import executor
from tff_fedsa.execution.in_process import values
from tff_fedsa.runs import errors

# The steps of one client wait for Python and the CPU. A second client keeps the
# GPU busy meanwhile.
_CLIENTS_PER_GPU = 2

# Larger graphs are those of clients, which no other process has.
_MAX_BYTES_OF_KEPT_GRAPHS = 20_000


class InProcessContext(tff.framework.SyncExecutionContext):
  """A synchronous context. Ctrl-C stops its computation at once.

  Attributes:
    runtime: The `executor.Runtime`.
  """

  def __init__(self, runtime: executor.Runtime, **options: Any):
    self._arguments = context_arguments(runtime, **options)
    super().__init__(**self._arguments)
    self.runtime = runtime

  def invoke(self, comp: Any, arg: Any) -> Any:
    try:
      return super().invoke(comp, arg)
    except KeyboardInterrupt:
      # TFF computes in another thread, and the interrupt does not reach it.
      self.runtime.cancel()
      raise

  def to_async(self) -> tff.framework.AsyncExecutionContext:
    """Returns an asynchronous context, e.g. for `tff.program`'s platforms."""
    return tff.framework.AsyncExecutionContext(**self._arguments)


def set_in_process_context(**options: Any) -> InProcessContext:
  """Makes this process TFF's runtime; takes `create_in_process_context`'s."""
  context = create_in_process_context(**options)
  tff.framework.set_default_context(context)
  return context


def create_in_process_context(
  *,
  devices: Optional[Sequence[Any]] = None,
  max_concurrent_clients: Optional[int] = None,
  intra_op_threads: Optional[int] = None,
  jit_compile: bool = False,
  default_num_clients: int = 0,
  secure_in_the_clear: bool = False,
  numpy_results: bool = True,
) -> InProcessContext:
  """Returns a synchronous context.

  Args:
    devices: `tf.config.LogicalDevice`s or their names. Clients use them in
      turn. The first does the server's work. Default: all GPUs, or else the
      CPU.
    max_concurrent_clients: Clients computed at a time on each device. Default:
      one per core on the CPU, 2 on a GPU.
    intra_op_threads: Threads of one operation on the CPU, a setting of
      TensorFlow for the whole process. Default: the cores divided by the
      clients at a time, unless TensorFlow has started. (A second client saves
      more time than a second thread.) The last digits of results depend on this
      argument and on `jit_compile`, but not on the others.
    jit_compile: Compile clients' training steps with XLA, once for each batch
      size (`training_steps`; docs/gpu.md). Other functions of clients, such as
      those of `tff.learning`, stay as they are.
    default_num_clients: Number of clients of computations without client
      values.
    secure_in_the_clear: Compute secure sums as plain sums, without secrecy.
    numpy_results: Return NumPy arrays (read-only views if possible) like TFF's
      own contexts, not tensors.

  Raises:
    ValueError: If a number is less than 1 or a device is unknown.
    versions.VersionError: If Python, TensorFlow or TFF have an unsupported
      version.
    UserError: If `intra_op_threads` is given after TensorFlow has started.
  """
  runtime = _create_runtime(devices, max_concurrent_clients, intra_op_threads)
  return InProcessContext(
    runtime,
    only_cpus=_only_cpus(runtime),
    jit_compile=jit_compile,
    default_num_clients=default_num_clients,
    secure_in_the_clear=secure_in_the_clear,
    numpy_results=numpy_results,
  )


def create_async_in_process_context(
  **options: Any,
) -> tff.framework.AsyncExecutionContext:
  """Makes one for `tff.program`; takes `create_in_process_context`'s."""
  return create_in_process_context(**options).to_async()


def _create_runtime(
  devices: Optional[Sequence[Any]],
  max_concurrent_clients: Optional[int],
  intra_op_threads: Optional[int],
) -> executor.Runtime:
  versions.require('in_process')
  for name, number in (
    ('max_concurrent_clients', max_concurrent_clients),
    ('intra_op_threads', intra_op_threads),
  ):
    if number is not None and number < 1:
      raise errors.UserError(f'Expected {name} >= 1, found {number}.')
  devices_lib.enable_memory_growth()
  eager_tensors.mend_leak()
  cores = len(os.sched_getaffinity(0))
  on_cpu = devices is None and not tf.config.list_physical_devices('GPU')
  if max_concurrent_clients is None:
    max_concurrent_clients = cores if on_cpu else _CLIENTS_PER_GPU
  if intra_op_threads is not None:
    _set_threads(intra_op_threads, is_asked_for=True)
  elif on_cpu:
    _set_threads(max(1, cores // max_concurrent_clients), is_asked_for=False)
  return executor.Runtime(
    client_pool.ClientPool(_device_names(devices), max_concurrent_clients)
  )


def _set_threads(threads: int, *, is_asked_for: bool) -> None:
  try:
    tf.config.threading.set_intra_op_parallelism_threads(threads)
  except RuntimeError as error:
    running = (
      tf.config.threading.get_intra_op_parallelism_threads()
      or int(os.environ.get('TF_NUM_INTRAOP_THREADS') or 0)
      or len(os.sched_getaffinity(0))
    )
    if running == threads:
      return
    if not is_asked_for:
      logging.info(
        'TensorFlow has started already: its operations keep their number of '
        'threads. Set the context first to have the cores divided among '
        'clients.'
      )
      return
    raise errors.UserError(
      f'Expected intra_op_threads={threads} before TensorFlow runs its first '
      f'operation; it has run some, with {running} threads. Set the runtime '
      'first, or leave intra_op_threads out.'
    ) from error


def _device_names(devices: Optional[Sequence[Any]]) -> list[str]:
  known = {device.name for device in tf.config.list_logical_devices()}
  if devices is None:
    gpus = tf.config.list_logical_devices('GPU')
    devices = gpus or tf.config.list_logical_devices('CPU')[:1]
  names = [
    tf.DeviceSpec.from_string(getattr(device, 'name', device)).to_string()
    for device in devices
  ]
  unknown = [name for name in names if name not in known]
  if unknown or not names:
    raise errors.UserError(
      f'Expected some of the devices {sorted(known)}, found {names}.'
    )
  return names


def _only_cpus(runtime: executor.Runtime) -> bool:
  return all(
    tf.DeviceSpec.from_string(device).device_type == 'CPU'
    for device in runtime.pool.devices
  )


def context_arguments(
  runtime: executor.Runtime,
  *,
  default_num_clients: int,
  secure_in_the_clear: bool,
  numpy_results: bool,
  only_cpus: bool = False,
  jit_compile: bool = False,
  fetch_results: Callable[[Any], Any] = lambda result: result,
) -> dict[str, Any]:
  """Returns the arguments of TFF's execution contexts for a runtime.

  Args:
    runtime: The executing runtime.
    default_num_clients: See `create_in_process_context`.
    secure_in_the_clear: See there.
    numpy_results: See there.
    only_cpus: Whether all devices are CPUs.
    jit_compile: See `create_in_process_context`.
    fetch_results: Brings results here that are elsewhere.
  """

  def create_executor(cardinalities):
    num_clients = cardinalities.get(tff.CLIENTS, default_num_clients)
    return executor.InProcessExecutor(runtime, num_clients)

  def compile_computation(computation):
    if secure_in_the_clear:
      computation = test_compiler.replace_secure_intrinsics_with_bodies(
        computation
      )
    return _to_native_form(computation, only_cpus, jit_compile)

  def transform_result(result):
    result = fetch_results(result)
    return values.to_numpy(result) if numpy_results else result

  return {
    'executor_fn': tff.framework.ResourceManagingExecutorFactory(
      create_executor
    ),
    'compiler_fn': compile_computation,
    'transform_result': transform_result,
  }


class _Compiled(computation_impl.ConcreteComputation):
  """A compiled computation that keeps its building block.

  Reading a block from a proto takes as long as most steps of the compilation.
  """

  def __init__(self, block: building_blocks.ComputationBuildingBlock):
    super().__init__(
      computation_proto=block.proto,
      context_stack=context_stack_impl.context_stack,
      annotated_type=block.type_signature,
    )
    self._block = block

  def to_building_block(self) -> building_blocks.ComputationBuildingBlock:
    return self._block


def _to_native_form(
  computation: Any, only_cpus: bool = False, jit_compile: bool = False
) -> Any:
  """TFF's `desugar_and_transform_to_native`, but with functions kept.

  TFF lets Grappler inline also functions with the mark `_noinline`, e.g. a
  client's step (`models.functional`). As part of a loop, its gradients of
  pooling would miss oneDNN's kernels, which are ten times as fast. Loops and
  conditions in kept functions are not lowered here either: see `control_flow`.
  """
  block, _ = tensorflow_tree_transformations.replace_intrinsics_with_bodies(
    computation.to_building_block()
  )
  block = control_flow.prepare(
    block, keep_cases=only_cpus, jit_compile=jit_compile
  )
  try:
    return _Compiled(_to_native_block(block, _grappler_config(only_cpus)))
  except ValueError:
    # As TFF does. The interpreter names what it cannot run, e.g. JAX.
    return _Compiled(block)


def _to_native_block(
  block: building_blocks.ComputationBuildingBlock,
  grappler_config: tf.compat.v1.ConfigProto,
) -> building_blocks.ComputationBuildingBlock:
  """TFF's `transform_to_native_form`, without protos before and after."""
  block = transformations.to_call_dominant(block)
  for transform in (
    lambda block: _optimize(block, grappler_config),
    graph_transformations.transform_tf_call_ops_to_disable_grappler,
    # TFF's worker knows a graph by its id.
    graph_transformations.transform_tf_add_ids,
  ):
    block, _ = transform(block)
  return block


def _optimize(
  block: building_blocks.ComputationBuildingBlock,
  grappler_config: tf.compat.v1.ConfigProto,
) -> tuple[building_blocks.ComputationBuildingBlock, bool]:
  """TFF's `optimize_tensorflow_graphs`, once for small graphs that are equal.

  Processes share most computations of the server, e.g. sums.
  """
  config = grappler_config.SerializeToString(deterministic=True)

  def transform(part: Any) -> tuple[Any, bool]:
    if not isinstance(part, building_blocks.CompiledComputation):
      return part, False
    content = part.proto.SerializeToString(deterministic=True)
    if len(content) > _MAX_BYTES_OF_KEPT_GRAPHS:
      optimized = _optimized(content, config)
    else:
      optimized = _kept(content, config)
    return building_blocks.CompiledComputation(
      optimized, type_signature=part.type_signature
    ), True

  return transformation_utils.transform_postorder(block, transform)


def _optimized(content: bytes, config: bytes) -> computation_pb2.Computation:
  """Returns a computation of TensorFlow after Grappler's passes."""
  return graph_transformations.optimize_tensorflow_comp(
    building_blocks.CompiledComputation(
      computation_pb2.Computation.FromString(content)
    ),
    tf.compat.v1.ConfigProto.FromString(config),
  ).proto


_kept = functools.lru_cache(maxsize=500)(_optimized)


def _grappler_config(only_cpus: bool) -> tf.compat.v1.ConfigProto:
  config = tf.compat.v1.ConfigProto()
  options = config.graph_options.rewrite_options
  for name in (
    'memory_optimization',
    'constant_folding',
    'arithmetic_optimization',
    'loop_optimization',
  ):
    setattr(options, name, options.AGGRESSIVE)
  options.function_optimization = options.ON
  # It sorts attributes and infers shapes, which takes a quarter of the time and
  # changes no operation.
  options.disable_tfg_optimizer = True
  if only_cpus:
    # They find nothing to do on CPUs.
    options.memory_optimization = options.NO_MEM_OPT
    options.layout_optimizer = options.OFF
  else:
    # The device is unknown here. Grappler would fuse BatchNorm with its
    # activation as on CPUs, and GPUs have no float32 kernel for that. Each
    # device's own Grappler fuses later.
    options.remapping = options.OFF
  # Its only effect here is `MetaOptimizer::LowerControlFlow`.
  config.experimental.executor_type = 'SINGLE_THREADED_EXECUTOR'
  return config
