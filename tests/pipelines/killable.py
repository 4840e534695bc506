"""Five rounds of an upstream loop in a process of their own, to be killed.

  python -m tests.pipelines.killable loop DIRECTORY

Each round takes some time. At the end, everything is in `final.npz`.
"""

import asyncio
import os
import sys

import numpy as np
import tensorflow_federated as tff

from tests.pipelines import small
from tff_fedsa.execution.in_process import contexts
from tff_fedsa.pipelines import client_ids
from tff_fedsa.pipelines import federated_context
from tff_fedsa.pipelines import program
from tff_fedsa.pipelines import training_process

TOTAL_ROUNDS = 5


class Pause(tff.program.ReleaseManager):
  """Takes a while to release something."""

  def __init__(self, seconds):
    self._seconds = seconds

  async def release(self, value, key):
    await asyncio.sleep(self._seconds)


class Interrupted(Exception):
  """Exception that `Interrupt` raises."""


class Interrupt(tff.program.ReleaseManager):
  """Fails in one round, when its metrics are in the directory."""

  def __init__(self, directory, round_num):
    self._metrics = f'{directory}/metrics.csv'
    self._round_num = round_num

  async def release(self, value, key):
    if key == self._round_num:
      while not self._has_row(key):
        await asyncio.sleep(0.01)
      raise Interrupted

  def _has_row(self, key):
    return any(
      row['round_num'] == str(key) for row in small.rows(self._metrics)
    )


def run_loop(directory, *, managers=(), state_manager=None, population=None):
  """`tff.simulation.run_training_process`, states on disk."""
  experiment = small.experiment()
  population = population or experiment.population(f'{directory}/clients')
  state = tff.simulation.run_training_process(
    training_process.TrainingProcess(experiment.process, population),
    training_process.build_selection_fn(
      population.client_ids, small.CLIENTS_PER_ROUND
    ),
    TOTAL_ROUNDS,
    training_process.build_evaluation_fn(experiment.evaluate, population),
    lambda round_num: population.client_ids,
    program_state_manager=(
      state_manager or tff.program.FileProgramStateManager(f'{directory}/state')
    ),
    metrics_managers=[
      tff.program.CSVFileReleaseManager(
        f'{directory}/metrics.csv', key_fieldname='round_num'
      ),
      tff.program.TensorBoardReleaseManager(f'{directory}/logdir'),
      tff.program.LoggingReleaseManager(),
      *managers,
    ],
  )
  return small.arrays(state.server_state, population.store)


def run_program(directory, context, *, managers=(), **options):
  """`program.train_model` within a federated context."""
  experiment = small.experiment()
  population = options.pop('population', None) or experiment.population()

  state_manager = options.pop('program_state_manager', None)
  if state_manager is None:
    state_manager = tff.program.FileProgramStateManager(f'{directory}/state')

  async def train():
    return await program.train_model(
      train_process=experiment.process,
      population=population,
      train_data_source=client_ids.SeededClientIdDataSource(
        population.client_ids
      ),
      train_per_round_clients=small.CLIENTS_PER_ROUND,
      train_total_rounds=TOTAL_ROUNDS,
      program_state_manager=state_manager,
      model_output_manager=tff.program.SavedModelFileReleaseManager(
        f'{directory}/model'
      ),
      train_metrics_manager=tff.program.GroupingReleaseManager(
        [
          tff.program.CSVFileReleaseManager(
            f'{directory}/metrics.csv', key_fieldname='round_num'
          ),
          *managers,
        ]
      ),
      **options,
    )

  federated = federated_context.StatefulFederatedContext(context)
  with tff.framework.get_context_stack().install(federated):
    state = asyncio.run(train())
  # `asyncio.run` leaves none behind, and upstream's loops want one.
  asyncio.set_event_loop(asyncio.new_event_loop())
  return small.arrays(state.server_state, population.store)


def main():
  which, directory = sys.argv[1:]
  os.makedirs(directory, exist_ok=True)
  managers = [Pause(0.5)]
  if which == 'loop':
    contexts.set_in_process_context()
    found = run_loop(directory, managers=managers)
  else:
    context = contexts.create_async_in_process_context()
    found = run_program(directory, context, managers=managers)
  np.savez(f'{directory}/final.npz', *found)


if __name__ == '__main__':
  main()
