"""Program logic for stateful clients, after `tff.learning.programs`.

`tff.learning.programs.train_model` cannot take client-placed results. This
function has the same arguments and behaviour, and works with TFF's
`EvaluationManager`. A `population.Population` holds clients and their states.
"""

import asyncio
from collections.abc import Callable
import datetime
from typing import Any, Optional

from absl import logging
import tensorflow_federated as tff

from tff_fedsa import composer
from tff_fedsa.pipelines import population as population_lib
from tff_fedsa.pipelines import training_process
from tff_fedsa.runs import errors

# TFF's interval between two releases of the model.
_ROUNDS_PER_MODEL_RELEASE = 10


async def train_model(
  *,
  train_process: composer.StatefulProcess,
  population: population_lib.Population,
  initial_train_state: Optional[training_process.TrainingState] = None,
  train_data_source: tff.program.FederatedDataSource,
  train_per_round_clients: int,
  train_total_rounds: int,
  should_discard_round: Optional[
    Callable[[tff.templates.MeasuredProcessOutput], bool]
  ] = None,
  max_discarded_rounds: int = 10,
  program_state_manager: tff.program.ProgramStateManager,
  rounds_per_saving_program_state: int = 1,
  model_output_manager: tff.program.ReleaseManager,
  train_metrics_manager: Optional[tff.program.ReleaseManager] = None,
  evaluation_manager: Optional[tff.learning.programs.EvaluationManager] = None,
  evaluation_periodicity: int | datetime.timedelta = 1,
) -> training_process.TrainingState:
  """Trains stateful clients for some rounds, and evaluates in between.

  The program saves its state, client states included, and resumes from the
  latest one. With a `client_ids.SeededClientIdDataSource` the result equals
  that of an uninterrupted program.

  Args:
    train_process: Result of `composer.compose_process`, e.g. of
      `fedsa.build_fedsa`.
    population: The clients. `initial_train_state` and resuming replace their
      states.
    initial_train_state: Initial state if there is no program state. Default:
      `train_process.initialize()` and the initial states of clients.
    train_data_source: Selects client ids of the population.
    train_per_round_clients: Clients in a round.
    train_total_rounds: Rounds of the whole run.
    should_discard_round: Receives the output of `train_process.next` (state,
      client states, measurements). If it returns True, the round is undone and
      repeated with the next selection of clients. (The same clients would give
      the same result.)
    max_discarded_rounds: Largest number of discarded rounds in a row.
    program_state_manager: Saves `tff.learning.programs.ProgramState`s.
    rounds_per_saving_program_state: Rounds from one saved state to the next.
      Saving copies the states of all clients that have trained.
    model_output_manager: Receives `TrainingState`s with client states as bytes
      (`ClientStates.from_bytes`), every 10 rounds and after the last round.
    train_metrics_manager: Receives `training_process.round_metrics` of each
      round.
    evaluation_manager: Creates `evaluation_process.EvaluationProcess`es.
    evaluation_periodicity: Number of rounds, or time, from one evaluation to
      the next. The last round is evaluated, too.

  Returns:
    The state after the last round.

  Raises:
    ValueError: If there is no `tff.program.FederatedContext`, or
      `evaluation_periodicity` has another type.
    RuntimeError: If too many rounds in a row were discarded.
  """
  tff.program.check_in_federated_context()
  should_evaluate = _EvaluationClock(evaluation_periodicity, train_total_rounds)
  if evaluation_manager is not None:
    await evaluation_manager.resume_from_previous_state()
  if initial_train_state is None:
    population.reset()
    initial_train_state = training_process.TrainingState(
      await tff.program.materialize_value(train_process.initialize()),
      population.client_states(),
    )
  state = initial_train_state
  iterator = train_data_source.iterator()
  saved, _ = await program_state_manager.load_latest(
    tff.learning.programs.ProgramState(state, 0, 0, iterator)
  )
  start_round = 0
  if saved is None:
    await program_state_manager.save(
      _program_state(state, 0, should_evaluate, iterator), 0
    )
  else:
    state, iterator = saved.state, saved.data_iterator
    start_round = int(saved.round_number)
    should_evaluate.resume(saved.next_evaluation_timestamp_seconds)
    logging.info('Resuming after round %d.', start_round)
  population.restore(state.client_states)

  # The state is saved and released while the next round is computed.
  pending: list[asyncio.Task] = []
  try:
    for round_num in range(start_round + 1, train_total_rounds + 1):
      output = await _run_round(
        train_process,
        population,
        state.server_state,
        lambda: iterator.select(train_per_round_clients),
        should_discard_round,
        max_discarded_rounds,
      )
      state = training_process.TrainingState(
        output.state, population.client_states()
      )
      is_last = round_num == train_total_rounds
      finished = datetime.datetime.now()
      evaluates = evaluation_manager is not None and should_evaluate(
        round_num, finished
      )
      saves = is_last or round_num % rounds_per_saving_program_state == 0
      releases = is_last or round_num % _ROUNDS_PER_MODEL_RELEASE == 0
      kept = state
      if evaluates or saves or releases:
        # The population changes, but the saved state of this round must not.
        kept = state._replace(client_states=state.client_states.frozen())
      await asyncio.gather(*pending)
      pending = []
      if evaluates:
        await _start_evaluation(evaluation_manager, round_num, finished, kept)
      if saves:
        program_state = _program_state(
          kept, round_num, should_evaluate, iterator
        )
        pending.append(
          asyncio.create_task(
            program_state_manager.save(program_state, round_num)
          )
        )
      if train_metrics_manager is not None:
        released_metrics = training_process.round_metrics(output.measurements)
        pending.append(
          asyncio.create_task(
            train_metrics_manager.release(released_metrics, round_num)
          )
        )
      if releases:
        released = kept._replace(client_states=kept.client_states.to_bytes())
        pending.append(
          asyncio.create_task(
            model_output_manager.release(
              released, f'training_checkpoint_round_{round_num}'
            )
          )
        )
    await asyncio.gather(*pending)
  finally:
    await asyncio.gather(*pending, return_exceptions=True)
  if evaluation_manager is not None:
    await evaluation_manager.wait_for_evaluations_to_finish()
  return state


async def _start_evaluation(
  evaluation_manager: tff.learning.programs.EvaluationManager,
  round_num: int,
  finished: datetime.datetime,
  state: training_process.TrainingState,
) -> None:
  try:
    await evaluation_manager.start_evaluation(
      round_num, int(finished.timestamp()), state
    )
  except tff.program.ProgramStateExistsError:
    # The program ended before it saved this round, and repeated it.
    logging.info('The evaluation of round %d goes on from before.', round_num)


async def _run_round(
  process: composer.StatefulProcess,
  population: population_lib.Population,
  server_state: Any,
  select_fn: Callable[[], Any],
  should_discard_round: Optional[Callable[[Any], bool]],
  max_discarded_rounds: int,
) -> tff.templates.MeasuredProcessOutput:
  """Runs a round until it is accepted, and stores its client states."""
  for _ in range(max_discarded_rounds + 1):
    client_ids = select_fn()
    references = process.next(
      server_state,
      population.states(client_ids),
      [population.train_fn(client_id) for client_id in client_ids],
    )
    output = tff.templates.MeasuredProcessOutput(
      *await asyncio.gather(
        *(
          tff.program.materialize_value(part)
          for part in (
            references.state,
            references.result,
            references.measurements,
          )
        )
      )
    )
    if should_discard_round is None or not should_discard_round(output):
      population.put(client_ids, output.result)
      return output
    logging.info('The round is discarded and tried again.')
  raise RuntimeError(
    f'{max_discarded_rounds + 1} rounds in a row were discarded: '
    '`should_discard_round` returned True for each. Make it more tolerant, or '
    'look at the training metrics.'
  )


def _program_state(
  state: training_process.TrainingState,
  round_num: int,
  should_evaluate: '_EvaluationClock',
  iterator: tff.program.FederatedDataSourceIterator,
) -> tff.learning.programs.ProgramState:
  # The iterator continues while this state is saved.
  frozen = type(iterator).from_bytes(iterator.to_bytes())
  return tff.learning.programs.ProgramState(
    state, round_num, should_evaluate.next_timestamp(), frozen
  )


class _EvaluationClock:
  """Decides after which rounds an evaluation starts."""

  def __init__(self, periodicity: int | datetime.timedelta, total_rounds: int):
    if not isinstance(periodicity, int | datetime.timedelta):
      raise errors.UserError(
        'Expected `evaluation_periodicity` to be a number of rounds or a '
        f'datetime.timedelta, found {periodicity!r}.'
      )
    self._periodicity = periodicity
    self._total_rounds = total_rounds
    self._next_time: Optional[datetime.datetime] = None

  def __call__(self, round_num: int, now: datetime.datetime) -> bool:
    if round_num == self._total_rounds:
      return True
    if isinstance(self._periodicity, int):
      return round_num % self._periodicity == 0
    if self._next_time is not None and now <= self._next_time:
      return False
    self._next_time = now + self._periodicity
    return True

  def next_timestamp(self) -> int:
    """Returns the time before which no evaluation starts, or 0."""
    return int(self._next_time.timestamp()) if self._next_time else 0

  def resume(self, timestamp: Any) -> None:
    """Restores a result of `next_timestamp`."""
    if timestamp:
      self._next_time = datetime.datetime.fromtimestamp(int(timestamp))
