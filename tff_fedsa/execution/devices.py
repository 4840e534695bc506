"""TensorFlow's devices in one line, with the reasons for unused GPUs."""

from collections.abc import Mapping, Sequence
import glob
import importlib.util
import itertools
import os
import re
import subprocess
from typing import Any, NamedTuple, Optional

from absl import logging
import tensorflow as tf

# Packages of `make setup-gpu`, by the library that is opened last.
_CUDA_PACKAGE = 'nvidia.cudnn'


class Gpu(NamedTuple):
  """A GPU that TensorFlow can use.

  Attributes:
    name: The vendor's name, e.g. `NVIDIA A100-SXM4-40GB`.
    compute_capability: (major, minor), or None if unknown.
    compiles_kernels: True if this TensorFlow has no machine code for the GPU.
      The driver then compiles each kernel on its first use.
  """

  name: str
  compute_capability: Optional[tuple[int, int]]
  compiles_kernels: bool

  def __str__(self) -> str:
    if self.compute_capability is None:
      return self.name
    text = '{}, compute capability {}.{}'.format(
      self.name, *self.compute_capability
    )
    if self.compiles_kernels:
      text += ', kernels compiled at first use'
    return text


class Report(NamedTuple):
  """The devices of a machine. `str()` gives one line.

  Attributes:
    cores: CPU cores that this process may use.
    gpus: All GPUs that TensorFlow can use.
    tensorflow: Version of TensorFlow.
    cuda: Version of CUDA of TensorFlow's build, or None without CUDA.
    hint: Reason and remedy for an unused GPU of this machine, or None.
  """

  cores: int
  gpus: Sequence[Gpu]
  tensorflow: str
  cuda: Optional[str]
  hint: Optional[str]

  def __str__(self) -> str:
    parts = []
    for gpu, group in itertools.groupby(self.gpus):
      count = len(list(group))
      parts.append(f'{count} GPU{"s" * (count > 1)} ({gpu})')
    parts.append(f'CPU with {self.cores} core{"s" * (self.cores > 1)}')
    build = f'CUDA {self.cuda} build' if self.cuda else 'CPU build'
    parts.append(f'TensorFlow {self.tensorflow} ({build})')
    if self.hint:
      parts.append(self.hint)
    return '; '.join(parts)


class Probe:
  """Answers of TensorFlow and of the system. Tests replace them."""

  def __init__(self, root: str = '/'):
    """Looks for the driver's files below `root`."""
    self._root = root

  def cores(self) -> int:
    return len(os.sched_getaffinity(0))

  def tensorflow_version(self) -> str:
    return tf.__version__

  def build_info(self) -> Mapping[str, Any]:
    return tf.sysconfig.get_build_info()

  def usable_gpus(self) -> list[Mapping[str, Any]]:
    """Details of TensorFlow's GPUs, without starting them."""
    return [
      tf.config.experimental.get_device_details(gpu)
      for gpu in tf.config.list_physical_devices('GPU')
    ]

  def nvidia_gpus(self) -> list[str]:
    """Names of the GPUs of NVIDIA's driver, without TensorFlow."""
    names = []
    pattern = os.path.join(self._root, 'proc/driver/nvidia/gpus/*/information')
    for path in sorted(glob.glob(pattern)):
      with open(path, encoding='utf-8', errors='replace') as file:
        model = re.search(r'^Model:\s*(.+?)\s*$', file.read(), re.MULTILINE)
      names.append(model[1] if model else 'NVIDIA GPU')
    if not names:
      # Containers may hide the first path.
      nodes = glob.glob(os.path.join(self._root, 'dev/nvidia[0-9]*'))
      names = ['NVIDIA GPU'] * len(nodes)
    return names or _names_by_nvidia_smi()

  def visible_devices(self) -> Optional[str]:
    return os.environ.get('CUDA_VISIBLE_DEVICES')

  def has_cuda_packages(self) -> bool:
    """True if the packages of `make setup-gpu` are installed."""
    try:
      return importlib.util.find_spec(_CUDA_PACKAGE) is not None
    except ModuleNotFoundError:
      return False


def _names_by_nvidia_smi() -> list[str]:
  try:
    listed = subprocess.run(
      ['nvidia-smi', '-L'], capture_output=True, text=True, timeout=10
    )
  except (OSError, subprocess.TimeoutExpired):
    return []
  return re.findall(r'^GPU \d+: (.+?) \(UUID', listed.stdout, re.MULTILINE)


def detect(probe: Optional[Probe] = None) -> Report:
  """Returns the devices of this machine."""
  probe = probe or Probe()
  build = probe.build_info()
  # Without CUDA the keys are missing.
  cuda = build.get('cuda_version') if build.get('is_cuda_build') else None
  built_for = build.get('cuda_compute_capabilities', ())
  gpus = []
  for details in probe.usable_gpus():
    capability = details.get('compute_capability')
    gpus.append(
      Gpu(
        name=details.get('device_name', 'GPU'),
        compute_capability=capability,
        compiles_kernels=capability is not None
        and compiles_kernels(capability, built_for),
      )
    )
  return Report(
    cores=probe.cores(),
    gpus=gpus,
    tensorflow=probe.tensorflow_version(),
    cuda=cuda,
    hint=None if gpus else _hint(probe, cuda),
  )


def compiles_kernels(
  capability: tuple[int, int], built_for: Sequence[str]
) -> bool:
  """Returns whether the driver must compile kernels for a GPU.

  Machine code runs on GPUs with the same major version and the same or a later
  minor version. For other GPUs the driver compiles PTX.

  Args:
    capability: (major, minor) of the GPU.
    built_for: Capabilities of TensorFlow's build info: `sm_75` is machine code,
      `compute_80` is machine code and PTX.
  """
  major, minor = capability
  for name in built_for:
    digits = name.rpartition('_')[2]
    if int(digits[:-1]) == major and int(digits[-1]) <= minor:
      return False
  return True


def _hint(probe: Probe, cuda: Optional[str]) -> Optional[str]:
  """Returns the reason why a GPU is not used, if there is one."""
  names = probe.nvidia_gpus()
  if not names:
    return None
  here = f'found {", ".join(names)}, but '
  visible = probe.visible_devices()
  if cuda is None:
    return here + 'this TensorFlow is built without CUDA'
  if visible is not None and visible.strip() in ('', '-1', 'NoDevFiles'):
    return here + f'CUDA_VISIBLE_DEVICES={visible!r} hides it'
  if not probe.has_cuda_packages():
    return (
      here + f'TensorFlow cannot load its CUDA {cuda} libraries: '
      '`make setup-gpu` installs them'
    )
  return (
    here + 'TensorFlow cannot use it although its CUDA libraries are '
    'installed: `nvidia-smi` shows whether the driver works, '
    'TF_CPP_MIN_LOG_LEVEL=0 what TensorFlow misses'
  )


def enable_memory_growth() -> None:
  """Makes TensorFlow allocate GPU memory on demand, not all at once.

  This has no effect on GPUs that TensorFlow has started, or that have logical
  devices with limits.
  """
  for gpu in tf.config.list_physical_devices('GPU'):
    try:
      tf.config.experimental.set_memory_growth(gpu, True)
    except (RuntimeError, ValueError) as error:
      logging.info('No memory growth on %s: %s.', gpu.name, error)
