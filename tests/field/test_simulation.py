"""Runs of `simulation.run` in a field: they learn, repeat and resume."""

import random

import numpy as np
import pytest
import tensorflow_federated as tff

from tests import rows as rows_lib
from tff_fedsa import simulation
from tff_fedsa.algorithms import fedsa
from tff_fedsa.client import client_state
from tff_fedsa.client import client_store
from tff_fedsa.client import local_optimizer
from tff_fedsa.data import tasks
from tff_fedsa.evaluation import client_evaluation
from tff_fedsa.field import field_config
from tff_fedsa.models import families
from tff_fedsa.runs import checkpoints
from tff_fedsa.runs import errors
from tff_fedsa.runs import metrics
from tff_fedsa.runs import recorders

pytestmark = pytest.mark.usefixtures('in_process_context')


class _Experiment:
  """Eight clients on digits."""

  def __init__(self):
    self.task = tasks.load_task(
      tasks.TaskSpec(num_clients=8, max_examples=480, alpha=1.0)
    )
    models = families.build_family(
      'digits_mlp', self.task.input_spec.model_shape, 10, feature_dim=8
    )
    # Momentum is kept, so a state that is not restored would show.
    optimizer = local_optimizer.LocalOptimizer(
      tff.learning.optimizers.build_sgdm(0.05, 0.5), state='keep'
    )
    self.process = fedsa.build_fedsa(
      models, input_spec=self.task.input_spec, optimizer=optimizer
    )
    self.evaluate = client_evaluation.build_evaluation(
      models, self.task.input_spec
    )
    self.state_fn = client_state.build_initial_state_fn(
      models, optimizer=optimizer
    )

  def run(self, store=None, process=None, field=None, **options):
    config = {
      name: options.pop(name)
      for name in list(options)
      if name in simulation.SimulationConfig.__dataclass_fields__
    }
    return simulation.run(
      process or self.process,
      self.evaluate,
      self.task,
      store or client_store.MemoryStore(self.state_fn),
      simulation.SimulationConfig(**config),
      field=field,
      **options,
    )


@pytest.fixture(scope='module')
def experiment():
  return _Experiment()


class _Interrupted(Exception):
  pass


class _Watched:
  """A process that tells whom it trained, and fails once, in a given call."""

  def __init__(self, process, failing_call=0):
    self._process = process
    self._calls_left = failing_call
    self.broadcast_type = process.broadcast_type
    self.update_type = process.update_type
    self.averages_weights = process.averages_weights
    self.initialize = process.initialize
    self.examples = []

  def next(self, server_state, client_states, examples):
    self._calls_left -= 1
    if self._calls_left == 0:
      raise _Interrupted
    self.examples.append([len(e['y']) for e in examples])
    return self._process.next(server_state, client_states, examples)


# Every option at once; a round has clients of each kind.
_ALL = field_config.FieldConfig(
  availability='diurnal',
  availability_mean=0.8,
  rounds_per_day=6,
  dropout=0.2,
  device_speed='lognormal',
  device_speed_spread=0.7,
  device_speed_jitter=0.2,
  round_deadline=0.8,
  partial_work=True,
  over_selection=1.5,
)


def test_a_resumed_run_equals_an_uninterrupted_one(experiment, tmp_path):
  options = {
    'field': _ALL,
    'num_epochs': 2,
    'total_rounds': 9,
    'clients_per_round': 4,
    'rounds_per_evaluation': 2,
    'rounds_per_checkpoint': 3,
  }
  whole_store = client_store.MemoryStore(experiment.state_fn)
  whole = experiment.run(whole_store, **options)
  manager = checkpoints.CheckpointManager(str(tmp_path / 'checkpoints'))
  path = str(tmp_path / 'metrics.csv')
  rng = random.Random(0)
  resumed, failures = None, 0
  while resumed is None:
    store = client_store.MemoryStore(experiment.state_fn)
    try:
      resumed = experiment.run(
        store,
        process=_Watched(experiment.process, rng.randint(1, 5)),
        checkpoint_manager=manager,
        recorders=[recorders.CsvRecorder(path, metrics.COLUMNS)],
        **options,
      )
    except _Interrupted:
      failures += 1
  assert failures > 1
  assert rows_lib.stable(resumed.history) == rows_lib.stable(whole.history)
  assert rows_lib.stable(recorders.read_csv(path)) == rows_lib.stable(
    whole.history
  )
  assert store.client_ids() == whole_store.client_ids()
  for client_id in store.client_ids():
    pairs = zip(store.get(client_id), whole_store.get(client_id))
    for found, expected in pairs:
      np.testing.assert_array_equal(found, expected)
  rows = whole.history[1:]
  for name in metrics.FIELD_COLUMNS:
    assert any(row[name] for row in rows), name
  for row in rows:
    parts = ('returned', 'dropped', 'late')
    assert row['clients_sampled'] == sum(row[f'clients_{p}'] for p in parts)
    assert row['clients_trained'] == row['clients_returned']
  seconds = [row['simulated_seconds'] for row in rows]
  assert seconds == sorted(seconds) and seconds[-1] < 9 * 0.8


def test_a_run_without_field_has_no_column_of_it(experiment):
  history = experiment.run(total_rounds=1).history
  assert not set(history[-1]) & set(metrics.FIELD_COLUMNS)


def test_clients_that_drop_out_keep_their_state(experiment):
  store = client_store.MemoryStore(experiment.state_fn)
  field = field_config.FieldConfig(dropout=0.5)
  (_, row) = experiment.run(store, field=field, total_rounds=1).history
  assert 0 < row['clients_dropped'] < 8 == row['clients_sampled']
  # Only those that returned have a state of their own by now.
  assert len(store.client_ids()) == row['clients_returned']


def test_three_in_ten_dropouts_learn(experiment):
  options = {'total_rounds': 40, 'rounds_per_evaluation': 40}
  all_return = experiment.run(**options).history
  field = field_config.FieldConfig(dropout=0.3)
  thinned = experiment.run(field=field, **options).history
  first, last = (row['prototype_accuracy'] for row in thinned)
  assert first < 0.2 < 0.55 < last
  assert last > all_return[-1]['prototype_accuracy'] - 0.1


def test_partial_work_trains_on_fewer_examples(experiment):
  watched = _Watched(experiment.process)
  # 100 examples per second, two epochs: 25 examples in half a second.
  experiment.run(
    process=watched,
    field=field_config.FieldConfig(round_deadline=0.5, partial_work=True),
    num_epochs=2,
    total_rounds=2,
  )
  own = experiment.task.class_counts().sum(axis=1)
  assert own.max() > 25
  assert watched.examples == [np.minimum(own, 25).tolist()] * 2


def test_a_selection_function_of_tff(experiment):
  select = tff.simulation.build_uniform_sampling_fn(range(8), random_seed=3)
  store = client_store.MemoryStore(experiment.state_fn)
  experiment.run(
    store, selection_fn=select, clients_per_round=2, total_rounds=2
  )
  assert store.client_ids() == sorted({*select(1, 2), *select(2, 2)})


def test_rounds_without_a_client_change_nothing_and_end_a_run_in_time(
  experiment, tmp_path
):
  path = tmp_path / 'there.csv'
  path.write_text('client,from,to\n0,1,1\n3,4,4\n')
  field = field_config.FieldConfig(availability=str(path))
  store = client_store.MemoryStore(experiment.state_fn)
  history = experiment.run(store, field=field, total_rounds=4).history
  assert [row.get('clients_returned') for row in history] == [None, 1, 0, 0, 1]
  assert history[2]['prototype_accuracy'] == history[1]['prototype_accuracy']
  assert 'loss' in history[1] and 'loss' not in history[2]
  assert 'bytes_up_per_client' not in history[2]
  assert store.client_ids() == [0, 3]
  with pytest.raises(
    simulation.TrainingFailedError,
    match='No client returned from 3 rounds in a row, the last of them round '
    '7: 0 clients were there, 0 drawn',
  ):
    experiment.run(field=field, total_rounds=99, max_failed_rounds=3)


def test_a_wrong_file_is_told_before_anything_runs(experiment):
  with pytest.raises(errors.UserError, match="no file 'nothing.csv'"):
    experiment.run(
      process=_Watched(experiment.process, failing_call=1),
      field=field_config.FieldConfig(device_speed='nothing.csv'),
      total_rounds=1,
    )
