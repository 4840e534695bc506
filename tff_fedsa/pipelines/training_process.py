"""An adapter to `tff.simulation.run_training_process`, with client states."""

import collections
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Optional

import tensorflow_federated as tff

from tff_fedsa import composer
from tff_fedsa import sampling
from tff_fedsa.evaluation import client_evaluation
from tff_fedsa.pipelines import population as population_lib
from tff_fedsa.runs import metrics


class TrainingState(NamedTuple):
  """The state of a `TrainingProcess`.

  Attributes:
    server_state: A `composer.ServerState`.
    client_states: The `population.ClientStates` of the same round.
  """

  server_state: Any
  client_states: Any


class TrainingProcess:
  """A stateful process with the interface of an iterative process.

  It has `initialize() -> state` and `next(state, client_ids) -> (state,
  metrics)`. So `tff.simulation.run_training_process` runs it like FedAvg.
  `training_selection_fn` returns the ids of the clients of a round.
  """

  def __init__(
    self,
    process: composer.StatefulProcess,
    population: population_lib.Population,
    *,
    server_metrics_fn: Optional[Callable[[Any], Mapping[str, Any]]] = None,
  ):
    """Initializes `TrainingProcess`.

    Args:
      process: Result of `composer.compose_process`, e.g. of
        `fedsa.build_fedsa`.
      population: The clients.
      server_metrics_fn: Returns further metrics for a server state, e.g.
        `server_model.build_server_metrics_fn(process.initialize().model)`.
    """
    self._process = process
    self._population = population
    self._server_metrics_fn = server_metrics_fn

  def initialize(self) -> TrainingState:
    """Returns the state before training. The store forgets all states."""
    self._population.reset()
    return TrainingState(
      self._process.initialize(), self._population.client_states()
    )

  def next(
    self, state: TrainingState, client_ids: Sequence[str]
  ) -> tuple[TrainingState, 'collections.OrderedDict[str, Any]']:
    """Runs one round of the given clients.

    Args:
      state: The latest state, or a loaded state.
      client_ids: The clients of the round.

    Returns:
      The next state, and the round's metrics: see `round_metrics`.

    Raises:
      ValueError: If an id is unknown or occurs twice.
      RuntimeError: If the store no longer has the client states of `state`.
    """
    self._population.restore(state.client_states)
    output = self._process.next(
      state.server_state,
      self._population.states(client_ids),
      [self._population.train_fn(client_id) for client_id in client_ids],
    )
    self._population.put(client_ids, list(output.result))
    found = round_metrics(output.measurements)
    if self._server_metrics_fn is not None:
      found.update(self._server_metrics_fn(output.state))
    return (
      TrainingState(output.state, self._population.client_states()),
      found,
    )


def build_evaluation_fn(
  evaluate: tff.Computation,
  population: population_lib.Population,
  *,
  clients_per_call: int = 100,
) -> Callable[
  [TrainingState, Sequence[str]], 'collections.OrderedDict[str, float]'
]:
  """Returns the `evaluation_fn` of `tff.simulation.run_training_process`.

  `evaluation_selection_fn` returns ids. The metrics are those of
  `client_evaluation.summarize`.

  Args:
    evaluate: Result of `client_evaluation.build_evaluation` for the same
      models.
    population: The population of the training process.
    clients_per_call: Clients evaluated in one call. It bounds memory if states
      are on disk.
  """

  def evaluation_fn(
    state: TrainingState, client_ids: Sequence[str]
  ) -> 'collections.OrderedDict[str, float]':
    population.restore(state.client_states)
    per_client = evaluate_by_id(
      evaluate,
      state.server_state.model,
      population,
      client_ids,
      clients_per_call=clients_per_call,
    )
    return client_evaluation.summarize(per_client)

  return evaluation_fn


def evaluate_by_id(
  evaluate: tff.Computation,
  model: Any,
  population: population_lib.Population,
  client_ids: Sequence[str],
  *,
  clients_per_call: int = 100,
) -> list[dict[str, int]]:
  """Evaluates a population; see `client_evaluation.evaluate_clients`."""
  return client_evaluation.evaluate_clients(
    evaluate,
    model,
    (
      (*population.states([client_id]), population.test_fn(client_id))
      for client_id in client_ids
    ),
    clients_per_call=clients_per_call,
  )


def build_selection_fn(
  client_ids: Sequence[str], clients_per_round: int, seed: int = 0
) -> Callable[[int], list[str]]:
  """Returns a `training_selection_fn` with the draws of `tff-fedsa train`.

  `tff.simulation.build_uniform_sampling_fn` works, too. In both, the draw
  depends on the round number, so a resumed run draws the same clients.

  Args:
    client_ids: Ids of the population.
    clients_per_round: Number of clients to draw.
    seed: Seed of the draws.

  Raises:
    ValueError: If `clients_per_round` is not in `[1, len(client_ids)]`.
  """
  select = sampling.build_selection_fn(seed, len(client_ids), clients_per_round)
  return lambda round_num: [client_ids[i] for i in select(round_num)]


def round_metrics(
  measurements: Mapping[str, Any],
) -> 'collections.OrderedDict[str, Any]':
  """Returns the metrics of a round for release managers.

  Measurements of clients, and of the check of their messages, have the names of
  the columns of `metrics.csv` (`metrics.training_columns`). Measurements of
  other parts are under the name of the part (`distributor`, `aggregator`, …).
  """
  found = collections.OrderedDict(metrics.training_columns(measurements))
  for part in measurements:
    # Ids of clients are an array: metrics are compared and written.
    if part not in ('client_work', 'screening'):
      found[part] = measurements[part]
  return found
