"""`tff.simulation.run_training_process` drives FedSA, and resumes."""

import asyncio
import pathlib

import numpy as np
import pytest
import tensorflow_federated as tff

from tests.pipelines import killable
from tests.pipelines import killing
from tests.pipelines import small
from tff_fedsa import sampling
from tff_fedsa import simulation
from tff_fedsa.pipelines import checkpoint_state
from tff_fedsa.pipelines import training_process
from tff_fedsa.server import server_model

pytestmark = pytest.mark.usefixtures('in_process_context')


@pytest.fixture(autouse=True)
def _event_loop():
  """Upstream's loop takes the thread's event loop."""
  asyncio.set_event_loop(asyncio.new_event_loop())


@pytest.fixture(scope='module')
def whole(runtimes, tmp_path_factory):
  """Directory and result of an uninterrupted run."""
  directory = tmp_path_factory.mktemp('whole')
  asyncio.set_event_loop(asyncio.new_event_loop())
  with runtimes.default('in_process'):
    return directory, killable.run_loop(directory)


def _rows(directory):
  """Rows of metrics.csv without the times."""
  return [
    {k: v for k, v in row.items() if not k.endswith('in_seconds')}
    for row in small.rows(directory / 'metrics.csv')
  ]


def test_it_does_what_our_own_loop_does(whole):
  """The same clients, states and metrics as `simulation.run`, bit for bit."""
  directory, found = whole
  experiment, store = small.experiment(), small.experiment().store()
  result = simulation.run(
    experiment.process,
    experiment.evaluate,
    experiment.task,
    store,
    simulation.SimulationConfig(
      total_rounds=killable.TOTAL_ROUNDS,
      clients_per_round=small.CLIENTS_PER_ROUND,
    ),
  )
  small.assert_same(found, small.arrays(result.server_state, store))
  rows = _rows(directory)
  assert [row['round_num'] for row in rows] == list('012345')
  for row, ours in zip(rows, result.history, strict=True):
    for theirs, name in (
      ('loss', 'loss'),
      ('loss_calibration', 'loss_calibration'),
      ('evaluation/prototype_accuracy', 'prototype_accuracy'),
      ('evaluation/head_accuracy_min', 'head_accuracy_min'),
    ):
      if name in ours:
        assert float(row[theirs]) == ours[name]
  # What no client measured is there, too.
  present = np.flatnonzero(
    experiment.task.class_counts()[
      sampling.sample_clients(0, 1, small.NUM_CLIENTS, small.CLIENTS_PER_ROUND)
    ].sum(axis=0)
  )
  assert int(rows[1]['aggregator/classes_present']) == len(present) < 10


def test_the_release_managers_got_everything(whole):
  directory, _ = whole
  assert list((directory / 'logdir').glob('events.out.tfevents.*'))
  columns = set(_rows(directory)[-1])
  assert {'round_number', 'examples', 'gap_global'} <= columns
  assert (directory / 'state' / 'program_state_5').is_dir()


@pytest.mark.parametrize('where', ['memory', 'disk', 'checkpoints'])
def test_an_interrupted_and_resumed_run_is_the_same(whole, tmp_path, where):
  def attempt(*managers):
    # Nothing of the first attempt is left but files.
    population = None
    if where == 'memory':
      population = small.experiment().population()
    state_manager = None
    if where == 'checkpoints':
      state_manager = checkpoint_state.CheckpointStateManager(
        str(tmp_path / 'state')
      )
    return killable.run_loop(
      tmp_path,
      managers=managers,
      population=population,
      state_manager=state_manager,
    )

  with pytest.raises(killable.Interrupted):
    attempt(killable.Interrupt(tmp_path, 3))  # trained, but not saved
  directory, expected = whole
  small.assert_same(attempt(), expected)
  assert _rows(tmp_path) == _rows(directory)


@pytest.mark.parametrize('where', ['file', 'checkpoints'])
def test_a_finished_run_that_is_started_again_has_its_states(
  whole, tmp_path, where
):
  """Whoever reads clients from the store gets those of the state."""

  def attempt():
    population = small.experiment().population()
    state_manager = (
      tff.program.FileProgramStateManager(str(tmp_path / 'state'))
      if where == 'file'
      else checkpoint_state.CheckpointStateManager(str(tmp_path / 'state'))
    )
    asyncio.set_event_loop(asyncio.new_event_loop())
    state = tff.simulation.run_training_process(
      training_process.TrainingProcess(small.experiment().process, population),
      training_process.build_selection_fn(
        small.CLIENT_IDS, small.CLIENTS_PER_ROUND
      ),
      total_rounds=2,
      program_state_manager=state_manager,
    )
    return population, small.arrays(state.server_state, population.store)

  first, expected = attempt()
  again, found = attempt()
  assert again.store.client_ids() == first.store.client_ids() != []
  small.assert_same(found, expected)
  assert again.client_states().store is again.store


@pytest.mark.slow
def test_a_killed_and_resumed_run_is_the_same(whole, tmp_path):
  directory, expected = whole
  found = killing.kill_and_resume('loop', tmp_path, version=2)
  small.assert_same(found, expected)
  assert _rows(tmp_path) == _rows(directory)


def test_a_damaged_checkpoint_is_skipped(whole, tmp_path):
  directory = tmp_path / 'state'
  manager = checkpoint_state.CheckpointStateManager(str(directory))
  killable.run_loop(tmp_path, state_manager=manager)
  asyncio.set_event_loop(asyncio.new_event_loop())
  (directory / 'round_000005' / 'server.npz').write_bytes(b'')
  again = killable.run_loop(tmp_path, state_manager=manager)
  small.assert_same(again, whole[1])
  versions = asyncio.run(manager.get_versions())
  assert versions == [4, 5]


def _process(population=None):
  experiment = small.experiment()
  population = population or experiment.population()
  return population, training_process.TrainingProcess(
    experiment.process,
    population,
    server_metrics_fn=server_model.build_server_metrics_fn(
      server_model.initial_server_model(np.zeros([10, 8], np.float32))
    ),
  )


def test_initialize_is_before_the_first_round():
  population, process = _process()
  process.next(process.initialize(), ['0', '1'])
  assert population.store.client_ids() == [0, 1]
  state = process.initialize()
  assert population.store.client_ids() == []
  assert state.server_state.round_num == 0


def test_a_round_touches_its_clients_only():
  population, process = _process()
  state, metrics = process.next(process.initialize(), ['3', '1'])
  assert population.store.client_ids() == [1, 3]
  assert state.server_state.round_num == 1
  assert metrics['clients_trained'] == 2
  assert metrics['anchor_separation_min'] > 0.0


def test_an_old_state_is_refused_unless_it_was_kept():
  population, process = _process()
  first, _ = process.next(process.initialize(), ['0', '1'])
  kept = first._replace(client_states=first.client_states.frozen())
  second, metrics = process.next(first, ['0', '1'])
  with pytest.raises(RuntimeError, match='of an earlier round'):
    process.next(first, ['0', '1'])
  again, metrics_again = process.next(kept, ['0', '1'])
  assert metrics == metrics_again
  np.testing.assert_array_equal(
    second.server_state.model.anchors, again.server_state.model.anchors
  )


def test_selection_functions_of_tff_will_do():
  sample_fn = tff.simulation.build_uniform_sampling_fn(
    small.CLIENT_IDS, random_seed=1
  )
  _, process = _process()
  state = tff.simulation.run_training_process(
    process, lambda round_num: sample_fn(round_num, 3), 2
  )
  assert state.server_state.round_num == 2


def test_selections_are_those_of_the_launcher():
  select = training_process.build_selection_fn(small.CLIENT_IDS, 2, seed=3)
  drawn = [select(r) for r in range(1, 9)]
  assert drawn == [select(r) for r in range(1, 9)]
  assert len({tuple(ids) for ids in drawn}) > 1
  with pytest.raises(ValueError, match=r'\[1, 4\], found 5'):
    training_process.build_selection_fn(small.CLIENT_IDS, 5)


def test_checkpoints_want_a_state_of_the_store(tmp_path):
  population, process = _process()
  state = process.initialize()
  manager = checkpoint_state.CheckpointStateManager(str(tmp_path))
  with pytest.raises(ValueError, match='that `initialize` or `next` returned'):
    asyncio.run(
      manager.save(
        state._replace(client_states=state.client_states.frozen()), 1
      )
    )
  with pytest.raises(tff.program.ProgramStateNotFoundError):
    asyncio.run(manager.load(3, state))
  assert asyncio.run(manager.load_latest(state)) == (None, 0)
  assert not list(pathlib.Path(tmp_path).iterdir())
