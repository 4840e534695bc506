"""The benchmark of GPUs on CPUs: two logical devices; its parts by hand."""

import json
import pathlib
import subprocess
import sys

from absl import app
import numpy as np
import pytest

from tests import programs

gpu = programs.load('benchmarks.gpu')

_ROOT = pathlib.Path(__file__).parents[2]


def _placed(*operations):
  return ''.join(
    f'name/{kind}: ({kind}): /job:localhost/replica:0/task:0/device:{where}\n'
    for kind, where in operations
  )


_STEP = [
  (kind, 'GPU:0')
  for kind in (
    'Conv2D',
    'Conv2DBackpropInput',
    'Conv2DBackpropFilter',
    'MatMul',
    'While',
  )
]


def test_an_operation_of_a_client_on_the_cpu_is_named():
  from benchmarks.gpu_sections import placement

  moved = [('_Arg', 'CPU:0'), ('Const', 'CPU:0')]
  good = placement.count(_placed(*_STEP, *_STEP, *moved), 'GPU:0')
  assert good['ok']
  assert good['on_device'] == 10 and good['loops'] == 2
  bad = placement.count(_placed(*_STEP, ('TopKV2', 'CPU:0')), 'GPU:0')
  assert not bad['ok']
  assert bad['kinds_elsewhere'] == {'TopKV2': 1}
  # That has no kernel for GPUs.
  shuffled = placement.count(
    _placed(*_STEP, ('StatelessShuffle', 'CPU:0')), 'GPU:0'
  )
  assert shuffled['ok'] and shuffled['elsewhere'] == 1
  # Nothing seen is not good.
  assert not placement.count('', 'GPU:0')['ok']
  assert not placement.count(_placed(*_STEP[1:]), 'GPU:0')['ok']


def test_differences_are_relative_to_the_largest_entry():
  from benchmarks.gpu_sections import parity

  assert parity.difference([1.0, 2.5], [1.0, 2.0]) == 0.25
  assert parity.difference([1.0, np.inf], [1.0, np.inf]) == 0
  assert parity.difference([1.0, np.nan], [1.0, 2.0]) == np.inf
  with pytest.raises(ValueError, match='shape'):
    parity.difference([1.0], [1.0, 2.0])


def test_golden_vectors_on_the_cpu_are_within_its_tolerance():
  from benchmarks.gpu_sections import parity

  found = parity.golden_losses()
  assert set(found) == {'ce', 'mse', 'mcl', 'cc'}
  assert 0 < max(found.values()) < 1e-5


def test_sections_and_their_parts():
  parts = {'devices': 1, 'throughput:a': 2, 'throughput:b': 3}
  assert gpu.chosen_parts(parts, []) == parts
  assert gpu.chosen_parts(parts, ['throughput']) == {
    'throughput:a': 2,
    'throughput:b': 3,
  }
  assert gpu.chosen_parts(parts, ['throughput:b']) == {'throughput:b': 3}
  with pytest.raises(app.UsageError, match='known: devices, throughput'):
    gpu.chosen_parts(parts, ['speed'])


def test_rows_of_what_was_found_and_of_a_failure():
  found = {
    'ok': False,
    'seconds': 1.5,
    'rows': [{'what': 'fit', 'images_per_second': 1234.5}],
    'part': {'inner': {'a': 0.25}, 'count': 3},
    'error': 'ended with 1',
    'log': 'Traceback\nValueError: no\n',
  }
  assert list(gpu.rows('x', found)) == [
    '| x | NO | 1.5 | what fit, images_per_second 1,234.5 |',
    '|  |  |  | part: inner: a 0.25 |',
    '|  |  |  | part: count 3 |',
    '|  |  |  | FAILED: ended with 1 ValueError: no |',
  ]


def test_rows_of_speeds():
  row = {'batch_size': 50, 'what': 'fit', 'gpu': None}
  rows = [
    {**row, 'at_a_time': 1, 'images_per_second': 1234.5},
    {**row, 'at_a_time': 2, 'images_per_second': 2000.0, 'gpu': 0.5},
  ]
  assert list(
    gpu.rows('throughput:x', {'ok': True, 'seconds': 2, 'rows': rows})
  ) == [
    '| throughput:x | yes | 2 | batch 50, fit, images/s: '
    '1 at a time 1,234, 2 at a time 2,000 (GPU 50%) |'
  ]


def _launch(tmp_path, *arguments, code=0):
  output = tmp_path / 'gpu.json'
  done = subprocess.run(
    [
      sys.executable,
      '-m',
      'benchmarks.gpu',
      '--small',
      f'--json={output}',
      '--minutes=18',  # Other tests run beside it.
      *arguments,
    ],
    cwd=_ROOT,
    capture_output=True,
    text=True,
    timeout=1150,
  )
  assert done.returncode == code, done.stdout + done.stderr
  return json.loads(output.read_text())['sections'], done


@pytest.mark.slow
def test_a_section_that_fails_leaves_the_others_alone(tmp_path):
  # There is no such variant.
  found, done = _launch(
    tmp_path, '--sections=devices', '--devices=CPU:7', code=1
  )
  assert 'failed: devices' in done.stderr
  assert 'Expected some of the devices' in found['devices']['log']
  assert '| devices | NO |' in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_all_of_it_on_logical_devices(tmp_path):
  found, done = _launch(tmp_path)
  assert all(part['ok'] for part in found.values()), done.stdout
  assert found['devices']['clients_on'] == ['/device:CPU:1']
  assert found['placement']['elsewhere'] == 0
  assert found['placement']['heavy']['Conv2DBackpropFilter'] > 1
  # Two CPUs of one machine: the same numbers.
  rounds = found['parity']['float32']['rounds']
  assert rounds['weights'] == rounds['anchors'] == 0
  assert found['parity']['float32']['golden_training']['weights'] < 1e-5
  rows = found['throughput:fedavg_cnn']['rows']
  assert [(row['what'], row['at_a_time']) for row in rows] == [
    ('Keras fit', 1),
    ('FedSA in process', 1),
    ('plain loop', 1),
    ('FedSA in process', 2),
    ('plain loop', 2),
  ]
  assert all(row['images_per_second'] > 0 for row in rows)
  together = found['together:fedavg_cnn']['rows']
  assert [row['together'] for row in together] == [1, 2]
  assert together[1]['difference'] < 1e-5
  assert found['runtimes']['ratio'] > 0
  assert found['memory']['rows'][-1]['round'] == 4
  moved = {
    name.partition(':')[2]: part['fedavg_cnn']['moved']
    for name, part in found.items()
    if name.startswith('precision')
  }
  assert set(moved) == {'default', 'xla', 'jit_compile'}
  assert moved['xla'] == pytest.approx(moved['default'], rel=1e-3)
  assert moved['jit_compile'] == pytest.approx(moved['default'], rel=1e-3)
  assert (
    'not supported'
    in (found['precision:default']['Keras policy mixed_float16'])
  )
