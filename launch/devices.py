"""Names the devices that compute clients, and measures them for ten seconds.

  tff-fedsa devices

First it prints the devices of the runtime in process, as `tff-fedsa train` does
at its start. Then it measures FedSA's rounds and a plain Keras `fit` of the
same model and batch size, on random images of CIFAR-10's shape. It prints the
images per second and how busy the cores and GPUs were. `fit` runs in a separate
process with TensorFlow's defaults. FedSA computes more per image than `fit`:
anchors, prototypes and all terms of its objective.

If FedSA is much slower than `fit`, something is wrong: other programs use the
cores, too few clients are computed at a time (--max_concurrent_clients), or a
GPU still compiles its kernels.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import multiprocessing
import os
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from typing import Any, NamedTuple, Optional

from absl import flags
import numpy as np

from launch import errors
from launch import runner

_SECONDS = flags.DEFINE_float(
  'seconds',
  10.0,
  'Measuring time; FedSA and `fit` get half of it each.',
  lower_bound=0.0,
)
_BATCH_SIZE = flags.DEFINE_integer(
  'batch_size', 10, 'Examples per training step.', lower_bound=1
)
_MODEL = flags.DEFINE_string(
  'model', 'fedavg_cnn', 'Architecture; `tff-fedsa train --help` lists them.'
)
_MAX_CONCURRENT_CLIENTS = flags.DEFINE_integer(
  'max_concurrent_clients',
  None,
  'Clients computed at a time, on each GPU if there are GPUs. Default: one per '
  'core, or 2 per GPU.',
  lower_bound=1,
)
_INTRA_OP_THREADS = flags.DEFINE_integer(
  'intra_op_threads',
  None,
  'Threads of one operation on the CPU. Default: the cores divided by the '
  'clients computed at a time.',
  lower_bound=1,
)

_IMAGE_SHAPE = (32, 32, 3)
_NUM_CLASSES = 10
_FEATURE_DIM = 512
_STEPS_PER_CLIENT = 20


class Speed(NamedTuple):
  """Measurements of rounds.

  Attributes:
    images_per_second: Images that gradients were computed for.
    cpu: CPU time per wall-clock time and core, in [0, 1].
    gpu: Mean utilization of all GPUs in [0, 1], None without nvidia-smi.
    gpu_memory_mb: Used memory of the fullest GPU, by all programs, in units of
      2^20 bytes; None without nvidia-smi.
  """

  images_per_second: float
  cpu: float
  gpu: Optional[float]
  gpu_memory_mb: Optional[float] = None

  def __str__(self) -> str:
    text = f'{self.images_per_second:>8,.0f} images/s, CPU {self.cpu:4.0%} busy'
    return text if self.gpu is None else f'{text}, GPU {self.gpu:4.0%}'


def main(argv: Sequence[str]) -> None:
  """Prints the devices and measures."""
  errors.refuse_arguments(argv)
  with errors.reported():
    check()


def check() -> None:
  """Prints the report and both speeds."""
  # Slow to import: not for --help.
  from tff_fedsa.execution import devices
  from tff_fedsa.execution.in_process import client_pool
  from tff_fedsa.execution.in_process import contexts
  from tff_fedsa.models import families

  # A wrong name ends the program now, not in another process.
  families.members(_MODEL.value)
  report = devices.detect()
  print(f'devices: {report}', flush=True)
  settings = (_MODEL.value, _BATCH_SIZE.value, _SECONDS.value / 2)
  # First, while this process has not touched the GPU's memory.
  keras = _in_another_process(measure_keras, *settings)
  context = contexts.set_in_process_context(
    max_concurrent_clients=_MAX_CONCURRENT_CLIENTS.value,
    intra_op_threads=_INTRA_OP_THREADS.value,
  )
  pool = context.runtime.pool
  assert isinstance(pool, client_pool.ClientPool)
  at_a_time = pool.clients_per_device * len(pool.devices)
  federated = measure_federated(*settings, num_clients=2 * at_a_time)
  print(f'{_MODEL.value}, batch size {_BATCH_SIZE.value}:')
  print(
    f'  FedSA in process {federated} ({at_a_time} clients at a time on '
    f'{", ".join(name.rpartition("device:")[2] for name in pool.devices)})'
  )
  print(f'  Keras fit        {keras}')
  ratio = federated.images_per_second / keras.images_per_second
  print(f'  ratio            {ratio:8.2f}')


def measure_federated(
  model: str, batch_size: int, seconds: float, *, num_clients: int
) -> Speed:
  """Measures FedSA's rounds in TFF's current context.

  Args:
    model: Name of the architecture.
    batch_size: Examples of one step.
    seconds: How long; one round at least.
    num_clients: Clients of a round.
  """
  from tff_fedsa.algorithms import fedsa
  from tff_fedsa.client import client_state
  from tff_fedsa.client import local_training

  models, input_spec = _models(model)
  process = fedsa.build_fedsa(
    models,
    input_spec=input_spec,
    local=local_training.LocalTrainingConfig(batch_size=batch_size),
  )
  initial_state = client_state.build_initial_state_fn(models)
  images, labels = _examples(batch_size)
  examples = [{'x': images, 'y': labels}] * num_clients
  server_state = process.initialize()
  states: list[Any] = [initial_state(i) for i in range(num_clients)]

  def run_round() -> int:
    nonlocal server_state, states
    output = process.next(server_state, states, examples)
    server_state, states = output.state, list(output.result)
    return num_clients * len(labels)

  return measure(run_round, seconds)


def measure_keras(
  model: str, batch_size: int, seconds: float, *, jit_compile: bool = False
) -> Speed:
  """Measures `fit` of the same model; takes `measure_federated`'s.

  Args:
    model: See there.
    batch_size: See there.
    seconds: See there.
    jit_compile: Whether XLA compiles the step.
  """
  import tensorflow as tf

  from tff_fedsa.execution import devices

  devices.enable_memory_growth()
  (functional_model,), input_spec = _models(model)
  extractor, head = functional_model.to_keras(
    functional_model.initial_weights(0)
  )
  inputs = tf.keras.Input(_IMAGE_SHAPE, dtype=input_spec.dtype)
  keras_model = tf.keras.Model(
    inputs, head(extractor(input_spec.preprocess(inputs)))
  )
  keras_model.compile(
    tf.keras.optimizers.SGD(0.01),
    tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    jit_compile=jit_compile,
  )
  images, labels = _examples(batch_size)

  def run_epoch() -> int:
    keras_model.fit(images, labels, batch_size=batch_size, verbose=0)
    return len(labels)

  return measure(run_epoch, seconds)


def _models(name: str) -> tuple[list[Any], Any]:
  from tff_fedsa.data import input_spec
  from tff_fedsa.models import families

  return (
    families.build_family([name], _IMAGE_SHAPE, _NUM_CLASSES, _FEATURE_DIM),
    input_spec.InputSpec(_IMAGE_SHAPE, 'uint8', 1 / 127.5, -1.0),
  )


def _examples(batch_size: int) -> tuple[np.ndarray, np.ndarray]:
  rng = np.random.default_rng(0)
  size = batch_size * _STEPS_PER_CLIENT
  images = rng.integers(0, 256, [size, *_IMAGE_SHAPE]).astype(np.uint8)
  return images, rng.integers(0, _NUM_CLASSES, size).astype(np.int32)


def measure(run: Callable[[], int], seconds: float) -> Speed:
  """Measures a function that returns how many images it has processed.

  Args:
    run: Called twice before, to trace and compile.
    seconds: How long; one call at least.
  """
  import psutil

  run()
  run()
  process = psutil.Process()
  images = 0
  with gpu_samples() as gpus:
    started, cpu_started = time.perf_counter(), sum(process.cpu_times()[:2])
    while True:
      images += run()
      elapsed = time.perf_counter() - started
      if elapsed >= seconds:
        break
    cpu_seconds = sum(process.cpu_times()[:2]) - cpu_started
  return Speed(
    images_per_second=images / elapsed,
    cpu=cpu_seconds / elapsed / len(os.sched_getaffinity(0)),
    gpu=statistics.fmean(gpu.utilization for gpu in gpus) if gpus else None,
    gpu_memory_mb=max((gpu.memory_mb for gpu in gpus), default=None),
  )


class GpuSample(NamedTuple):
  """One GPU as nvidia-smi describes it.

  Attributes:
    utilization: Part of the time in which a kernel ran, in [0, 1].
    memory_mb: Used by all programs, in units of 2^20 bytes.
  """

  utilization: float
  memory_mb: float


@contextlib.contextmanager
def gpu_samples() -> Iterator[list[GpuSample]]:
  """Yields a list that holds five samples a second of all GPUs in the end.

  The list stays empty where there is no nvidia-smi.
  """
  samples: list[GpuSample] = []
  if shutil.which('nvidia-smi') is None:
    yield samples
    return
  with tempfile.TemporaryFile('w+') as file:
    sampler = subprocess.Popen(
      [
        'nvidia-smi',
        '--query-gpu=utilization.gpu,memory.used',
        '--format=csv,noheader,nounits',
        '--loop-ms=200',
      ],
      stdout=file,
      stderr=subprocess.DEVNULL,
    )
    try:
      yield samples
    finally:
      sampler.terminate()
      sampler.wait()
      file.seek(0)
      samples += [
        GpuSample(int(match[1]) / 100, float(match[2]))
        for match in map(
          re.compile(r'(\d+), (\d+)').fullmatch, file.read().split('\n')
        )
        if match
      ]


def _in_another_process(fn: Callable[..., Speed], *arguments: Any) -> Speed:
  """Calls a function in a separate process."""
  spawn = multiprocessing.get_context('spawn')
  with spawn.Pool(1) as pool:
    return pool.apply(fn, arguments)


if __name__ == '__main__':
  runner.run(main)
