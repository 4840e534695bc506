"""The Python examples of the documents run as they stand.

The slow ones show what tests of the single parts assert, too.
"""

import asyncio
import contextlib
import pathlib
import re

import numpy as np
import pytest

from tff_fedsa import settings
from tff_fedsa.algorithms import registry
from tff_fedsa.data import datasets
from tff_fedsa.execution import native
from tff_fedsa.execution.in_process import contexts
from tff_fedsa.runs import metrics

_ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _given_runtimes(runtimes, monkeypatch):
  """The tests have runtimes already; all else is done as written."""
  names = {
    'native': (native, 'set_native_context'),
    'in_process': (contexts, 'set_in_process_context'),
  }
  for name in names:
    with runtimes.default(name):
      pass
  with contextlib.ExitStack() as stack:
    for name, (module, function) in names.items():
      monkeypatch.setattr(
        module,
        function,
        lambda name=name, **_: stack.enter_context(runtimes.default(name)),
      )
    yield


def _examples(name):
  text = (_ROOT / name).read_text()
  return re.findall(r'```python\n(.*?)```', text, re.DOTALL)


def _run(name):
  names = {}
  for example in _examples(name):
    exec(compile(example, name, 'exec'), names)
  return names


def test_readme(capsys):
  (example,) = _examples('README.md')
  assert len(example.strip().splitlines()) <= 10
  names = _run('README.md')
  assert 'accuracy after 20 rounds' in capsys.readouterr().out
  assert names['result'].summary['prototype']['last'] > 0.9


@pytest.mark.slow
def test_tutorial(tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  names = _run('docs/tutorial.md')
  assert (tmp_path / 'client_3.keras').is_file()
  assert names['mine'].summary['rounds'] == 2
  assert 'accuracy after 5 rounds' in capsys.readouterr().out


@pytest.mark.slow
def test_python_api(capsys):
  names = _run('docs/python.md')
  assert names['server_state'].round_num == 3
  assert names['scores']['prototype'].shape == (8, 4)
  assert '5 clients, 4 classes' in capsys.readouterr().out


@pytest.mark.slow
def test_own_data(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  for example in _examples('docs/own_data.md'):
    assert len(example.strip().splitlines()) <= 10, example
  names = _run('docs/own_data.md')
  for name in ('sensors', 'tables', 'texts'):
    assert names[name].history['head_accuracy'].iloc[-1] > 0.0
  assert names['dealt'].num_clients == 3
  assert names['task'].input_spec.shape == (8, 8, 1)
  assert names['scans'].input_spec.shape == (8, 8, 3)
  for file in ('visits.csv', 'posts.csv', 'my_mnist.npz'):
    assert (tmp_path / file).is_file()


@pytest.mark.slow
def test_protocols():
  names = _run('docs/comparing.md')
  row = names['result'].history[-1]
  assert row['round'] == 3
  assert 0.1 < row['global_test_head_accuracy'] < 1.0
  assert names['result'].per_test_set['test']['num_examples'] == 360


@pytest.mark.slow
def test_field():
  rows = _run('docs/field.md')['result'].rows
  assert len(rows) == 4
  assert all(row['clients_returned'] <= 4 for row in rows[1:])


@pytest.mark.slow
def test_pipelines(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  asyncio.set_event_loop(asyncio.new_event_loop())
  names = _run('docs/pipelines.md')
  assert names['state'].server_state.round_num == 5
  assert names['program_state'].server_state.round_num == 5
  for path in (
    'loop/state/program_state_5',
    'loop/metrics.csv',
    'disk/state/round_000004/manifest.json',
    'disk/state/clients',
    'program/state/program_state_5',
    'program/model/release_training_checkpoint_round_5',
    'program/evaluation.csv',
  ):
    assert (tmp_path / path).exists(), path


@pytest.mark.slow
def test_own_parts(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'glove.6B.50d.txt').write_text(
    '\n'.join(f'{digit} {digit} {digit * digit} 1' for digit in range(10))
  )
  monkeypatch.setattr(registry, '_registered', {})
  monkeypatch.setattr(datasets, 'FOLDERS', dict(datasets.FOLDERS))
  for example in _examples('docs/extending.md'):
    # One puts all parts together.
    if 'simulation.run(' not in example:
      assert len(example.strip().splitlines()) <= 21, example
  names = _run('docs/extending.md')
  assert np.load(tmp_path / 'anchors.npy').shape == (10, 16)
  rows = names['result'].history
  assert [row['round'] for row in rows] == [0, 1, 2, 3]
  assert rows[3]['loss'] < rows[1]['loss']
  assert rows[3]['feature_norm'] > 0.0
  method = registry.get('fednorm')
  assert [s.flag for s in settings.fields_of(method.config)] == [
    'fednorm_lambda'
  ]
  assert names['fednorm'].averages_weights
  row = metrics.training_columns({'client_work': {'feature_norm': 1.0}})
  assert row == {'loss_feature_norm': 1.0}
  assert names['stripes'].class_counts().shape == (4, 2)


def test_partitions(tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  names = _run('docs/partitions.md')
  assert capsys.readouterr().out == 'my files, by name\n'
  ids = [f'train_{i:05d}' for i in range(60_000)]
  ids += [f'test_{i:05d}' for i in range(10_000)]
  loaded = names['partition'].load(
    'by_id.npz', labels=np.zeros(70_000, np.int32), ids_fn=lambda: ids
  )
  assert loaded.test[0][0] == 60_000
