"""Program logic for stateful clients, within TFF's federated programs."""

import asyncio
import datetime

import numpy as np
import pytest
import tensorflow_federated as tff

from tests.pipelines import killable
from tests.pipelines import killing
from tests.pipelines import small
from tff_fedsa.execution import native
from tff_fedsa.execution.in_process import contexts
from tff_fedsa.pipelines import client_ids
from tff_fedsa.pipelines import evaluation_process
from tff_fedsa.pipelines import federated_context
from tff_fedsa.pipelines import population
from tff_fedsa.pipelines import program
from tff_fedsa.pipelines import release_managers
from tff_fedsa.pipelines import training_process


@pytest.fixture(scope='module')
def context():
  return contexts.create_async_in_process_context()


@pytest.fixture(scope='module')
def whole(context, tmp_path_factory):
  """Directory and result of an uninterrupted program."""
  directory = tmp_path_factory.mktemp('whole')
  return directory, killable.run_program(directory, context)


def test_it_does_what_the_upstream_loop_does(whole, tmp_path, runtimes):
  directory, found = whole
  asyncio.set_event_loop(asyncio.new_event_loop())
  with runtimes.default('in_process'):
    expected = killable.run_loop(tmp_path)
  small.assert_same(found, expected)
  assert [
    row['round_num'] for row in small.rows(directory / 'metrics.csv')
  ] == list('12345')


@pytest.mark.slow
def test_it_runs_in_the_stock_runtime(whole, tmp_path, runtimes):
  del runtimes  # Ends the worker that is started here.
  found = killable.run_program(tmp_path, native.create_async_native_context())
  for a, b in zip(found, whole[1], strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_an_interrupted_and_resumed_program_is_the_same(
  whole, context, tmp_path
):
  with pytest.raises(killable.Interrupted):
    interrupt = killable.Interrupt(tmp_path, 3)
    killable.run_program(tmp_path, context, managers=[interrupt])
  found = killable.run_program(tmp_path, context)
  directory, expected = whole
  small.assert_same(found, expected)
  assert small.rows(tmp_path / 'metrics.csv') == small.rows(
    directory / 'metrics.csv'
  )


@pytest.mark.slow
def test_a_killed_and_resumed_program_is_the_same(whole, tmp_path):
  directory, expected = whole
  found = killing.kill_and_resume('program', tmp_path, version=2)
  small.assert_same(found, expected)
  assert small.rows(tmp_path / 'metrics.csv') == small.rows(
    directory / 'metrics.csv'
  )


def test_a_finished_program_is_not_trained_again(whole, context):
  directory, expected = whole
  clients = small.experiment().population()
  clients.train_fn = None  # nobody may train
  found = killable.run_program(directory, context, population=clients)
  small.assert_same(found, expected)


def test_states_are_saved_as_often_as_asked(context, whole, tmp_path):
  found = killable.run_program(
    tmp_path, context, rounds_per_saving_program_state=3
  )
  small.assert_same(found, whole[1])
  saved = sorted(p.name for p in (tmp_path / 'state').iterdir())
  assert saved == [f'program_state_{version}' for version in (0, 3, 5)]


def test_the_model_that_is_released_holds_the_clients(whole):
  directory, expected = whole
  manager = tff.program.SavedModelFileReleaseManager(directory / 'model')
  released = asyncio.run(manager.get_value('training_checkpoint_round_5'))
  clients = small.experiment().population()
  clients.restore(population.ClientStates.from_bytes(released.client_states))
  server_state = small.experiment().process.initialize.type_signature
  assert len(expected) > len(tff.structure.flatten(server_state.result.member))
  small.assert_same(
    small.arrays(released.server_state, clients.store), expected
  )


def test_a_discarded_round_leaves_no_trace(context, tmp_path):
  seen = []

  def should_discard(output):
    # Each round's first attempt.
    seen.append(int(output.state.round_num))
    return seen.count(seen[-1]) == 1

  drawn = []
  clients = small.experiment().population()
  train_fn = clients.train_fn

  def recording_train_fn(client_id):
    drawn.append(client_id)
    return train_fn(client_id)

  clients.train_fn = recording_train_fn
  found = killable.run_program(
    tmp_path, context, population=clients, should_discard_round=should_discard
  )
  assert seen == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
  # Tried again with the next clients; equal to rounds of these alone.
  accepted = [drawn[i : i + 2] for i in range(2, 20, 4)]
  again = small.experiment().population()
  with tff.framework.get_context_stack().install(
    contexts.create_in_process_context()
  ):
    process = training_process.TrainingProcess(
      small.experiment().process, again
    )
    state = process.initialize()
    for ids in accepted:
      state, _ = process.next(state, ids)
  small.assert_same(found, small.arrays(state.server_state, again.store))


def test_rounds_are_not_discarded_forever(context, tmp_path):
  with pytest.raises(RuntimeError, match='4 rounds in a row were discarded'):
    killable.run_program(
      tmp_path,
      context,
      should_discard_round=lambda output: True,
      max_discarded_rounds=3,
    )


def _evaluation_manager(directory, duration=datetime.timedelta(0)):
  experiment = small.experiment()

  def create_process(name):
    process = evaluation_process.EvaluationProcess(
      experiment.process, experiment.evaluate, experiment.population()
    )
    rounds = tff.program.CSVFileReleaseManager(
      f'{directory}/{name}.csv', key_fieldname='round_num'
    )
    return process, rounds

  return tff.learning.programs.EvaluationManager(
    client_ids.SeededClientIdDataSource(small.CLIENT_IDS),
    release_managers.EvaluationCSVReleaseManager(
      f'{directory}/evaluation.csv', key_fieldname='round_num'
    ),
    lambda name: tff.program.FileProgramStateManager(f'{directory}/{name}'),
    create_process,
    cohort_size=small.NUM_CLIENTS,
    duration=duration,
  )


@pytest.mark.parametrize(
  'periodicity, rounds',
  [(2, ['2', '4', '5']), (datetime.timedelta(hours=1), ['1', '5'])],
)
def test_the_evaluation_manager_evaluates_on_the_way(
  whole, context, tmp_path, runtimes, periodicity, rounds
):
  found = killable.run_program(
    tmp_path,
    context,
    evaluation_manager=_evaluation_manager(tmp_path),
    evaluation_periodicity=periodicity,
  )
  small.assert_same(found, whole[1])
  rows = small.rows(tmp_path / 'evaluation.csv')
  assert sorted(row['round_num'] for row in rows) == rounds
  # The last one is of the final state, which we can evaluate ourselves.
  experiment = small.experiment()
  clients = experiment.population()
  evaluate = training_process.build_evaluation_fn(experiment.evaluate, clients)
  manager = tff.program.SavedModelFileReleaseManager(f'{tmp_path}/model')
  released = asyncio.run(manager.get_value('training_checkpoint_round_5'))
  state = training_process.TrainingState(
    released.server_state,
    population.ClientStates.from_bytes(released.client_states),
  )
  with runtimes.default('in_process'):
    expected = evaluate(state, small.CLIENT_IDS)
  (last,) = (row for row in rows if row['round_num'] == '5')
  for name, value in expected.items():
    assert float(last[f'model_metrics/{name}']) == value


class _FailingStateManager(tff.program.FileProgramStateManager):
  """Cannot save one version."""

  async def save(self, program_state, version):
    if version == 2:
      raise killable.Interrupted
    await super().save(program_state, version)


def test_an_evaluation_that_was_started_goes_on(context, tmp_path):
  """Interrupted after an evaluation started, before its round was saved."""
  # Long enough to go on when the program ends.
  duration = datetime.timedelta(seconds=2)
  with pytest.raises(killable.Interrupted):
    killable.run_program(
      tmp_path,
      context,
      program_state_manager=_FailingStateManager(f'{tmp_path}/state'),
      evaluation_manager=_evaluation_manager(tmp_path, duration),
      evaluation_periodicity=2,
    )
  assert (tmp_path / 'evaluation_of_train_round_00002').exists()
  killable.run_program(
    tmp_path,
    context,
    evaluation_manager=_evaluation_manager(tmp_path, duration),
    evaluation_periodicity=2,
  )
  rows = small.rows(tmp_path / 'evaluation.csv')
  assert {row['round_num'] for row in rows} == {'2', '4', '5'}


def test_evaluation_of_a_part_at_a_time_adds_up(context, runtimes):
  experiment = small.experiment()
  process = evaluation_process.EvaluationProcess(
    experiment.process, experiment.evaluate, experiment.population()
  )

  async def evaluate():
    state = await tff.program.materialize_value(process.initialize())
    state = process.set_model_weights(state, state.training_state)
    for ids in (['0', '1'], ['2', '3']):
      output = await tff.program.materialize_value(process.next(state, ids))
      state = output.state
    return output

  federated = federated_context.StatefulFederatedContext(context)
  with tff.framework.get_context_stack().install(federated):
    output = asyncio.run(evaluate())
  assert output.state.counts.shape[0] == small.NUM_CLIENTS
  found = output.metrics['client_work']['eval']
  with runtimes.default('in_process'):
    clients = experiment.population()
    state = training_process.TrainingState(
      experiment.process.initialize(), clients.client_states()
    )
    evaluate_fn = training_process.build_evaluation_fn(
      experiment.evaluate, clients
    )
    everyone = evaluate_fn(state, small.CLIENT_IDS)
    second = evaluate_fn(state, ['2', '3'])
  assert dict(found['total_rounds_metrics']) == everyone
  assert dict(found['current_round_metrics']) == second


def test_what_is_wrong_is_said_before_training(tmp_path, runtimes):
  experiment = small.experiment()
  options = {
    'train_process': experiment.process,
    'population': experiment.population(),
    'train_data_source': client_ids.SeededClientIdDataSource(['0']),
    'train_per_round_clients': 1,
    'train_total_rounds': 1,
    'program_state_manager': None,
    'model_output_manager': None,
  }
  with runtimes.default('in_process') as synchronous:
    with pytest.raises(ValueError, match='FederatedContext'):
      asyncio.run(program.train_model(**options))
    with pytest.raises(TypeError, match='create_async_in_process_context'):
      federated_context.StatefulFederatedContext(synchronous)


def test_periodicity_is_rounds_or_time(context):
  federated = federated_context.StatefulFederatedContext(context)
  with tff.framework.get_context_stack().install(federated):
    with pytest.raises(ValueError, match="a datetime.timedelta, found 'daily'"):
      asyncio.run(
        program.train_model(
          train_process=None,
          population=None,
          train_data_source=None,
          train_per_round_clients=1,
          train_total_rounds=1,
          program_state_manager=None,
          model_output_manager=None,
          evaluation_periodicity='daily',
        )
      )
