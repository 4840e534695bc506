"""Tiers as a part of a process: one mean of weights per architecture."""

import functools

import numpy as np
import pytest
import tensorflow_federated as tff

from tests import golden
from tests.algorithms import clients
from tests.algorithms import learning
from tff_fedsa import composer
from tff_fedsa.algorithms import fedavg
from tff_fedsa.algorithms import fedsa
from tff_fedsa.algorithms import local
from tff_fedsa.evaluation import client_evaluation
from tff_fedsa.models import tiers as tiers_lib
from tff_fedsa.runs import metrics
from tff_fedsa.server import averaging

pytestmark = pytest.mark.usefixtures('in_process_context')

_PARTS = {
  'input_spec': clients.SPEC,
  'optimizer': clients.sgd(0.1),
  'local': learning.LOCAL,
}


@pytest.fixture(scope='module')
def models():
  return [clients.tiny_mlp(), clients.tiny_mlp('tanh', head_units=(7,))]


@pytest.fixture(scope='module')
def whole(models):
  """FedAvg in two tiers."""
  return fedavg.build_fedavg(models, **_PARTS)


@pytest.fixture(scope='module')
def extractors(models):
  """Local training that begins with extractors of two tiers."""
  return composer.with_averaging(
    local.build_local(models, **_PARTS),
    averaging.build_weight_averaging(
      models, tiers=tiers_lib.Tiers(models, 'extractor')
    ),
  )


@pytest.fixture(scope='module')
def mixing(models):
  """Local training that begins with a quarter of the tier's weights."""
  return composer.with_averaging(
    local.build_local(models, **_PARTS),
    averaging.build_weight_averaging(
      models, tiers=tiers_lib.Tiers(models, mixing=0.25)
    ),
  )


def _examples():
  """Two clients of each architecture, in turns, of different sizes."""
  return [clients.random_examples(1, n, seed=n)[0] for n in (23, 15, 9, 31)]


def _split(weights, models):
  return np.split(np.asarray(weights), [models[0].num_weights])


def test_two_tiers_equal_two_runs_bit_for_bit(whole, models):
  examples = _examples()
  server, _, _ = clients.run(whole, models, examples, rounds=3)
  for i, found in enumerate(_split(server.model.weights, models)):
    alone, _, _ = clients.run(
      fedavg.build_fedavg(models[i : i + 1], **_PARTS),
      models[i : i + 1],
      examples[i::2],
      rounds=3,
    )
    np.testing.assert_array_equal(found, alone.model.weights)
    assert np.abs(found - models[i].initial_weights(0)).max() > 0.1


@pytest.mark.slow
def test_two_tiers_equal_two_runs_of_tff_learning(whole, models):
  examples = _examples()
  server, _, _ = clients.run(whole, models, examples, rounds=3)
  for i, found in enumerate(_split(server.model.weights, models)):
    model_fn = functools.partial(
      learning.model_fn, *(('tanh', (7,)) if i else ())
    )
    expected = learning.run(
      tff.learning.algorithms.build_weighted_fed_avg(
        model_fn,
        tff.learning.optimizers.build_sgdm(0.1),
        tff.learning.optimizers.build_sgdm(1.0),
      ),
      models[i],
      examples[i::2],
      rounds=3,
    )
    golden.assert_close(found, expected)


@pytest.mark.parametrize('name', ['whole', 'extractors'])
def test_a_tier_without_participants_keeps_its_weights(request, models, name):
  process, examples = request.getfixturevalue(name), _examples()
  server, states, _ = clients.run(process, models, examples, rounds=1)
  output = process.next(server, [states[1]], [examples[1]])
  _assert_only_the_second_tier_trained(process, server, output)


def _assert_only_the_second_tier_trained(process, server, output):
  before, after = (
    np.split(np.asarray(s.model.weights), process.tiers.sizes[:1])
    for s in (server, output.state)
  )
  np.testing.assert_array_equal(after[0], before[0])
  # The only participant of the other is its mean.
  own = output.result[0].weights[: len(after[1])]
  np.testing.assert_allclose(after[1], own, atol=1e-6)
  assert not np.array_equal(after[1], before[1])


def test_a_client_of_weight_0_leaves_its_tier_as_it_is(whole, models):
  """A client whose training diverges counts nothing, and harms nobody."""
  examples = _examples()
  server, states, _ = clients.run(whole, models, examples, rounds=1)
  examples[0]['x'] = examples[0]['x'] * np.float32(1e30)
  # The first tier has this client only, the second has both of its own.
  output = whole.next(
    server, [states[i] for i in (0, 1, 3)], [examples[i] for i in (0, 1, 3)]
  )
  expected = whole.next(server, states[1::2], examples[1::2])
  np.testing.assert_array_equal(
    output.state.model.weights, expected.state.model.weights
  )
  assert output.measurements['client_work']['clients_nonfinite'] == 1


def test_heads_stay_with_clients(extractors, models):
  examples = _examples()
  server, states, measured = clients.run(extractors, models, examples, rounds=1)
  sizes = [model.num_weights for model in models]
  heads = [16 * 10 + 10, 16 * 7 + 7 + 7 * 10 + 10]
  shared = [size - head for size, head in zip(sizes, heads)]
  assert server.model.weights.shape == (sum(shared),)
  for i, (own, part) in enumerate(
    zip(np.split(server.model.weights, shared[:1]), shared)
  ):
    counts = [len(e['y']) for e in examples[i::2]]
    weights = [state.weights[:part] for state in states[i::2]]
    golden.assert_close(own, np.average(weights, axis=0, weights=counts))
  # A further round is local training of these extractors with own heads.
  output = extractors.next(server, states, examples)
  alone = local.build_local(models, **_PARTS)
  begun = [
    state._replace(
      weights=np.concatenate(
        [
          np.split(server.model.weights, shared[:1])[i % 2],
          state.weights[shared[i % 2] :],
        ]
      )
    )
    for i, state in enumerate(states)
  ]
  expected = alone.next(
    alone.initialize()._replace(round_num=server.round_num), begun, examples
  )
  for found, same in zip(output.result, expected.result):
    golden.assert_close(found.weights, same.weights)
  # Two clients of each architecture took part.
  columns = metrics.training_columns(measured)
  mean_size = sum(shared) / 2
  assert columns['averager_mean_size'] == mean_size
  assert metrics.communication_columns(extractors, columns) == {
    'bytes_down_per_client': 4 + 4 * mean_size,
    'bytes_up_per_client': 4 + 4 * mean_size,
  }


def test_a_round_begins_with_a_mixture(mixing, models):
  """Own and averaged weights, mixed by hand, then local training."""
  examples = _examples()
  alone = local.build_local(models, **_PARTS)
  server, states, _ = clients.run(mixing, models, examples, rounds=1)
  averaged = _split(server.model.weights, models)
  begun = [
    state._replace(
      weights=np.float32(0.75) * state.weights
      + np.float32(0.25) * averaged[i % 2]
    )
    for i, state in enumerate(states)
  ]
  assert np.abs(begun[0].weights - states[0].weights).max() > 0.01
  output = mixing.next(server, states, examples)
  expected = alone.next(
    alone.initialize()._replace(round_num=server.round_num), begun, examples
  )
  for found, same in zip(output.result, expected.result):
    golden.assert_close(found.weights, same.weights)
  # It is tested with this mixture, too.
  evaluate = client_evaluation.build_evaluation(
    models, clients.SPEC, mixing.server_model_type, tiers=mixing.tiers
  )
  received, mixed, whole = (
    [
      counts[name]
      for counts in client_evaluation.evaluate_clients(
        evaluate, server.model, zip(of_clients, examples)
      )
    ]
    for name, of_clients in (
      ('received_head', states),
      ('head', begun),
      (
        'head',
        [s._replace(weights=averaged[i % 2]) for i, s in enumerate(states)],
      ),
    )
  )
  assert received == mixed != whole


def test_who_diverges_keeps_own_weights(mixing, models):
  examples = _examples()
  server, states, _ = clients.run(mixing, models, examples, rounds=1)
  examples[1]['x'] = np.full_like(examples[1]['x'], np.nan)
  output = mixing.next(server, states, examples)
  assert output.measurements['client_work']['clients_nonfinite'] == 1
  for i, (before, after) in enumerate(zip(states, output.result)):
    assert np.array_equal(before.weights, after.weights) == (i == 1)


def test_own_models_are_tested_and_received_ones(extractors, models):
  examples = _examples()
  server, states, _ = clients.run(extractors, models, examples, rounds=2)
  evaluate = client_evaluation.build_evaluation(
    models,
    clients.SPEC,
    extractors.server_model_type,
    tiers=extractors.tiers,
  )
  found = client_evaluation.evaluate_clients(
    evaluate, server.model, zip(states, examples)
  )
  shared = np.split(server.model.weights, extractors.tiers.sizes[:1])
  for i, (counts, state, e) in enumerate(zip(found, states, examples)):
    model, part = models[i % 2], shared[i % 2]
    received = np.concatenate([part, state.weights[len(part) :]])
    for name, weights in (('head', state.weights), ('received_head', received)):
      extractor, head = model.to_keras(weights)
      logits = head(extractor(e['x'])).numpy()
      assert counts[name] == np.sum(logits.argmax(axis=1) == e['y'])
  assert {c['head'] == c['received_head'] for c in found} != {True}
  summary = client_evaluation.summarize(found)
  assert summary['received_head_accuracy'] < summary['head_accuracy']
  with pytest.raises(ValueError, match='share a part of their weights'):
    client_evaluation.build_evaluation(
      models, clients.SPEC, extractors.server_model_type
    )


def test_anchors_tie_tiers_together(models):
  """FedSA in tiers: what it does with anchors stays, weights are shared."""
  alone = fedsa.build_fedsa(models, **_PARTS)
  process = composer.with_averaging(
    alone, averaging.build_weight_averaging(models)
  )
  examples = _examples()
  # All begin with the same weights, so the first round is the same.
  expected, _, measured = clients.run(alone, models, examples, rounds=1)
  server, _, found = clients.run(process, models, examples, rounds=1)
  for name, value in expected.model._asdict().items():
    np.testing.assert_array_equal(getattr(server.model, name), value)
  assert dict(found['client_work']) == dict(measured['client_work'])


def test_without_sharing_nothing_is_added(models):
  process = local.build_local(models, **_PARTS)
  assert process.tiers is None and process.initialize().averager == ()


@pytest.mark.slow
@pytest.mark.parametrize('name', ['whole', 'extractors'])
def test_both_runtimes_agree(request, models, runtimes, name):
  process, examples = request.getfixturevalue(name), _examples()
  here, states, _ = clients.run(process, models, examples)
  with runtimes.default('native'):
    there, others, _ = clients.run(process, models, examples)
    output = process.next(there, [others[1]], [examples[1]])
  golden.assert_close(here.model.weights, there.model.weights)
  for one, other in zip(states, others):
    golden.assert_close(one.weights, other.weights)
  _assert_only_the_second_tier_trained(process, there, output)
