"""Times and memory of rounds: the first, many, and in two runtimes."""

from collections.abc import Iterator
import os
import pathlib
import statistics
import time
from typing import Any

from benchmarks import overhead


def kernel_cache_mb() -> float:
  """Returns the size of the driver's cache of compiled kernels, in 2^20 bytes.

  CUDA_CACHE_PATH, by default `~/.nv/ComputeCache`.
  """
  folder = os.environ.get('CUDA_CACHE_PATH', '~/.nv/ComputeCache')
  files = pathlib.Path(folder).expanduser().rglob('*')
  return round(
    sum(file.stat().st_size for file in files if file.is_file()) / 2**20, 1
  )


def first_rounds(model: str, batch_size: int) -> dict[str, Any]:
  """Times the first three rounds of this process, with two clients.

  Returns:
    Seconds, and the kernel cache's size before and after.
  """
  before = kernel_cache_mb()
  started = time.perf_counter()
  federated = overhead.build_federated(
    overhead.Workload(model, batch_size, 2, 20 * batch_size)
  )
  build_seconds = time.perf_counter() - started
  state, seconds = federated.initial, []
  for _ in range(3):
    started = time.perf_counter()
    state = federated.next(state)
    seconds.append(round(time.perf_counter() - started, 2))
  return {
    'build_seconds': round(build_seconds, 2),
    'round_seconds': seconds,
    'kernel_cache_mb': [before, kernel_cache_mb()],
  }


def memory(total: int, every: int) -> Iterator[dict[str, Any]]:
  """Runs rounds of FedSA on digits, and yields a row every few rounds.

  Args:
    total: Rounds.
    every: Rounds from row to row.
  """
  import psutil
  import tensorflow as tf

  from tff_fedsa.algorithms import fedsa
  from tff_fedsa.client import client_state
  from tff_fedsa.data import tasks
  from tff_fedsa.models import families

  task = tasks.load_task(
    tasks.TaskSpec(dataset='digits', num_clients=4, max_examples=320)
  )
  models = families.build_family(
    'digits3', task.input_spec.model_shape, task.num_classes, 64
  )
  process = fedsa.build_fedsa(models, input_spec=task.input_spec)
  initial_state = client_state.build_initial_state_fn(models)
  examples = [client.train for client in task.clients]
  server = process.initialize()
  states: list[Any] = [initial_state(i) for i in range(task.num_clients)]
  has_gpu = bool(tf.config.list_logical_devices('GPU'))
  started = time.perf_counter()
  for round_num in range(1, total + 1):
    output = process.next(server, states, examples)
    server, states = output.state, list(output.result)
    if round_num % every == 0:
      now = time.perf_counter()
      row = {
        'round': round_num,
        'host_mb': round(psutil.Process().memory_info().rss / 2**20, 1),
        'round_seconds': round((now - started) / every, 4),
      }
      if has_gpu:
        info = tf.config.experimental.get_memory_info('GPU:0')
        row['tensors_mb'] = round(info['current'] / 2**20, 2)
        row['tensors_peak_mb'] = round(info['peak'] / 2**20, 2)
      yield row
      started = time.perf_counter()


def runtimes(workload: Any, rounds: int) -> dict[str, Any]:
  """Compares the runtime in process with TFF's own runtime on the CPU.

  Args:
    workload: An `overhead.Workload`.
    rounds: Measured ones of each.

  Returns:
    Median seconds of a round of each, and their ratio.
  """
  import tensorflow_federated as tff

  from tff_fedsa.execution import native

  stack = tff.framework.get_context_stack()
  in_process = stack.current
  native.set_native_context()
  contexts = {'in_process': in_process, 'native': stack.current}
  contender = overhead.build_federated(workload)
  medians = {}
  for name, context in contexts.items():
    stack.set_default_context(context)
    state, seconds = contender.initial, []
    for _ in range(rounds + 2):
      started = time.perf_counter()
      state = contender.next(state)
      seconds.append(time.perf_counter() - started)
    medians[name] = statistics.median(seconds[2:])
  native.stop_workers()
  stack.set_default_context(in_process)
  return {
    **{f'{name}_seconds': round(s, 4) for name, s in medians.items()},
    'ratio': round(medians['native'] / medians['in_process'], 2),
  }
