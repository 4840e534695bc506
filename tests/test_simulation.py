"""The round loop with a real process: sampling, evaluation, resuming."""

import dataclasses
import pathlib
import random
import shutil

import numpy as np
import pytest
import tensorflow_federated as tff

from tests import rows as rows_lib
from tff_fedsa import settings
from tff_fedsa import simulation
from tff_fedsa.algorithms import fedsa
from tff_fedsa.client import client_state
from tff_fedsa.client import client_store
from tff_fedsa.client import local_optimizer
from tff_fedsa.data import tasks
from tff_fedsa.data import validation
from tff_fedsa.evaluation import client_evaluation
from tff_fedsa.models import families
from tff_fedsa.runs import checkpoints
from tff_fedsa.runs import metrics
from tff_fedsa.runs import recorders

pytestmark = pytest.mark.usefixtures('in_process_context')


class _Experiment:
  """A small run on digits whose parts a test can take apart."""

  def __init__(self, feature_dim=8):
    self.task = tasks.load_task(
      tasks.TaskSpec(num_clients=4, max_examples=240, alpha=1.0)
    )
    self.models = families.build_family(
      'digits_mlp', self.task.input_spec.model_shape, 10, feature_dim
    )
    # Momentum is kept, so a state that is not restored would show.
    self.optimizer = local_optimizer.LocalOptimizer(
      tff.learning.optimizers.build_sgdm(0.05, 0.5), state='keep'
    )
    self.process = fedsa.build_fedsa(
      self.models, input_spec=self.task.input_spec, optimizer=self.optimizer
    )
    self.evaluate = client_evaluation.build_evaluation(
      self.models, self.task.input_spec
    )

  def store(self, path=None):
    state_fn = client_state.build_initial_state_fn(
      self.models, optimizer=self.optimizer
    )
    if path is None:
      return client_store.MemoryStore(state_fn)
    return client_store.DiskStore(state_fn, str(path))

  def run(self, store, process=None, **options):
    config = {
      name: options.pop(name)
      for name in list(options)
      if name in simulation.SimulationConfig.__dataclass_fields__
    }
    return simulation.run(
      process or self.process,
      self.evaluate,
      self.task,
      store,
      simulation.SimulationConfig(**config),
      **options,
    )


@pytest.fixture(scope='module')
def experiment():
  return _Experiment()


class _Interrupted(Exception):
  pass


class _FailingProcess:
  """A process whose `next` fails once, in a given call."""

  def __init__(self, process, failing_call, error):
    self._process = process
    self._calls_left = failing_call
    self._error = error
    self.broadcast_type = process.broadcast_type
    self.update_type = process.update_type
    self.initialize = process.initialize

  def next(self, *arguments):
    self._calls_left -= 1
    if self._calls_left == 0:
      raise self._error
    return self._process.next(*arguments)


def _assert_same_states(found, expected):
  assert found.client_ids() == expected.client_ids()
  for client_id in expected.client_ids():
    pairs = zip(found.get(client_id), expected.get(client_id))
    for a, b in pairs:
      np.testing.assert_array_equal(a, b)


_OPTIONS = {
  'total_rounds': 9,
  'clients_per_round': 2,
  'rounds_per_evaluation': 2,
  'rounds_per_checkpoint': 3,
}


@pytest.mark.parametrize('where', ['memory', 'disk'])
def test_a_resumed_run_equals_an_uninterrupted_one(experiment, tmp_path, where):
  def store(name):
    return experiment.store(tmp_path / name if where == 'disk' else None)

  whole_store = store('whole')
  whole = experiment.run(whole_store, **_OPTIONS)
  manager = checkpoints.CheckpointManager(str(tmp_path / 'checkpoints'))
  csv_path = str(tmp_path / 'metrics.csv')
  rng = random.Random(0)
  resumed = None
  while resumed is None:
    failing = _FailingProcess(
      experiment.process, rng.randint(1, 6), _Interrupted()
    )
    resumed_store = store('resumed')
    try:
      resumed = experiment.run(
        resumed_store,
        process=failing,
        checkpoint_manager=manager,
        recorders=[recorders.CsvRecorder(csv_path, metrics.COLUMNS)],
        **_OPTIONS,
      )
    except _Interrupted:
      pass
  assert rows_lib.stable(resumed.history) == rows_lib.stable(whole.history)
  assert rows_lib.stable(recorders.read_csv(csv_path)) == rows_lib.stable(
    whole.history
  )
  assert resumed.per_client == whole.per_client
  _assert_same_states(resumed_store, whole_store)
  np.testing.assert_array_equal(
    resumed.server_state.model.anchors, whole.server_state.model.anchors
  )


def test_rows_are_of_the_rounds_asked_for(experiment):
  seen = []
  result = experiment.run(
    experiment.store(),
    total_rounds=5,
    rounds_per_evaluation=2,
    on_round=lambda r, row: seen.append((r, row is not None)),
  )
  assert [row['round'] for row in result.history] == [0, 2, 4, 5]
  assert seen == [
    (0, True),
    (1, False),
    (2, True),
    (3, False),
    (4, True),
    (5, True),
  ]
  last = result.history[-1]
  assert last['clients_sampled'] == last['clients_trained'] == 4
  assert last['examples'] == experiment.task.class_counts().sum()


def test_absent_clients_keep_their_state(experiment):
  store = experiment.store()
  experiment.run(store, total_rounds=1, clients_per_round=1)
  (present,) = store.client_ids()
  assert np.any(store.get(present).counts > 0)
  absent = next(i for i in range(4) if i != present)
  np.testing.assert_array_equal(
    store.get(absent).weights, experiment.store().get(absent).weights
  )


def test_ctrl_c_saves_the_rounds_that_are_done(experiment, tmp_path):
  manager = checkpoints.CheckpointManager(str(tmp_path))
  failing = _FailingProcess(experiment.process, 5, KeyboardInterrupt())
  with pytest.raises(KeyboardInterrupt):
    experiment.run(
      experiment.store(),
      process=failing,
      checkpoint_manager=manager,
      total_rounds=9,
      rounds_per_checkpoint=100,
    )
  assert manager.rounds()[-1] == 4


class _FailingStore(client_store.MemoryStore):
  """A store whose `put` fails once, in a given call."""

  def __init__(self, initial_state_fn, failing_call, error):
    super().__init__(initial_state_fn)
    self._calls_left = failing_call
    self._error = error

  def put(self, client_id, state):
    self._calls_left -= 1
    if self._calls_left == 0:
      raise self._error
    super().put(client_id, state)


class _FailingRecorder:
  def __init__(self, failing_call, error):
    self._calls_left = failing_call
    self._error = error

  def rewind(self, history):
    pass

  def close(self):
    pass

  def record(self, row):
    self._calls_left -= 1
    if self._calls_left == 0:
      raise self._error


_FIVE_ROUNDS = {
  'total_rounds': 5,
  'clients_per_round': 2,
  'rounds_per_checkpoint': 100,
}


@pytest.fixture(scope='module')
def five_rounds(experiment, runtimes):
  """The result of a run that nothing interrupts, and its store."""
  store = experiment.store()
  with runtimes.default('in_process'):
    return experiment.run(store, **_FIVE_ROUNDS), store


@pytest.mark.parametrize('where', ['put', 'record'])
@pytest.mark.parametrize(
  'error',
  [
    KeyboardInterrupt(),
    OSError(28, 'No space left on device', 'metrics.csv'),
    # What TensorFlow's C++ makes of a KeyboardInterrupt.
    SystemError('returned a result with an exception set'),
  ],
  ids=['interrupt', 'disk', 'changed'],
)
def test_a_round_that_fails_half_way_is_undone_and_the_others_saved(
  experiment, five_rounds, tmp_path, where, error
):
  whole, whole_store = five_rounds
  manager = checkpoints.CheckpointManager(str(tmp_path))
  initial_state_fn = client_state.build_initial_state_fn(
    experiment.models, optimizer=experiment.optimizer
  )
  # The second client of round 4; the row of round 4.
  store = _FailingStore(initial_state_fn, 8 if where == 'put' else 0, error)
  recorder = _FailingRecorder(5 if where == 'record' else 0, error)
  with pytest.raises(type(error)):
    experiment.run(
      store, checkpoint_manager=manager, recorders=[recorder], **_FIVE_ROUNDS
    )
  assert manager.rounds()[-1] == 3
  store = experiment.store()
  resumed = experiment.run(store, checkpoint_manager=manager, **_FIVE_ROUNDS)
  assert rows_lib.stable(resumed.history) == rows_lib.stable(whole.history)
  _assert_same_states(store, whole_store)


class _DivergingProcess(_FailingProcess):
  """A process whose clients start from weights that are not finite."""

  def __init__(self, process):
    super().__init__(process, 0, None)

  def next(self, server_state, client_states, examples):
    broken = [
      state._replace(weights=np.full_like(state.weights, np.nan))
      for state in client_states
    ]
    return self._process.next(server_state, broken, examples)


def test_rounds_in_which_all_diverge_have_no_loss_and_end_the_run(
  experiment, tmp_path
):
  manager = checkpoints.CheckpointManager(str(tmp_path / 'checkpoints'))
  path = str(tmp_path / 'metrics.csv')
  with pytest.raises(
    simulation.TrainingFailedError,
    match='every client in 3 rounds in a row, the last of them round 3',
  ):
    experiment.run(
      experiment.store(),
      process=_DivergingProcess(experiment.process),
      total_rounds=9,
      max_failed_rounds=3,
      checkpoint_manager=manager,
      recorders=[recorders.CsvRecorder(path, metrics.COLUMNS)],
    )
  assert manager.rounds()[-1] == 3
  rows = recorders.read_csv(path)
  assert [row['clients_nonfinite'] for row in rows[1:]] == [4, 4, 4]
  for row in rows:
    assert not {'loss', 'loss_cross_entropy', 'gap_local'} & set(row)


def test_a_run_may_go_on_although_all_diverge(experiment):
  result = experiment.run(
    experiment.store(),
    process=_DivergingProcess(experiment.process),
    total_rounds=4,
    max_failed_rounds=None,
  )
  assert result.history[-1]['round'] == 4


def test_a_finished_run_is_not_trained_again(experiment, tmp_path):
  manager = checkpoints.CheckpointManager(str(tmp_path))
  first = experiment.run(
    experiment.store(), checkpoint_manager=manager, total_rounds=2
  )
  failing = _FailingProcess(experiment.process, 1, _Interrupted())
  again = experiment.run(
    experiment.store(),
    process=failing,
    checkpoint_manager=manager,
    total_rounds=2,
  )
  assert again.history == first.history
  assert again.per_client == first.per_client


def test_a_longer_run_goes_on_where_the_shorter_ended(experiment, tmp_path):
  manager = checkpoints.CheckpointManager(str(tmp_path))
  experiment.run(experiment.store(), checkpoint_manager=manager, total_rounds=2)
  longer = experiment.run(
    experiment.store(), checkpoint_manager=manager, total_rounds=4
  )
  whole = experiment.run(experiment.store(), total_rounds=4)
  assert rows_lib.stable(longer.history) == rows_lib.stable(whole.history)


def test_a_run_of_an_older_version_goes_on(tmp_path):
  """tests/testdata has its checkpoint: two rounds, FedSA with 2 features."""
  experiment = _Experiment(feature_dim=2)
  directory = tmp_path / 'checkpoints'
  shutil.copytree(
    pathlib.Path(__file__).parent / 'testdata/checkpoints_v1', directory
  )
  seen, store, whole_store = [], experiment.store(), experiment.store()
  options = {'total_rounds': 3, 'clients_per_round': 1}
  resumed = experiment.run(
    store,
    checkpoint_manager=checkpoints.CheckpointManager(str(directory)),
    on_round=lambda round_num, _: seen.append(round_num),
    **options,
  )
  assert seen == [2, 3]
  whole = experiment.run(whole_store, **options)
  # Another processor may have made the old one.
  np.testing.assert_allclose(
    resumed.server_state.model.anchors,
    whole.server_state.model.anchors,
    rtol=1e-5,
  )
  assert store.client_ids() == whole_store.client_ids()
  for client_id in store.client_ids():
    np.testing.assert_allclose(
      store.get(client_id).weights,
      whole_store.get(client_id).weights,
      rtol=1e-3,
      atol=1e-5,
    )


def test_patience_ends_a_run_without_progress(experiment):
  # The anchors are no help without a step: nothing ever improves.
  stuck = fedsa.build_fedsa(
    experiment.models,
    input_spec=experiment.task.input_spec,
    optimizer=local_optimizer.LocalOptimizer(
      tff.learning.optimizers.build_sgdm(0.0, 0.5), state='keep'
    ),
  )
  result = experiment.run(
    experiment.store(), process=stuck, total_rounds=30, patience=3
  )
  assert result.stopped_early
  accuracies = [row['prototype_accuracy'] for row in result.history]
  best = int(np.argmax(accuracies))
  assert result.history[-1]['round'] == best + 3 < 30


def test_validation_examples_stop_early_and_have_columns(experiment):
  task = validation.hold_out(experiment.task, 0.2, seed=0)
  # Wrong labels: the longer it trains, the worse it gets on these.
  wrong = [
    lambda fn=fn: {**fn(), 'y': (fn()['y'] + 1) % 10}
    for fn in task.validation_fns
  ]
  task = dataclasses.replace(task, validation_fns=tuple(wrong))
  result = simulation.run(
    experiment.process,
    experiment.evaluate,
    task,
    experiment.store(),
    simulation.SimulationConfig(total_rounds=30, patience=3),
  )
  assert result.stopped_early
  validated = [r['validation_prototype_accuracy'] for r in result.history]
  tested = [r['prototype_accuracy'] for r in result.history]
  last = result.history[-1]['round']
  assert last == int(np.argmax(validated)) + 3
  assert int(np.argmax(tested)) > last - 3
  assert [len(e['y']) for e in (wrong[0](), task.clients[0].train)] == [
    round(0.2 * len(experiment.task.clients[0].train['y'])),
    len(experiment.task.clients[0].train['y']) - len(wrong[0]()['y']),
  ]


def test_evaluation_in_parts_is_the_same(experiment):
  store = experiment.store()
  model = experiment.run(store, total_rounds=1).server_state.model
  arguments = (experiment.evaluate, experiment.task, store, model)
  whole = simulation.evaluate_clients(*arguments)
  parts = simulation.evaluate_clients(*arguments, clients_per_evaluation=3)
  assert whole == parts and len(whole) == 4


def test_more_clients_a_round_than_there_are_are_refused_early():
  simulation.SimulationConfig().check_clients(1)
  config = simulation.SimulationConfig(clients_per_round=5)
  config.check_clients(5)
  with pytest.raises(
    settings.SettingsError, match=r'clients_per_round in \[1, 4\], found 5'
  ):
    config.check_clients(4)


def test_impossible_numbers_are_named_before_anything_runs(experiment):
  failing = _FailingProcess(experiment.process, 1, _Interrupted())
  with pytest.raises(ValueError, match=r'\[1, 4\], found 5'):
    experiment.run(experiment.store(), process=failing, clients_per_round=5)
  for name in ('total_rounds', 'rounds_per_evaluation', 'patience'):
    with pytest.raises(ValueError, match=f'{name} >= 1, found 0'):
      simulation.SimulationConfig(**{name: 0})


class _RejectingProcess(_FailingProcess):
  """A process that turns clients 1 and 3, and then all others, away."""

  def __init__(self, process):
    super().__init__(process, 0, None)

  def next(self, *arguments):
    output = self._process.next(*arguments)
    work = {**output.measurements['client_work'], 'clients_trained': 0}
    rejected = np.array([[1, 1], [3, 3]], np.int32)
    screening = {'clients_rejected': 2, 'rejected': rejected}
    return tff.templates.MeasuredProcessOutput(
      output.state,
      output.result,
      {
        **output.measurements,
        'client_work': work,
        'screening': screening,
      },
    )


def test_clients_that_are_turned_away_are_named(experiment, caplog):
  with pytest.raises(
    simulation.TrainingFailedError,
    match='The server turned 2 clients away, .* in 2 rounds in a row',
  ):
    experiment.run(
      experiment.store(),
      process=_RejectingProcess(experiment.process),
      total_rounds=9,
      max_failed_rounds=2,
    )
  assert 'Round 1: client 1 was turned away (nonfinite)' in caplog.text
  assert 'Round 2: client 3 was turned away (weight)' in caplog.text
