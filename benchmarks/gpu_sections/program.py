"""A section as a program, started by benchmarks.gpu.

  python -m benchmarks.gpu_sections.program --section=parity --output=FILE

Writes what it has found as JSON whenever there is more, so that a section that
crashes or is stopped leaves what it had.
"""

from collections.abc import Callable, Sequence
import json
import os
import platform
import time
from typing import Any

from absl import app
from absl import flags

from launch import runner
from tff_fedsa.execution import imports

_SECTION = flags.DEFINE_string('section', None, 'Name.', required=True)
_OUTPUT = flags.DEFINE_string('output', None, 'JSON file.', required=True)
_SMALL = flags.DEFINE_bool('small', False, 'As little as shows that it works.')
_DEVICES = flags.DEFINE_list(
  'devices', [], "Clients' devices, e.g. CPU:1. Default: all GPUs, or the CPU."
)
_DEADLINE = flags.DEFINE_float(
  'deadline', 150.0, 'Seconds after which no measurement is begun.'
)

Report = Callable[[dict[str, Any]], None]


def main(argv: Sequence[str]) -> None:
  """Runs the section."""
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected arguments: {argv[1:]}')
  imports.quickly('tensorflow_federated')
  name, _, argument = _SECTION.value.partition(':')
  _SECTIONS[name](_report, *([argument] if argument else []))


def _report(found: dict[str, Any]) -> None:
  """Writes the file in one step."""
  temporary = f'{_OUTPUT.value}.part'
  with open(temporary, 'w', encoding='utf-8') as file:
    json.dump(found, file)
  os.replace(temporary, _OUTPUT.value)


def _client_devices() -> list[str] | None:
  """Returns the devices of --devices; with --small a logical CPU."""
  import tensorflow as tf

  names = _DEVICES.value
  if not names and _SMALL.value and not tf.config.list_physical_devices('GPU'):
    names = ['CPU:1']
  return names or None


def _context(at_a_time: int | None = None, *, jit_compile: bool = False) -> Any:
  """Sets the context in process. CPU:1 is the second of two logical CPUs."""
  import tensorflow as tf

  from tff_fedsa.execution.in_process import contexts

  names = _client_devices()
  (cpu,) = tf.config.list_physical_devices('CPU')
  if names and 'CPU:1' in names:
    tf.config.set_logical_device_configuration(
      cpu, [tf.config.LogicalDeviceConfiguration()] * 2
    )
  return contexts.set_in_process_context(
    devices=names, max_concurrent_clients=at_a_time, jit_compile=jit_compile
  )


def _devices(report: Report) -> None:
  import keras
  import numpy as np
  import tensorflow as tf
  import tensorflow_federated as tff

  from tff_fedsa.execution import devices

  found = devices.detect()
  context = _context()
  build = tf.sysconfig.get_build_info()
  started = time.perf_counter()
  images, kernel = tf.ones([10, 32, 32, 3]), tf.ones([5, 5, 3, 32])
  with tf.device(context.runtime.pool.devices[0]):
    float(tf.reduce_sum(tf.nn.conv2d(images, kernel, 1, 'VALID')))
  report(
    {
      'ok': True,
      'devices': str(found),
      'clients_on': context.runtime.pool.devices,
      'first_convolution_seconds': round(time.perf_counter() - started, 2),
      'tf32': tf.config.experimental.tensor_float_32_execution_enabled(),
      'versions': {
        'python': platform.python_version(),
        'numpy': np.__version__,
        'tensorflow': tf.__version__,
        'keras': keras.__version__,
        'tensorflow_federated': tff.__version__,
        'cuda': build.get('cuda_version'),
        'cudnn': build.get('cudnn_version'),
      },
    }
  )


def _placement(report: Report) -> None:
  import tensorflow as tf
  import tensorflow_federated as tff

  from benchmarks.gpu_sections import placement
  from tff_fedsa.execution.in_process import contexts

  tf.debugging.set_log_device_placement(True)
  with placement.logged():
    context = contexts.InProcessContext(
      _context(1).runtime,
      # Builds the graphs for GPUs also on CPUs.
      only_cpus=False,
      default_num_clients=0,
      secure_in_the_clear=False,
      numpy_results=True,
    )
    tff.framework.set_default_context(context)
    models = ['fedavg_cnn', 'resnet4' if _SMALL.value else 'resnet18']
    if not _SMALL.value:
      models.append('mobilenet_v2')
    run_round = placement.build_round(models, 10)
  device = context.runtime.pool.devices[0].rpartition('device:')[2]
  with placement.logged() as read:
    run_round()
    log = read()
  report({'models': models, **placement.count(log, device)})


def _parity(report: Report) -> None:
  import tensorflow as tf
  import tensorflow_federated as tff

  from benchmarks.gpu_sections import parity
  from tff_fedsa.execution.in_process import contexts

  accelerated = _context()
  device = accelerated.runtime.pool.devices[0]
  found: dict[str, Any] = {
    'tolerances': {
      'golden': parity.GOLDEN_TOLERANCE,
      'rounds': parity.ROUNDS_TOLERANCE,
    }
  }
  digits = parity.Digits()
  tff.framework.set_default_context(
    contexts.create_in_process_context(devices=['CPU:0'])
  )
  expected = digits.run()
  tff.framework.set_default_context(accelerated)
  # TF32 is a number format of GPUs.
  for tf32 in (
    (False, True) if tf.config.list_logical_devices('GPU') else (False,)
  ):
    tf.config.experimental.enable_tensor_float_32_execution(tf32)
    with tf.device(device):
      losses = parity.golden_losses()
    part = {
      'golden_losses': losses,
      'golden_training': parity.golden_training(),
      'rounds': parity.compare_rounds(digits.run(), expected),
    }
    found['with TF32' if tf32 else 'float32'] = part
    report(found)
  exact = found['float32']
  golden = (
    *exact['golden_losses'].values(),
    *exact['golden_training'].values(),
  )
  rounds = [e for name, e in exact['rounds'].items() if name != 'correct']
  report(
    {
      'ok': max(golden) <= parity.GOLDEN_TOLERANCE
      and max(rounds) <= parity.ROUNDS_TOLERANCE,
      **found,
    }
  )


def _first_round(report: Report, model: str = 'fedavg_cnn') -> None:
  from benchmarks.gpu_sections import rounds

  _context()
  report({'ok': True, 'model': model, **rounds.first_rounds(model, 10)})


def _throughput(report: Report, model: str = 'fedavg_cnn') -> None:
  from benchmarks.gpu_sections import throughput

  _context()
  if _SMALL.value:
    sizes, at_a_time, seconds = [10], [1, 2], 0.1
  else:
    sizes, at_a_time, seconds = [50, 10, 256], [2, 1, 4, 8], 2.0
  rows: list[dict[str, Any]] = []
  end = time.monotonic() + _DEADLINE.value
  left_out = 0
  cases = [(model, size) for size in sizes]
  for row in throughput.measurements(
    cases, at_a_time, seconds, devices=_client_devices()
  ):
    rows.append(row)
    wanted = len(cases) * (1 + 2 * len(at_a_time))
    left_out = wanted - len(rows)
    report({'ok': True, 'rows': rows, 'left_out': left_out})
    if time.monotonic() > end:
      break


def _together(report: Report, model: str = 'fedavg_cnn') -> None:
  from benchmarks.gpu_sections import together

  _context()
  sizes, counts, num_clients, seconds = [10, 50], [4, 8, 16], 32, 2.0
  if _SMALL.value:
    sizes, counts, num_clients, seconds = [10], [2], 2, 0.1
  rows: list[dict[str, Any]] = []
  for row in together.measurements(model, sizes, counts, num_clients, seconds):
    rows.append(row)
    # The same numbers as alone, up to rounding in 20 steps.
    report({'ok': max(r['difference'] for r in rows) < 1e-3, 'rows': rows})


def _precision(report: Report, variant: str = 'default') -> None:
  from benchmarks.gpu_sections import precision

  precision.prepare(variant)
  _context(2, jit_compile=variant == 'jit_compile')
  seconds = 0.1 if _SMALL.value else 2.0
  models = ['fedavg_cnn'] if _SMALL.value else ['fedavg_cnn', 'resnet18']
  batch_size = 10 if _SMALL.value else 50
  found: dict[str, Any] = {}
  for model in models:
    found[model] = precision.measure(model, batch_size, 2, seconds)
    report({'batch_size': batch_size, **found})
    if variant == 'default':
      found[model] |= precision.measure_keras(model, batch_size, seconds)
  if variant == 'default':
    found['Keras policy mixed_float16'] = precision.try_keras_policy(
      'fedavg_cnn'
    )
  report({'ok': True, 'batch_size': batch_size, **found})


def _memory(report: Report) -> None:
  from benchmarks.gpu_sections import rounds

  _context()
  rows = []
  for row in rounds.memory(*((4, 1) if _SMALL.value else (200, 20))):
    rows.append(row)
    report({'rows': rows})
  # The first rows warm caches up.
  early, late = rows[len(rows) // 4], rows[-1]
  growth = {
    name: round(late[name] - early[name], 2)
    for name in late
    if name.endswith('_mb')
  }
  report({'ok': True, 'growth': growth, 'rows': rows})


def _runtimes(report: Report) -> None:
  from benchmarks import overhead
  from benchmarks.gpu_sections import rounds

  _context()
  if _SMALL.value:
    work, number = overhead.Workload('fedavg_cnn', 10, 2, 20), 1
  else:
    work, number = overhead.Workload('fedavg_cnn', 10, 20, 500), 2
  report({'ok': True, **rounds.runtimes(work, number)})


_SECTIONS: dict[str, Callable[..., None]] = {
  'devices': _devices,
  'first_round': _first_round,
  'memory': _memory,
  'parity': _parity,
  'placement': _placement,
  'precision': _precision,
  'runtimes': _runtimes,
  'throughput': _throughput,
  'together': _together,
}


if __name__ == '__main__':
  runner.run(main)
