"""TFF's `Executor` interface over the interpreter."""

import asyncio
import collections
from collections.abc import Callable
import threading
from typing import Any, Optional

import tensorflow_federated as tff
from tensorflow_federated.proto.v0 import computation_pb2
from tensorflow_federated.python.core.impl.computation import computation_impl
from tensorflow_federated.python.core.impl.executors import executor_base
from tensorflow_federated.python.core.impl.executors import executor_utils
from tensorflow_federated.python.core.impl.executors import executor_value_base

from tff_fedsa.execution.in_process import cancellation
from tff_fedsa.execution.in_process import client_pool
from tff_fedsa.execution.in_process import function_removals
from tff_fedsa.execution.in_process import interpreter
from tff_fedsa.execution.in_process import intrinsics
from tff_fedsa.execution.in_process import joint_functions
from tff_fedsa.execution.in_process import tensorflow_functions
from tff_fedsa.execution.in_process import values

_MAX_COMPUTATIONS = 200


class Runtime:
  """The shared state of all executors of a context."""

  def __init__(self, pool: client_pool.Pool):
    self.pool = pool
    build: Callable[..., tensorflow_functions.TensorFlowFunction] = (
      tensorflow_functions.TensorFlowFunction
    )
    if isinstance(pool, client_pool.ClientPool):
      build = joint_functions.build
    self.functions = tensorflow_functions.FunctionCache(build)
    self._calls: set[cancellation.Cancellation] = set()
    self._changed = threading.Condition()

  def call(self, fn: Callable[[], Any]) -> Any:
    """Runs a call that `cancel` can stop."""
    call = cancellation.Cancellation()
    with self._changed:
      self._calls.add(call)
    try:
      with call.active(), function_removals.postponed():
        return fn()
    finally:
      with self._changed:
        self._calls.remove(call)
        self._changed.notify_all()

  def cancel(self, timeout_seconds: float = 10.0) -> None:
    """Stops all running calls, and waits for their end."""
    with self._changed:
      for call in self._calls:
        call.cancel()
      self._changed.wait_for(lambda: not self._calls, timeout_seconds)


class InProcessValue(executor_value_base.ExecutorValue):
  """A value of `values` with its type."""

  def __init__(self, value: Any, type_signature: tff.Type):
    self.value = value
    self._type_signature = type_signature

  @property
  def type_signature(self) -> tff.Type:
    return self._type_signature

  @property
  def reference(self) -> Any:
    return self.value

  async def compute(self) -> Any:
    return values.release(self.value, self._type_signature)


class InProcessExecutor(executor_base.Executor):
  """Executes computations for a fixed number of clients in this process."""

  def __init__(self, runtime: Runtime, num_clients: int):
    self._runtime = runtime
    self._num_clients = num_clients
    self._interpreter = interpreter.Interpreter(
      runtime.functions, intrinsics.Intrinsics(runtime.pool, num_clients)
    )
    # By identity, because comparing protos takes longer than most computations.
    self._computations: collections.OrderedDict[int, tuple[Any, Any]] = (
      collections.OrderedDict()
    )

  def close(self) -> None:
    self._computations.clear()

  async def create_value(
    self, value: Any, type_spec: Optional[tff.Type] = None
  ) -> InProcessValue:
    type_spec = executor_utils.reconcile_value_with_type_spec(value, type_spec)
    if isinstance(
      value, computation_impl.ConcreteComputation | computation_pb2.Computation
    ):
      return InProcessValue(self._function(value), type_spec)
    return InProcessValue(
      values.ingest(value, type_spec, self._num_clients), type_spec
    )

  def _function(self, computation: Any) -> Any:
    known = self._computations.get(id(computation))
    if known is None:
      if isinstance(computation, computation_impl.ConcreteComputation):
        block = computation.to_building_block()
      else:
        block = tff.framework.ComputationBuildingBlock.from_proto(computation)
      # Keep the computation, because another object could reuse its id.
      known = (computation, self._interpreter.build(block)({}))
      self._computations[id(computation)] = known
      if len(self._computations) > _MAX_COMPUTATIONS:
        self._computations.popitem(last=False)
    return known[1]

  async def create_call(
    self, comp: InProcessValue, arg: Optional[InProcessValue] = None
  ) -> InProcessValue:
    function_type = comp.type_signature
    if not isinstance(function_type, tff.FunctionType):
      raise TypeError(f'Expected a function to call, found {function_type}.')
    arguments = () if arg is None else (arg.value,)
    # In a separate thread, so that other calls go on.
    result = await asyncio.get_running_loop().run_in_executor(
      None, self._runtime.call, lambda: comp.value(*arguments)
    )
    return InProcessValue(result, function_type.result)

  async def create_struct(self, elements: Any) -> InProcessValue:
    parts = tff.structure.to_elements(tff.structure.from_container(elements))
    return InProcessValue(
      values.Struct([(name, part.value) for name, part in parts]),
      tff.StructType(
        [
          (name, part.type_signature) if name else part.type_signature
          for name, part in parts
        ]
      ),
    )

  async def create_selection(
    self, source: InProcessValue, index: int
  ) -> InProcessValue:
    return InProcessValue(source.value[index], source.type_signature[index])
