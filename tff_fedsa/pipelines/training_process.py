"""Adapter to `tff.simulation.run_training_process`, with client states."""

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
    client_states: The `population.ClientStates` that belong to it.
  """

  server_state: Any
  client_states: Any


class TrainingProcess:
  """A stateful process in the shape of an iterative one.

  It has `initialize() -> state` and `next(state, client_ids) -> (state,
  metrics)`, so `tff.simulation.run_training_process` drives it as it drives
  FedAvg. Its `training_selection_fn` returns the ids of a round's clients.
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
      process: Made by `composer.compose_process`, e.g. in `fedsa.build_fedsa`.
      population: Its clients.
      server_metrics_fn: Maps a server state to further metrics, e.g.
        `server_model.build_server_metrics_fn(process.initialize().model)`.
    """
    self._process = process
    self._population = population
    self._server_metrics_fn = server_metrics_fn

  def initialize(self) -> TrainingState:
    """Returns the state before training; states in the store are forgotten."""
    self._population.reset()
    return TrainingState(
      self._process.initialize(), self._population.client_states()
    )

  def next(
    self, state: TrainingState, client_ids: Sequence[str]
  ) -> tuple[TrainingState, 'collections.OrderedDict[str, Any]']:
    """Runs one round of the given clients.

    Args:
      state: The latest one, or one that was loaded.
      client_ids: Who takes part.

    Returns:
      The next state, and the round's metrics: see `round_metrics`.

    Raises:
      ValueError: If an id is unknown or occurs twice.
      RuntimeError: If the client states of `state` are gone.
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

  Its `evaluation_selection_fn` returns ids; its metrics are those of
  `client_evaluation.summarize`.

  Args:
    evaluate: Made by `client_evaluation.build_evaluation`, for the same models.
    population: That of the training process.
    clients_per_call: Clients evaluated in one call; bounds memory when states
      live on disk.
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
  """Returns a `training_selection_fn`: the draws of `tff-fedsa train`, as ids.

  `tff.simulation.build_uniform_sampling_fn` will do as well; like that, the
  clients of a round follow from its number, so a resumed run draws the same.

  Args:
    client_ids: The population's.
    clients_per_round: How many to draw; all of them for an evaluation.
    seed: Seed of the draws.

  Raises:
    ValueError: If `clients_per_round` is not in `[1, len(client_ids)]`.
  """
  select = sampling.build_selection_fn(seed, len(client_ids), clients_per_round)
  return lambda round_num: [client_ids[i] for i in select(round_num)]


def round_metrics(
  measurements: Mapping[str, Any],
) -> 'collections.OrderedDict[str, Any]':
  """Returns a round's metrics as release managers take them.

  What clients measured are the columns of `metrics.csv`
  (`metrics.training_columns`); what the other parts measured, if anything, is
  under the name of the part (`distributor`, `aggregator`, …).
  """
  found = collections.OrderedDict(metrics.training_columns(measurements))
  for part in measurements:
    if part != 'client_work':
      found[part] = measurements[part]
  return found
