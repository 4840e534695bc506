"""Evaluation of clients that never train: as they join, and after a round."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import itertools
from typing import Any

from etils import epy
import numpy as np

from tff_fedsa.evaluation import client_evaluation

with epy.lazy_imports():
  import tensorflow_federated as tff

  from tff_fedsa import composer
  from tff_fedsa.client import client_store

# Prefixes of the columns.
JOINED = 'newcomer_'
TRAINED = 'newcomer_trained_'


def evaluate(
  process: composer.StatefulProcess,
  evaluation: tff.Computation,
  server_state: composer.ServerState,
  clients: Mapping[int, Any],
  store: client_store.ClientStateStore,
  *,
  tests_averaged: bool = False,
  clients_per_call: int = 100,
) -> dict[str, float]:
  """Tests clients that never train, on their own test examples.

  Each client is tested as it joins, with the initial model of its architecture,
  or the weights that its architecture shares. Then it takes part in one round
  that changes nothing at the server, and is tested again.

  Args:
    process: Trains the clients.
    evaluation: Result of `client_evaluation.build_evaluation`.
    server_state: What the clients receive.
    clients: `ClientExamples` by id.
    store: Has the clients' initial states. It does not change.
    tests_averaged: True if `evaluation` tests averaged models in place of the
      clients' own. There is then no second test.
    clients_per_call: Clients in memory at a time.

  Returns:
    `newcomer_<classifier>_accuracy` and
    `newcomer_trained_<classifier>_accuracy`, micro averages in [0, 1].
  """

  def joined(client_id):
    state = store.get(client_id)
    if process.tiers is None:
      return state
    weights = process.tiers.received(state, server_state.model.weights)
    return state._replace(weights=np.asarray(weights))

  def trained() -> Iterator[Any]:
    remaining = iter(clients)
    while part := list(itertools.islice(remaining, clients_per_call)):
      output = process.next(
        server_state,
        [store.get(client_id) for client_id in part],
        [clients[client_id].train for client_id in part],
      )
      yield from output.result

  states: dict[str, Iterator[Any]] = {JOINED: map(joined, clients)}
  if not tests_averaged:
    states[TRAINED] = trained()
  columns = {}
  for prefix, of_clients in states.items():
    tests = (client.test for client in clients.values())
    summary = client_evaluation.summarize(
      client_evaluation.evaluate_clients(
        evaluation,
        server_state.model,
        zip(of_clients, tests),
        clients_per_call=clients_per_call,
      )
    )
    for name in client_evaluation.classifiers_in(summary):
      columns[f'{prefix}{name}_accuracy'] = summary[f'{name}_accuracy']
  return columns
