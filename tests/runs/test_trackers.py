"""Trackers get settings and rows; their failures end no run."""

import logging
import math
import sys
import types

import pytest

from tff_fedsa.runs import errors
from tff_fedsa.runs import trackers


class _MLflow(types.ModuleType):
  """The part of MLflow's API that is used, over lists."""

  def __init__(self):
    super().__init__('mlflow')
    self.runs = {}
    self.ended = []
    self.fails = False
    self.entities = types.SimpleNamespace(
      Param=lambda key, value: (key, value),
      Metric=lambda key, value, timestamp, step: (key, value, step),
    )

  def set_experiment(self, name):
    return types.SimpleNamespace(experiment_id=f'id of {name}')

  def MlflowClient(self):  # noqa: N802, MLflow's name.
    return self

  def search_runs(self, experiment_ids, filter_string, max_results):
    assert experiment_ids == ['id of tff_fedsa'] and max_results == 1
    return [
      run['entity']
      for run in self.runs.values()
      for name, value in run['tags'].items()
      if filter_string == f"tags.`{name}` = '{value}'"
    ]

  def create_run(self, experiment_id, tags, run_name):
    run_id = f'{run_name} {len(self.runs)}'
    entity = types.SimpleNamespace(info=types.SimpleNamespace(run_id=run_id))
    self.runs[run_id] = dict(entity=entity, tags=tags, params=[], metrics=[])
    return entity

  def log_batch(self, run_id, metrics=(), params=()):
    if self.fails:
      raise ConnectionError('no route')
    self.runs[run_id]['params'] += params
    self.runs[run_id]['metrics'] += metrics

  def set_terminated(self, run_id):
    self.ended.append(run_id)


@pytest.fixture
def mlflow(monkeypatch):
  monkeypatch.delenv('MLFLOW_EXPERIMENT_NAME', raising=False)
  module = _MLflow()
  monkeypatch.setitem(sys.modules, 'mlflow', module)
  return module


def _recorder(**options):
  (recorder,) = trackers.build(
    'mlflow', title='mine', settings={'alpha': 0.1, 'patience': None}, **options
  )
  return recorder


def test_mlflow_gets_settings_and_rows(mlflow):
  recorder = _recorder()
  recorder.rewind([])
  recorder.record({'round': 3, 'loss': 0.5, 'head_accuracy': math.nan})
  recorder.close()
  run = mlflow.runs['mine 0']
  assert run['params'] == [('alpha', '0.1'), ('patience', 'None')]
  assert run['metrics'] == [('loss', 0.5, 3)]
  assert mlflow.ended == ['mine 0'] and run['tags'] == {}


def test_a_resumed_run_goes_on_in_the_same_run(mlflow, tmp_path):
  _recorder(directory=str(tmp_path / 'one'))
  _recorder(directory=str(tmp_path / 'one')).record({'round': 1, 'loss': 1})
  assert list(mlflow.runs) == ['mine 0']
  assert len(mlflow.runs['mine 0']['params']) == 2
  _recorder(directory=str(tmp_path / 'other'))
  assert len(mlflow.runs) == 2


def test_a_failure_is_a_warning_and_no_more(mlflow, caplog):
  recorder = _recorder()
  mlflow.fails = True
  with caplog.at_level(logging.WARNING):
    recorder.record({'round': 2, 'loss': 1.0})
  assert 'MLflow did not take round 2: no route' in caplog.text
  # Before training it is an error.
  with pytest.raises(errors.UserError, match='tracker=mlflow: .* no route'):
    _recorder()


def test_wandb_gets_settings_and_rows(monkeypatch, tmp_path):
  monkeypatch.delenv('WANDB_PROJECT', raising=False)
  calls = []
  run = types.SimpleNamespace(
    log=lambda numbers, step: calls.append((step, numbers)),
    finish=lambda: calls.append('finished'),
  )
  module = types.ModuleType('wandb')
  module.init = lambda **options: calls.append(options) or run
  monkeypatch.setitem(sys.modules, 'wandb', module)
  (recorder,) = trackers.build(
    'wandb', title='mine', settings={'alpha': 0.1}, directory=str(tmp_path)
  )
  recorder.record({'round': 1, 'loss': 0.5})
  recorder.close()
  options, *rest = calls
  assert options.pop('id') is not None
  assert options == dict(
    project='tff_fedsa', name='mine', config={'alpha': 0.1}, resume='allow'
  )
  assert rest == [(1, {'loss': 0.5}), 'finished']


def test_no_tracker_and_a_missing_one(monkeypatch):
  assert trackers.build('none', title='mine', settings={}) == []
  # Python refuses to import it then.
  monkeypatch.setitem(sys.modules, 'wandb', None)
  with pytest.raises(errors.UserError, match='pip install wandb'):
    trackers.build('wandb', title='mine', settings={})
