"""FedSA whose heads learn virtual features: clients, server, other parts."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from tests import golden
from tests import rows as rows_lib
from tests.algorithms import clients
from tff_fedsa import composer
from tff_fedsa import experiment
from tff_fedsa.aggregation import aggregator_config
from tff_fedsa.aggregation import compression
from tff_fedsa.aggregation import secure
from tff_fedsa.algorithms import fedsa
from tff_fedsa.client import attack_config
from tff_fedsa.client import attacks
from tff_fedsa.client import client_state
from tff_fedsa.maths import prototypes
from tff_fedsa.maths import virtual_features
from tff_fedsa.models import tiers
from tff_fedsa.privacy import private_process
from tff_fedsa.runs import errors
from tff_fedsa.runs import metrics
from tff_fedsa.server import averaging
from tff_fedsa.server import server_model

_CONFIG = fedsa.FedSAConfig(lambda_virtual=2.0)


@pytest.fixture(scope='module')
def model():
  return clients.tiny_mlp()


@pytest.fixture(scope='module')
def build(model):
  """Builds each process once."""

  def build(config=_CONFIG, **options):
    return clients.build_fedsa(model, config, **options)

  return functools.cache(build)


def _examples():
  """Three clients. The first one has three of the classes."""
  examples = clients.random_examples(3)
  examples[0]['y'] %= 3
  return examples


def _known(rng):
  anchors, means = rng.standard_normal((2, 10, 16)).astype(np.float32)
  return server_model.StatisticsModel(
    anchors, means, np.arange(10) < 9, np.square(means) + 0.25
  )


def test_the_term_of_a_client_that_lacks_classes_by_hand(model):
  objective = fedsa.build_objective(10, 16, _CONFIG)
  assert 'virtual' not in fedsa.build_objective(10, 16).loss_names
  rng = np.random.default_rng(0)
  known = _known(rng)
  counts = np.zeros(10, np.float32)
  counts[:3] = (30, 9, 1)
  state = client_state.build_initial_state_fn([model])(0)
  context = objective.context_fn(known, state._replace(counts=counts), 3)
  context['seed'] = tf.constant([5, 6])
  kernel = tf.Variable(rng.standard_normal((16, 10)).astype(np.float32))
  head_fn = lambda features: features @ kernel

  def terms():
    return objective.loss_fn(
      tf.zeros([2, 16]), tf.zeros([2, 10]), tf.range(2), head_fn, context
    )

  with tf.GradientTape() as tape:
    found = terms()
  # The class that nobody sent is left out; the second one has nearly enough.
  weights = np.array([0, 0, 0.75, *[1.0] * 6, 0])
  drawn = virtual_features.draw(
    tf.constant(known.prototypes), tf.fill([10, 16], 0.25), 4, [5, 6]
  ).numpy()
  logits = drawn @ kernel.numpy()
  odds = np.exp(logits - logits.max(-1, keepdims=True))
  probabilities = odds / odds.sum(-1, keepdims=True)
  by_class = -np.log(np.einsum('kcc->kc', probabilities)).mean(0)
  np.testing.assert_allclose(
    found['virtual'], (weights * by_class).mean(), rtol=1e-5
  )
  # The row of a class that the client lacks is drawn to its virtual features.
  errors_ = (probabilities - np.eye(10)) * weights[:, np.newaxis] / 40
  np.testing.assert_allclose(
    tape.gradient(found['virtual'], kernel),
    np.einsum('kcd,kcj->dj', drawn, errors_),
    atol=1e-6,
  )
  assert errors_[:, 5, 5].max() < 0
  for weight in (2.0, 3.0):
    np.testing.assert_allclose(
      terms()['loss'],
      found['cross_entropy']
      + 10.0 * found['regularization']
      + found['contrastive']
      + found['calibration']
      + weight * found['virtual'],
      rtol=1e-6,
    )
    context['lambda_virtual'] = 3.0  # The client has a weight of its own.


@pytest.mark.usefixtures('in_process_context')
def test_the_server_knows_the_moments_of_all_features(model, build):
  examples = _examples()
  process = build(
    rate=0.0, class_means=prototypes.ClassMeanConfig(weighting='examples')
  )
  server, states, _ = clients.run(process, [model], examples, rounds=1)
  features = model.to_keras(states[0].weights)[0](
    np.concatenate([one['x'] for one in examples])
  ).numpy()
  labels = np.concatenate([one['y'] for one in examples])
  for label in range(10):
    own = features[labels == label]
    golden.assert_close(server.model.prototypes[label], own.mean(0), 1e-4)
    found = virtual_features.class_variances(
      server.model.prototypes[label], server.model.squares[label]
    )
    golden.assert_close(found.numpy(), own.var(0), 1e-4)
  assert server.model.present.all()
  table, present, round_num = 10 * 16 * 4, 10, 4
  assert metrics.communication_columns(process) == {
    'bytes_down_per_client': 3 * table + present + round_num,
    'bytes_up_per_client': 2 * table + 10 * 4,
  }


@pytest.mark.slow
@pytest.mark.usefixtures('in_process_context')
def test_a_head_learns_classes_that_its_client_lacks(model, build):
  apart = {'lambda_reg': 0.0, 'lambda_mcl': 0.0, 'lambda_cc': 0.0}
  losses = []
  for weight in (1e-6, 10.0):
    process = build(fedsa.FedSAConfig(lambda_virtual=weight, **apart))
    server, states, measurements = clients.run(
      process, [model], _examples(), rounds=4
    )
    # The first client has classes 0 to 2.
    head = model.to_keras(states[0].weights)[1]
    logits = head(server.model.prototypes[3:])
    losses.append(
      tf.nn.sparse_softmax_cross_entropy_with_logits(tf.range(3, 10), logits)
    )
    losses.append(measurements['client_work']['virtual'])
  without, measured_without, with_term, measured = losses
  assert (with_term < without).numpy().all()
  assert np.mean(with_term) < 0.7 * np.mean(without)
  assert 0.0 < measured < 0.7 * measured_without


@pytest.mark.usefixtures('in_process_context')
def test_the_same_seed_is_the_same_run(model, build):
  examples = _examples()
  first, again = (
    clients.run(build(), [model], examples, rounds=3) for _ in range(2)
  )
  clients.assert_close(first, again)
  # Two clients with the same data, start and order draw other features.
  process = build()
  start = client_state.build_initial_state_fn([model])
  known = _known(np.random.default_rng(0))
  server = process.initialize()
  server = server._replace(model=known)
  one, other = (
    process.next(
      server,
      [start(0)._replace(seed=np.array([0, client], np.int32))],
      [{name: rows[:1] for name, rows in examples[0].items()}],
    ).measurements['client_work']
    for client in (0, 1)
  )
  assert one['cross_entropy'] == other['cross_entropy']
  assert one['virtual'] != other['virtual']


@pytest.mark.slow
@pytest.mark.usefixtures('native_context')
def test_the_stock_runtime_agrees(model, build, runtimes):
  found = clients.run(build(), [model], _examples(), rounds=3)
  with runtimes.default('in_process'):
    expected = clients.run(build(), [model], _examples(), rounds=3)
  clients.assert_close(found, expected, 1e-4)


@pytest.mark.slow
@pytest.mark.usefixtures('in_process_context')
def test_clients_that_are_trained_together_have_the_same_numbers(model, build):
  alone, together = (
    clients.run(build(batch_clients=count), [model], _examples(), rounds=3)
    for count in (None, 3)
  )
  clients.assert_close(alone, together, 1e-4)


@pytest.mark.slow
@pytest.mark.usefixtures('context_in_the_clear')
def test_secure_sums_have_the_same_results(model, build):
  plain, secured = (
    clients.run(
      build(max_examples=23, secure=secure.SecureConfig(secure=use)),
      [model],
      _examples(),
      rounds=3,
    )
    for use in (False, True)
  )
  clients.assert_close(secured[:2], plain[:2], 1e-4)


@pytest.mark.slow
@pytest.mark.usefixtures('in_process_context')
def test_privacy_without_noise_has_the_same_results(model, build):
  mechanism = private_process.Mechanism(
    'central', clip_norm=1e6, noise_multiplier=0.0, participants=3
  )
  plain, private = (
    clients.run(build(privacy=privacy), [model], _examples(), rounds=3)[:2]
    for privacy in (None, mechanism)
  )
  # The states of the aggregators differ.
  clients.assert_close(
    (private[0].model, private[1]), (plain[0].model, plain[1]), 1e-3
  )


@pytest.mark.slow
@pytest.mark.usefixtures('in_process_context')
def test_noise_of_privacy_keeps_variances_valid(model, build):
  mechanism = private_process.Mechanism(
    'central', clip_norm=5.0, noise_multiplier=0.2, participants=3
  )
  server, states, _ = clients.run(
    build(privacy=mechanism), [model], _examples(), rounds=3
  )
  noisy = server.model.squares - np.square(server.model.prototypes)
  assert noisy.min() < 0
  for state in states:
    assert np.isfinite(state.weights).all()


@pytest.mark.slow
@pytest.mark.usefixtures('in_process_context')
def test_compressed_statistics_are_nearly_the_same(model, build):
  config = compression.CompressionConfig('uniform8', 'uniform8')
  plain, compressed = (
    clients.run(build(compression=used), [model], _examples())[0].model
    for used in (None, config)
  )
  clients.assert_close(compressed, plain, 0.1)
  assert np.abs(compressed.squares - plain.squares).max() > 0
  process = build(compression=config)
  before = metrics.communication_columns(build())
  after = metrics.communication_columns(process)
  for name, num_bytes in before.items():
    assert after[name] < 0.5 * num_bytes


@pytest.mark.slow
@pytest.mark.usefixtures('in_process_context')
def test_forged_squares_do_no_harm(model, build):
  attack = attacks.Attack(
    attack_config.AttackConfig(attack='sign_flip', attack_fraction=0.3),
    (1,),
    10,
  )
  server, states, measurements = clients.run(
    build(attack=attack), [model], _examples(), rounds=3
  )
  assert server.model.squares.min() < 0
  assert np.isfinite(states[0].weights).all()
  assert measurements['client_work']['virtual'] > 0


@pytest.mark.slow
@pytest.mark.usefixtures('in_process_context')
def test_with_shared_extractors(model, build):
  sharing = averaging.build_weight_averaging(
    [model], tiers=tiers.Tiers([model], 'extractor')
  )
  process = composer.with_averaging(build(), sharing)
  server, _, measurements = clients.run(process, [model], _examples())
  assert server.model.squares.shape == (10, 16)
  assert measurements['client_work']['virtual'] > 0


@pytest.mark.slow
def test_resumed_equals_uninterrupted(tmp_path):
  run = experiment.Experiment(
    num_clients=3,
    max_examples=200,
    feature_dim=8,
    family='digits_mlp',
    total_rounds=3,
    progress=False,
    lambda_virtual=1.0,
  )
  whole = run.run()
  run.run(tmp_path / 'run', total_rounds=2)
  resumed = run.run(tmp_path / 'run')
  assert rows_lib.stable(resumed.rows) == rows_lib.stable(whole.rows)
  assert whole.rows[-1]['loss_virtual'] > 0
  clients.assert_close(resumed.client(0).anchors, whole.client(0).anchors)


def test_what_does_not_fit_is_refused(build):
  with pytest.raises(errors.UserError, match='found RobustMeanFactory. Give'):
    build(aggregator=aggregator_config.AggregatorConfig('median'))
  with pytest.raises(errors.UserError, match='found AnchorScreenedFactory'):
    build(aggregator=aggregator_config.AggregatorConfig('anchor_screened'))
  with pytest.raises(ValueError, match='needs `?anchor_agreement'):
    fedsa.FedSAConfig(
      anchor_decay=1.0, anchor_agreement=False, lambda_virtual=1.0
    )
  with pytest.raises(ValueError, match='lambda_virtual >= 0, found -1.0'):
    fedsa.FedSAConfig(lambda_virtual=-1.0)
  with pytest.raises(ValueError, match='virtual_features >= 1, found 0'):
    fedsa.FedSAConfig(virtual_features=0)
  with pytest.raises(ValueError, match='virtual_features would be ignored'):
    experiment.Experiment(virtual_features=2)
