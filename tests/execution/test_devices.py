"""The one-line report of devices, with and without GPUs; memory growth."""

import os

import pytest
import tensorflow as tf

from tff_fedsa.execution import devices
from tff_fedsa.execution.in_process import contexts

# Of TensorFlow 2.14.1's build info.
_BUILD = {
  'is_cuda_build': True,
  'cuda_version': '11.8',
  'cuda_compute_capabilities': ['sm_35', 'sm_70', 'sm_75', 'compute_80'],
}


class _Probe(devices.Probe):
  """A machine that is not here."""

  def __init__(self, root='/nowhere', gpus=(), build=None, **answers):
    super().__init__(str(root))
    self._gpus, self._build = list(gpus), build or _BUILD
    self._answers = {'visible': None, 'packages': False, **answers}

  def cores(self):
    return 16

  def tensorflow_version(self):
    return '2.14.1'

  def build_info(self):
    return self._build

  def usable_gpus(self):
    return self._gpus

  def visible_devices(self):
    return self._answers['visible']

  def has_cuda_packages(self):
    return self._answers['packages']


def _gpu(name, *capability):
  return {'device_name': name, 'compute_capability': capability}


@pytest.fixture(autouse=True)
def _no_nvidia_smi(monkeypatch, tmp_path):
  monkeypatch.setenv('PATH', str(tmp_path))


@pytest.fixture
def root(tmp_path):
  """Files of the driver of a machine with one GPU."""
  folder = tmp_path / 'proc/driver/nvidia/gpus/0000:01:00.0'
  folder.mkdir(parents=True)
  (folder / 'information').write_text(
    'Model: \t\t NVIDIA A100-SXM4-40GB\nIRQ:   \t\t 130\n'
  )
  return tmp_path


def test_this_machine():
  report = devices.detect()
  assert report.cores == len(os.sched_getaffinity(0))
  assert report.tensorflow == tf.__version__
  assert len(report.gpus) == len(tf.config.list_physical_devices('GPU'))
  assert '\n' not in str(report)


def test_without_a_gpu_there_is_no_hint():
  assert str(devices.detect(_Probe())) == (
    'CPU with 16 cores; TensorFlow 2.14.1 (CUDA 11.8 build)'
  )
  assert str(devices.detect(_Probe(build={'is_cuda_build': False}))) == (
    'CPU with 16 cores; TensorFlow 2.14.1 (CPU build)'
  )


def test_gpus_are_named_with_their_capability():
  gpus = [_gpu('H100', 9, 0), _gpu('H100', 9, 0), _gpu('A100', 8, 0)]
  assert str(devices.detect(_Probe(gpus=gpus))) == (
    '2 GPUs (H100, compute capability 9.0, kernels compiled at first use); '
    '1 GPU (A100, compute capability 8.0); CPU with 16 cores; '
    'TensorFlow 2.14.1 (CUDA 11.8 build)'
  )
  assert str(devices.detect(_Probe(gpus=[{}]))).startswith('1 GPU (GPU);')


@pytest.mark.parametrize(
  ('capability', 'expected'),
  [
    ((7, 0), False),
    ((7, 2), False),  # Runs sm_70.
    ((8, 0), False),
    ((8, 9), False),  # Runs what compute_80 stands for.
    ((6, 1), True),  # sm_70 is later, sm_35 another major version.
    ((9, 0), True),
  ],
)
def test_machine_code_is_of_the_same_major_version(capability, expected):
  built_for = _BUILD['cuda_compute_capabilities']
  assert devices.compiles_kernels(capability, built_for) == expected


@pytest.mark.parametrize(
  ('answers', 'expected'),
  [
    ({}, 'cannot load its CUDA 11.8 libraries: `make setup-gpu`'),
    ({'packages': True}, '`nvidia-smi` shows whether the driver works'),
    ({'visible': '-1'}, "CUDA_VISIBLE_DEVICES='-1' hides it"),
    ({'visible': ''}, "CUDA_VISIBLE_DEVICES='' hides it"),
    ({'visible': '0'}, '`make setup-gpu`'),
    ({'build': {'is_cuda_build': False}}, 'built without CUDA'),
  ],
)
def test_a_gpu_that_is_not_used_comes_with_what_to_do(root, answers, expected):
  report = devices.detect(_Probe(root, **answers))
  assert report.hint.startswith('found NVIDIA A100-SXM4-40GB, but ')
  assert expected in report.hint
  assert str(report).endswith(report.hint)


def test_no_hint_where_tensorflow_uses_a_gpu(root):
  probe = _Probe(root, gpus=[_gpu('A100', 8, 0)])
  assert devices.detect(probe).hint is None


def test_a_gpu_is_found_by_its_device_node_or_by_nvidia_smi(
  tmp_path, monkeypatch
):
  assert _Probe(tmp_path).nvidia_gpus() == []
  program = tmp_path / 'nvidia-smi'
  program.write_text(
    '#!/bin/sh\n[ "$1" = -L ] && echo "GPU 0: Tesla T4 (UUID: GPU-1f)"\n'
  )
  program.chmod(0o755)
  assert _Probe(tmp_path).nvidia_gpus() == ['Tesla T4']
  (tmp_path / 'dev').mkdir()
  for name in ('nvidia0', 'nvidia1', 'nvidiactl'):
    (tmp_path / 'dev' / name).touch()
  assert _Probe(tmp_path).nvidia_gpus() == ['NVIDIA GPU', 'NVIDIA GPU']


def test_the_context_makes_memory_grow_before_gpus_start(monkeypatch):
  calls = []
  listed = tf.config.list_logical_devices

  def list_physical_devices(kind=None):
    return [_Physical()] if kind == 'GPU' else []

  def set_memory_growth(gpu, enable):
    calls.append((gpu.name, enable))

  def list_logical_devices(kind=None):
    calls.append('started')
    return [] if kind == 'GPU' else listed(kind)

  monkeypatch.setattr(tf.config, 'list_physical_devices', list_physical_devices)
  monkeypatch.setattr(
    tf.config.experimental, 'set_memory_growth', set_memory_growth
  )
  monkeypatch.setattr(tf.config, 'list_logical_devices', list_logical_devices)
  context = contexts.create_in_process_context()
  assert calls[0] == ('/physical_device:GPU:0', True)
  assert 'started' in calls
  # Of the kind that is used with GPUs.
  assert context.runtime.pool.clients_per_device == 2


@pytest.mark.parametrize('error', [RuntimeError, ValueError])
def test_a_gpu_that_has_started_stays_as_it_is(monkeypatch, error):
  def set_memory_growth(gpu, enable):
    raise error('Physical devices cannot be modified')

  monkeypatch.setattr(
    tf.config, 'list_physical_devices', lambda kind=None: [_Physical()]
  )
  monkeypatch.setattr(
    tf.config.experimental, 'set_memory_growth', set_memory_growth
  )
  devices.enable_memory_growth()


class _Physical:
  name = '/physical_device:GPU:0'
