"""Clients that never train are tested as they join, and after one round."""

import numpy as np
import pytest

from tff_fedsa import experiment as experiment_lib
from tff_fedsa import settings
from tff_fedsa.client import client_store
from tff_fedsa.evaluation import client_evaluation
from tff_fedsa.evaluation import newcomers

_BASE = experiment_lib.Experiment(
  num_clients=4,
  max_examples=300,
  feature_dim=8,
  # Two tiers: one client that trains, and one that joins, in each.
  family='digits_mlp,digits_mlp',
  total_rounds=2,
  share_weights='extractor',
  held_out_clients=2,
  progress=False,
)


@pytest.fixture(scope='module')
def result():
  return _BASE.run()


def test_they_never_train(result):
  assert result.store.client_ids() == [0, 1]
  assert len(result.per_client) == 2
  assert all(row['clients_sampled'] == 2 for row in result.rows[1:])


def test_they_are_tested_with_what_they_receive(result):
  process, server = _BASE.process, result.server_state
  store = client_store.MemoryStore(_BASE.initial_state_fn)
  correct = {'joined': 0, 'trained': 0}
  total = 0
  for client_id in (2, 3):
    client, state = _BASE.task.clients[client_id], store.get(client_id)
    total += len(client.test['y'])
    received = np.array(state.weights)
    # The extractor comes first, the head stays the client's own.
    of_tiers = np.split(server.model.weights, 2)
    received[: len(of_tiers[0])] = of_tiers[client_id % 2]
    (counts,) = client_evaluation.evaluate_clients(
      _BASE.evaluate,
      server.model,
      [(state._replace(weights=received), client.test)],
    )
    correct['joined'] += counts['anchor']
    output = process.next(server, [state], [client.train])
    (counts,) = client_evaluation.evaluate_clients(
      _BASE.evaluate, server.model, [(output.result[0], client.test)]
    )
    correct['trained'] += counts['anchor']
  last = result.rows[-1]
  assert last['newcomer_anchor_accuracy'] == correct['joined'] / total
  assert last['newcomer_trained_anchor_accuracy'] == correct['trained'] / total
  assert result.summary['newcomers'] == {
    name: value for name, value in last.items() if name.startswith('newcomer_')
  }
  assert 'clients that never train, as they join: proto' in str(result)
  assert 'newcomers' not in result._repr_html_()


def test_averaged_models_are_tested_once(result):
  found = newcomers.evaluate(
    _BASE.process,
    _BASE.evaluate,
    result.server_state,
    {2: _BASE.task.clients[2]},
    result.store,
    tests_averaged=True,
  )
  assert found and not any(n.startswith(newcomers.TRAINED) for n in found)


@pytest.mark.parametrize(
  ('changes', 'match'),
  [
    ({'held_out_clients': 4}, r'held_out_clients in \[0, 3\], found 4'),
    ({'clients_per_round': 3}, r'clients_per_round in \[1, 2\], found 3'),
    (
      {'protocol': 'global', 'test_set': 'original', 'share_weights': 'none'},
      'held_out_clients are tested on examples of their own',
    ),
  ],
)
def test_impossible_numbers_are_refused(changes, match):
  with pytest.raises(settings.SettingsError, match=match):
    _ = _BASE.replace(**changes).task
