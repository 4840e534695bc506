"""`python -m launch.devices`, as a user calls it; GPU samples from a fake."""

import os
import re
import time

from tests import programs
from tests.launch import launching

devices = programs.load('launch.devices')


def test_devices_and_both_speeds():
  output = launching.launch(
    'devices',
    '--seconds=0.2',
    '--max_concurrent_clients=2',
    '--model=digits_mlp',
  )
  first, *lines = output.splitlines()
  assert re.fullmatch(r'devices: .*CPU with \d+ cores?; TensorFlow 2.*', first)
  speeds = {}
  for line in lines:
    match = re.match(r'  (\S.*?) +([\d,]+) images/s, CPU +(\d+)% busy', line)
    if match:
      speeds[match[1]] = float(match[2].replace(',', ''))
      # A process cannot be busier than all of its cores.
      assert 0 < int(match[3]) <= 110, line
  assert set(speeds) == {'FedSA in process', 'Keras fit'}
  assert min(speeds.values()) > 0
  ratio = float(re.search(r'  ratio +([\d.]+)', output)[1])
  quotient = speeds['FedSA in process'] / speeds['Keras fit']
  assert abs(ratio - quotient) < 0.02 * quotient + 0.01
  assert '2 clients at a time' in output


def test_a_mistake_is_said_in_one_line():
  output = launching.launch('devices', '--seconds=0', '--model=vgg', status=1)
  assert "Unknown family or architecture 'vgg'" in output
  assert 'Traceback' not in output


def test_help_teaches():
  output = launching.launch_process('devices', '--help', status=1)
  assert 'CIFAR-10' in output and '--batch_size' in output
  assert 'Keras' in output


def test_gpus_are_sampled_while_something_runs(tmp_path, monkeypatch):
  program, said = tmp_path / 'nvidia-smi', tmp_path / 'said'
  program.write_text(
    '#!/bin/sh\n'
    'echo "40, 512"; echo "60, 1024"; echo "[N/A], [N/A]"\n'
    f': > {said}; exec sleep 60\n'
  )
  program.chmod(0o755)
  monkeypatch.setenv('PATH', f'{tmp_path}{os.pathsep}{os.environ["PATH"]}')
  with devices.gpu_samples() as samples:
    while not said.exists():
      time.sleep(0.01)
  assert samples == [(0.4, 512.0), (0.6, 1024.0)]
  monkeypatch.setenv('PATH', str(tmp_path / 'nothing'))
  with devices.gpu_samples() as samples:
    pass
  assert samples == []
