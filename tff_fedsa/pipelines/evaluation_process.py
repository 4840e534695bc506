"""An adapter to `tff.learning.programs.EvaluationManager`."""

import asyncio
import collections
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow_federated as tff

from tff_fedsa import composer
from tff_fedsa.evaluation import client_evaluation
from tff_fedsa.pipelines import population as population_lib
from tff_fedsa.pipelines import training_process


class EvaluationState(NamedTuple):
  """The state of an `EvaluationProcess`.

  Attributes:
    training_state: The evaluated `TrainingState`.
    counts: int32[clients evaluated so far, number of counts], results of
      `client_evaluation.build_evaluation`, one row per client.
  """

  training_state: Any
  counts: Any


class EvaluationProcess:
  """Evaluation of clients with the interface of `build_fed_eval`.

  Each round evaluates some clients of one training state. The metrics are those
  of `client_evaluation.summarize`, for the clients of this round
  (`current_round_metrics`) and for all clients so far (`total_rounds_metrics`).
  """

  def __init__(
    self,
    train_process: composer.StatefulProcess,
    evaluate: tff.Computation,
    population: population_lib.Population,
  ):
    """Initializes `EvaluationProcess`.

    Args:
      train_process: The process of the evaluated states.
      evaluate: Result of `client_evaluation.build_evaluation` for the same
        models.
      population: The same clients with a separate store. It holds the states of
        the evaluated round while training goes on.
    """
    self._train_process = train_process
    self._evaluate = evaluate
    self._population = population
    output_type = evaluate.type_signature.result.member
    self._count_names = tff.structure.name_list(output_type)

  def initialize(self) -> EvaluationState:
    """Returns a state with the right structure, before training."""
    self._population.reset()
    return EvaluationState(
      training_process.TrainingState(
        self._train_process.initialize(), self._population.client_states()
      ),
      np.zeros([0, len(self._count_names)], np.int32),
    )

  def set_model_weights(
    self,
    state: EvaluationState,
    model_weights: training_process.TrainingState,
  ) -> EvaluationState:
    """Returns a state that evaluates `model_weights`, a `TrainingState`."""
    return EvaluationState(model_weights, np.zeros_like(state.counts))

  def next(
    self, state: EvaluationState, client_ids: Sequence[str]
  ) -> tff.learning.templates.LearningProcessOutput:
    """Starts the evaluation of some clients within the running event loop.

    Args:
      state: State to evaluate.
      client_ids: Clients to evaluate.

    Returns:
      The next state and the metrics, as references.
    """
    self._population.restore(state.training_state.client_states)
    outputs = self._evaluate(
      state.training_state.server_state.model,
      self._population.states(client_ids),
      [self._population.test_fn(client_id) for client_id in client_ids],
    )

    async def count() -> Any:
      found = await tff.program.materialize_value(outputs)
      rows = [[int(row[name]) for name in self._count_names] for row in found]
      return np.array(rows, np.int32)

    current = asyncio.create_task(count())

    async def add() -> Any:
      return np.concatenate([state.counts, await current])

    total = asyncio.create_task(add())
    counts_type = tff.TensorType(np.int32, (None, len(self._count_names)))
    return tff.learning.templates.LearningProcessOutput(
      EvaluationState(
        state.training_state,
        tff.program.NativeValueReference(total, counts_type),
      ),
      collections.OrderedDict(
        client_work=collections.OrderedDict(
          eval=collections.OrderedDict(
            current_round_metrics=self._metrics(current),
            total_rounds_metrics=self._metrics(total),
          )
        )
      ),
    )

  def _metrics(self, counts: 'asyncio.Task[Any]') -> Any:
    """Returns references to the summary of a task's counts."""

    async def summarize(name: str) -> float:
      return self._summarize(await counts)[name]

    nobody = np.zeros([1, len(self._count_names)], np.int32)
    return collections.OrderedDict(
      (
        name,
        tff.program.NativeValueReference(
          asyncio.create_task(summarize(name)), tff.TensorType(np.float32)
        ),
      )
      for name in self._summarize(nobody)
    )

  def _summarize(self, counts: np.ndarray) -> Any:
    return client_evaluation.summarize(
      [dict(zip(self._count_names, row)) for row in counts]
    )
