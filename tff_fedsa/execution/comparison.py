"""TFF's stock worker with computations compiled as in process.

The worker has another build of TensorFlow, with other rounding. With this
context both compilations run in one build, where they must give the same bits.
"""

import tensorflow_federated as tff
from tensorflow_federated.python.core.environments.tensorflow_frontend import (
  tensorflow_computation as frontend,
)
from tensorflow_federated.python.core.impl.executor_stacks import (
  executor_factory,
)

from tff_fedsa.execution.in_process import client_pool
from tff_fedsa.execution.in_process import contexts
from tff_fedsa.execution.in_process import executor


def create_worker_context() -> tff.framework.SyncExecutionContext:
  """Returns a context that compiles as in process, with plain secure sums.

  Its worker ends with this process if `native.set_native_context` was called.
  """
  arguments = contexts.context_arguments(
    executor.Runtime(client_pool.ClientPool(['/device:CPU:0'], 1)),
    default_num_clients=0,
    secure_in_the_clear=True,
    numpy_results=True,
    only_cpus=True,
  )
  return tff.framework.SyncExecutionContext(
    executor_fn=executor_factory.local_cpp_executor_factory(
      default_num_clients=0
    ),
    compiler_fn=arguments['compiler_fn'],
    transform_args=frontend.transform_args,
    transform_result=frontend.transform_result,
  )
