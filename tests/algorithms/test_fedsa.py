"""FedSA as a federated process: types, golden file 4, modes, bad clients."""

import collections
import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tests import golden
from tff_fedsa.algorithms import fedsa
from tff_fedsa.client import client_state
from tff_fedsa.client import local_optimizer
from tff_fedsa.client import local_training
from tff_fedsa.data import input_spec
from tff_fedsa.maths import prototypes
from tff_fedsa.models import functional

pytestmark = pytest.mark.usefixtures('in_process_context')

# The reference's inputs are float images, scaled already.
_SPEC = input_spec.InputSpec((8, 8, 1), 'float32', scale=1.0, offset=0.0)
_REFERENCE = local_training.LocalTrainingConfig(
  batch_size=10, num_epochs=2, remainder='drop', shuffle=False
)


def _tiny_mlp(num_classes=10, activation='relu'):
  """The reference's test model: 64 - 32 - ReLU - 16, head 16 - 10."""

  def build_fn():
    images = tf.keras.Input([8, 8, 1])
    hidden = tf.keras.layers.Flatten()(images)
    hidden = tf.keras.layers.Dense(32, activation=activation)(hidden)
    features = tf.keras.layers.Dense(16)(hidden)
    return functional.KerasClientModel(
      tf.keras.Model(images, features),
      tf.keras.Sequential(
        [tf.keras.Input([16]), tf.keras.layers.Dense(num_classes)]
      ),
    )

  return functional.FunctionalModel(build_fn, name='tiny_mlp')


def _flat(arrays, prefix):
  """A flat weight vector from torch arrays (kernels are [out, in] there)."""
  parts = []
  for layer in ('1', '2', 'h'):
    parts += [arrays[f'{prefix}_W{layer}'].T.ravel()]
    parts += [arrays[f'{prefix}_b{layer}']]
  return np.concatenate(parts)


def _examples(images, labels):
  return collections.OrderedDict(
    x=np.asarray(images, np.float32), y=np.asarray(labels, np.int32)
  )


def _sgd(learning_rate=0.01):
  return local_optimizer.LocalOptimizer(
    tff.learning.optimizers.build_sgdm(learning_rate)
  )


_SGD = _sgd()


@pytest.fixture(scope='module')
def model():
  yield _tiny_mlp()
  _build.cache_clear()


@pytest.mark.parametrize('variant', ['a', 'b', 'c', 'd'])
def test_local_training_equals_the_reference(model, variant):
  """Replays golden file 4 through the process, two rounds of one client."""
  arrays = {
    name[2:]: array
    for name, array in golden.load('4_local_training').items()
    if name.startswith(f'{variant}_')
  }
  process = fedsa.build_fedsa(
    [model],
    # The golden rounds have the same anchors.
    fedsa.FedSAConfig(lambda_reg=float(arrays['lamda']), anchor_decay=1.0),
    input_spec=_SPEC,
    anchors=arrays['anchors'],
    optimizer=_sgd(),
    local=_REFERENCE,
    class_means=prototypes.ClassMeanConfig(keep_missing=False),
  )
  images = arrays['x'].transpose(0, 2, 3, 1)  # NCHW, one channel
  state = client_state.new_client_state(
    model, 0, _flat(arrays, 'init'), client_id=0
  )
  server = process.initialize()
  for name in ('r1', 'r2'):
    output = process.next(server, [state], [_examples(images, arrays['y'])])
    server, (state,) = output.state, output.result
    golden.assert_close(state.weights, _flat(arrays, name))
    expected = arrays[f'{name}_protos']
    held = ~np.isnan(expected[:, 0])
    np.testing.assert_array_equal(state.counts > 0, held)
    golden.assert_close(state.prototypes[held], expected[held])
    metrics = output.measurements['client_work']
    step_losses = arrays[f'{name}_step_loss']
    golden.assert_close(metrics['loss'], np.mean(step_losses))
    golden.assert_close(metrics['gap_global'], arrays[f'{name}_global_gap'])
    if np.isfinite(arrays[f'{name}_local_gap']):
      golden.assert_close(metrics['gap_local'], arrays[f'{name}_local_gap'])
    assert metrics['examples'] == 10 * len(step_losses)
    # The global prototypes of one client are its own.
    golden.assert_close(server.model.prototypes[held], expected[held])
    np.testing.assert_array_equal(server.model.present, held)
  np.testing.assert_array_equal(server.model.anchors, arrays['anchors'])


def test_step_losses_equal_the_reference(model):
  """Each single step of variant `a`, by training on its prefix."""
  arrays = golden.load('4_local_training')
  objective = fedsa.build_objective(10, 16)
  step = model.build_train_step(
    objective.loss_fn,
    batch_size=10,
    context_specs=objective.context_specs,
    input_spec=_SPEC,
  )
  context = {
    'anchors': tf.constant(arrays['a_anchors']),
    'margin': tf.constant(arrays['a_r1_global_gap'], tf.float32),
  }
  weights, state = model.split(tf.constant(_flat(arrays, 'a_init')))
  images = arrays['a_x'].transpose(0, 2, 3, 1)
  for index, expected in enumerate(arrays['a_r1_step_loss']):
    batch = slice(index % 5 * 10, index % 5 * 10 + 10)
    output = step(
      weights,
      state,
      tf.constant(images[batch]),
      tf.constant(arrays['a_y'][batch], tf.int32),
      context,
      tf.zeros([2], tf.int32),
    )
    golden.assert_close(output.losses['loss'], expected)
    weights = [w - 0.01 * g for w, g in zip(weights, output.gradients)]


def test_warmup_and_margin_scale_by_hand(model):
  anchors = np.eye(10, 16, dtype=np.float32)
  state = client_state.build_initial_state_fn([model])(0)
  objective = fedsa.build_objective(
    10,
    16,
    fedsa.FedSAConfig(
      lambda_reg=2.0,
      lambda_mcl=3.0,
      lambda_cc=5.0,
      margin_scale=0.5,
      warmup_rounds=4,
    ),
  )
  features = tf.constant(np.eye(2, 16, dtype=np.float32)[::-1] * 2.0)
  logits = tf.zeros([2, 10])
  labels = tf.constant([1, 2])
  for round_num, warmup in enumerate([0.0, 0.25, 0.5, 0.75, 1.0, 1.0]):
    context = objective.context_fn(anchors, state, round_num)
    # All pairs of anchors are sqrt(2) apart.
    np.testing.assert_allclose(context['margin'], np.sqrt(2.0) / 2, rtol=1e-6)
    terms = objective.loss_fn(
      features, logits, labels, lambda x: 3.0 * x[:, :10], context
    )
    np.testing.assert_allclose(
      terms['loss'],
      terms['cross_entropy']
      + warmup * (2.0 * terms['regularization'] + 3.0 * terms['contrastive'])
      + 5.0 * terms['calibration'],
      rtol=1e-6,
    )


def test_structure_can_take_the_place_of_positions():
  config = fedsa.FedSAConfig(
    lambda_reg=0.0, lambda_mcl=0.0, lambda_cc=0.0, lambda_structure=2.0
  )
  objective = fedsa.build_objective(10, 16, config)
  assert 'structure' in objective.loss_names
  assert 'structure' not in fedsa.build_objective(10, 16).loss_names
  rng = np.random.default_rng(0)
  anchors, features = rng.standard_normal((2, 10, 16)).astype(np.float32)
  context = {'anchors': anchors, 'margin': 1.0, 'lambda_structure': 3.0}

  def terms(features, context):
    return objective.loss_fn(
      tf.constant(features),
      tf.zeros([10, 10]),
      tf.range(10),
      lambda x: x[:, :10],
      context,
    )

  found = terms(features, context)
  # The client has a weight of its own.
  np.testing.assert_allclose(
    found['loss'], found['cross_entropy'] + 3.0 * found['structure'], rtol=1e-6
  )
  del context['lambda_structure']
  moved = terms(features[:, ::-1] + 1.0, context)
  np.testing.assert_allclose(
    moved['loss'],
    found['cross_entropy'] + 2.0 * found['structure'],
    rtol=1e-5,
  )


def test_a_structure_is_learned(model):
  apart = {'lambda_reg': 0.0, 'lambda_mcl': 0.0, 'lambda_cc': 0.0}
  examples = _random_clients(1)
  measured = []
  for weight in (1e-6, 100.0):
    config = fedsa.FedSAConfig(lambda_structure=weight, **apart)
    _, _, measurements = _run([model], examples, rounds=3, config=config)
    measured.append(measurements['client_work']['structure'])
  assert 0.0 < measured[1] < 0.9 * measured[0]


def test_without_agreement_anchors_are_as_far_apart_but_each_clients_own(model):
  anchors = np.random.default_rng(0).standard_normal((10, 16))
  anchors = anchors.astype(np.float32)
  config = fedsa.FedSAConfig(anchor_decay=1.0, anchor_agreement=False)
  objective = fedsa.build_objective(10, 16, config)
  states = map(client_state.build_initial_state_fn([model]), range(2))
  contexts = [objective.context_fn(anchors, state, 0) for state in states]
  found = [context['anchors'].numpy() for context in contexts]
  for own, context in zip(found, contexts):
    # The same features in another order, which is the same for all classes.
    np.testing.assert_array_equal(
      np.sort(own, axis=1), np.sort(anchors, axis=1)
    )
    np.testing.assert_allclose(own @ own.T, anchors @ anchors.T, atol=1e-4)
    np.testing.assert_allclose(
      context['margin'], contexts[0]['margin'], rtol=1e-6
    )
    assert not np.array_equal(own, anchors)
  assert not np.array_equal(*found)
  with pytest.raises(ValueError, match='needs anchor_decay=1, found 0.9999'):
    fedsa.FedSAConfig(anchor_agreement=False)


def test_the_server_follows_evidence_and_separates_anchors(model):
  examples = _random_clients(3)
  plain = fedsa.FedSAConfig(anchor_decay=0.5)
  slow = dataclasses.replace(plain, anchor_evidence=9.0)
  initial = plain.initial_anchors(10, 16)
  after, _, _ = _run([model], examples, rounds=1, config=plain)
  slower, states, _ = _run([model], examples, rounds=1, config=slow)
  num_clients = np.sum([state.counts > 0 for state in states], axis=0)
  share = (num_clients / (num_clients + 9.0))[:, np.newaxis]
  golden.assert_close(
    slower.model.anchors, initial + share * (after.model.anchors - initial)
  )
  apart = dataclasses.replace(plain, anchor_orthogonality=1.0)
  server, _, _ = _run([model], examples, rounds=1, config=apart)
  cosines = server.model.anchors @ server.model.anchors.T
  np.testing.assert_allclose(
    cosines, np.diag(np.sum(after.model.anchors**2, axis=1)), atol=1e-4
  )


def test_evidence_without_movement_is_refused():
  config = fedsa.FedSAConfig(anchor_decay=1.0, anchor_evidence=2.0)
  with pytest.raises(ValueError, match='anchor_evidence would be ignored'):
    config.refuse_ignored()
  with pytest.raises(ValueError, match='anchor_evidence >= 0'):
    fedsa.FedSAConfig(anchor_evidence=-1.0)
  with pytest.raises(ValueError, match=r'anchor_orthogonality in \[0, 1\]'):
    fedsa.FedSAConfig(anchor_orthogonality=1.5)


def test_a_round_of_warmup_trains_without_anchors(model):
  warming = fedsa.FedSAConfig(warmup_rounds=3)
  without = fedsa.FedSAConfig(lambda_reg=0.0, lambda_mcl=0.0)
  examples = _random_clients(1)
  _, warm, _ = _run([model], examples, rounds=1, config=warming)
  _, none, _ = _run([model], examples, rounds=1, config=without)
  np.testing.assert_allclose(warm[0].weights, none[0].weights, atol=1e-6)
  _, later, _ = _run([model], examples, rounds=2, config=warming)
  _, never, _ = _run([model], examples, rounds=2, config=without)
  assert np.abs(later[0].weights - never[0].weights).max() > 1e-4


def test_type_properties(model):
  process = fedsa.build_fedsa([model], input_spec=_SPEC)
  table = 'float32[10,16]'
  server = (
    f'<round_num=int32,model=<anchors={table},prototypes={table},'
    'present=bool[10]>,distributor=<>,aggregator=<vectors=<>,weights=<>>,'
    'finalizer=<>,averager=<>>@SERVER'
  )
  client = (
    '{<architecture=int32,weights=float32[?],optimizer=float32[?],'
    f'prototypes={table},counts=float32[10],seed=int32[2],'
    'private=float32[?]>}@CLIENTS'
  )
  metrics = (
    '<calibration=float32,contrastive=float32,cross_entropy=float32,'
    'loss=float32,regularization=float32,gap_global=float32,'
    'gap_local=float32,clients_nonfinite=int32,clients_trained=int32,'
    'examples=int32>'
  )
  assert process.initialize.type_signature.compact_representation() == (
    f'( -> {server})'
  )
  assert process.next.type_signature.compact_representation() == (
    f'(<server_state={server},client_states={client},'
    'examples={<x=float32[?,8,8,1],y=int32[?]>}@CLIENTS> -> '
    f'<state={server},result={client},measurements=<distributor=<>,'
    f'client_work={metrics},screening=<clients_rejected=int32,'
    'clients_rejected_nonfinite=int32,clients_rejected_large=int32,'
    'clients_rejected_weight=int32,clients_rejected_metrics=int32,'
    'rejected=int32[?,2]>,aggregator=<classes_present=int32,vectors=<>,'
    'weights=<>>,finalizer=<server_nonfinite=int32>>@SERVER>)'
  )


def _random_clients(num_clients=4, num_examples=23, seed=0, num_classes=10):
  rng = np.random.default_rng(seed)
  return [
    _examples(
      rng.standard_normal((num_examples, 8, 8, 1)),
      rng.integers(0, num_classes, num_examples),
    )
    for _ in range(num_clients)
  ]


# Its processes are built once for all tests that ask for the same.
_build = functools.cache(
  lambda models, optimizer, **options: fedsa.build_fedsa(
    models, input_spec=_SPEC, optimizer=optimizer, **options
  )
)


def _run(
  models, examples, *, rounds=2, optimizer=None, build=_build, **options
):
  """Returns server state, client states and the last measurements."""
  kept = optimizer if optimizer and optimizer.keeps_state else None
  options = {'local': _config(), **options}
  process = build(tuple(models), optimizer or _SGD, **options)
  initial_state_fn = client_state.build_initial_state_fn(models, optimizer=kept)
  states = [initial_state_fn(i) for i in range(len(examples))]
  server = process.initialize()
  for _ in range(rounds):
    output = process.next(server, states, examples)
    server, states = output.state, output.result
  return server, states, output.measurements


def _config(**options):
  return local_training.LocalTrainingConfig(**options)


def test_heterogeneous_models_train_in_one_round():
  models = [_tiny_mlp(), _tiny_mlp(activation='tanh')]
  examples = _random_clients()
  server, states, measurements = _run(models, examples, rounds=1)
  assert [int(s.architecture) for s in states] == [0, 1, 0, 1]
  # Same architecture and data, other clients: the same result as alone.
  process = fedsa.build_fedsa(models[1:], input_spec=_SPEC, optimizer=_sgd())
  lone = client_state.new_client_state(
    models[1], 0, models[1].initial_weights(0), client_id=3
  )
  alone = process.next(process.initialize(), [lone], examples[3:])
  np.testing.assert_array_equal(alone.result[0].weights, states[3].weights)
  assert measurements['client_work']['clients_trained'] == 4
  assert server.round_num == 1


def test_same_seed_same_run_and_order_differs_by_client_round_and_epoch(model):
  examples = _random_clients()
  _, run, _ = _run([model], examples)
  # The second run has a process of its own.
  _, repeated, _ = _run([model], examples, build=_build.__wrapped__)
  for first, again in zip(run, repeated):
    np.testing.assert_array_equal(first.weights, again.weights)
  # Two clients with the same data and start differ in their order only.
  same_data = [examples[0], examples[0]]
  _, (one, other), _ = _run([model], same_data, rounds=1)
  assert np.abs(one.weights - other.weights).max() > 1e-6
  np.testing.assert_array_equal(one.counts, other.counts)
  _, (one, other), _ = _run(
    [model], same_data, rounds=1, local=_config(shuffle=False)
  )
  np.testing.assert_array_equal(one.weights, other.weights)


@pytest.mark.parametrize(
  'remainder, visited, counted',
  [('short', 23, 23), ('wrap', 30, 23), ('drop', 20, 20)],
)
def test_remainders(model, remainder, visited, counted):
  # 23 examples in batches of 10: two full ones and three left over.
  _, (state,), measurements = _run(
    [model],
    _random_clients(1),
    rounds=1,
    local=_config(remainder=remainder),
  )
  assert measurements['client_work']['examples'] == visited
  np.testing.assert_allclose(state.counts.sum(), counted, rtol=1e-6)


def test_running_and_final_prototypes(model):
  (examples,) = _random_clients(1)
  _, (state,), _ = _run(
    [model], [examples], rounds=1, local=_config(prototypes='final')
  )
  keras_model = model.to_keras(state.weights)
  features = keras_model.feature_extractor(examples['x']).numpy()
  for label in range(10):
    own = examples['y'] == label
    assert state.counts[label] == own.sum()
    if own.any():
      np.testing.assert_allclose(
        state.prototypes[label],
        features[own].mean(axis=0),
        rtol=1e-4,
        atol=1e-5,
      )
  # With a learning rate of 0 nothing moves: both kinds coincide.
  still = [
    _run(
      [model],
      [examples],
      rounds=1,
      optimizer=_sgd(0.0),
      local=_config(prototypes=kind),
    )[1][0].prototypes
    for kind in ('running', 'final')
  ]
  np.testing.assert_allclose(*still, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
  'optimizer, rates',
  [
    ('sgdm', (0.01, 0.9)),
    ('adam', (0.001,)),
    pytest.param('yogi', (0.001,), marks=pytest.mark.slow),
    pytest.param('adagrad', (0.01,), marks=pytest.mark.slow),
  ],
)
def test_optimizers_kept_over_rounds(model, optimizer, rates):
  build = getattr(tff.learning.optimizers, f'build_{optimizer}')
  examples = _random_clients(2)
  results = {}
  for kind in ('reset', 'keep'):
    optimizer = local_optimizer.LocalOptimizer(build(*rates), state=kind)
    results[kind] = _run([model], examples, optimizer=optimizer)[1]
  assert results['reset'][0].optimizer.size == 0
  assert results['keep'][0].optimizer.size >= model.num_weights
  difference = results['reset'][0].weights - results['keep'][0].weights
  assert np.abs(difference).max() > 1e-7


def test_kept_optimizer_equals_one_long_round(model):
  # In order and without anchors that move, two rounds of one epoch with a
  # kept optimizer are one round of two epochs; the margin is the global gap
  # in both.
  (examples,) = _random_clients(1)
  weights = []
  for rounds, epochs in ((2, 1), (1, 2)):
    _, (state,), _ = _run(
      [model],
      [examples],
      rounds=rounds,
      optimizer=local_optimizer.LocalOptimizer(
        tff.learning.optimizers.build_adam(0.001), state='keep'
      ),
      local=_config(shuffle=False, num_epochs=epochs),
      config=fedsa.FedSAConfig(lambda_mcl=0.0, anchor_decay=1.0),
    )
    weights.append(state.weights)
  np.testing.assert_allclose(*weights, rtol=1e-5, atol=1e-7)


def test_learning_rate_schedule_by_round(model):
  examples = _random_clients(1)
  scheduled = local_optimizer.LocalOptimizer(
    tff.learning.optimizers.build_sgdm(0.5),
    learning_rate_fn=lambda round_num: 0.01
    * tf.cast(1 - round_num, tf.float32),
  )
  _, first, _ = _run([model], examples, rounds=1, optimizer=scheduled)
  _, constant, _ = _run([model], examples, rounds=1)
  np.testing.assert_allclose(
    first[0].weights, constant[0].weights, rtol=1e-6, atol=1e-7
  )
  # In the second round the rate is 0.
  _, second, _ = _run([model], examples, rounds=2, optimizer=scheduled)
  np.testing.assert_array_equal(second[0].weights, first[0].weights)


def test_nonfinite_client_is_excluded_and_keeps_its_state(model):
  examples = _random_clients(3)
  examples[1]['x'] = examples[1]['x'] * np.float32(1e30)
  _, states, measurements = _run([model], examples, rounds=1)
  healthy = [examples[0], examples[2]]
  np.testing.assert_array_equal(states[1].weights, model.initial_weights(0))
  assert not states[1].counts.any()
  work = measurements['client_work']
  assert work['clients_nonfinite'] == 1 and work['clients_trained'] == 2
  assert work['examples'] == sum(len(c['y']) for c in healthy) + 23
  assert all(np.isfinite(work[name]) for name in work)


def test_nonfinite_client_does_not_reach_the_server(model):
  examples = _random_clients(2)
  examples[1]['x'] = examples[1]['x'] * np.float32(1e30)
  server, _, _ = _run([model], examples, rounds=1)
  without, _, _ = _run([model], examples[:1], rounds=1)
  for name in server.model._fields:
    np.testing.assert_array_equal(
      getattr(server.model, name), getattr(without.model, name)
    )


def test_client_without_a_full_batch(model):
  tiny = _random_clients(1, num_examples=4)
  _, (state,), work = _run(
    [model], tiny, rounds=1, local=_config(remainder='drop')
  )
  np.testing.assert_array_equal(state.weights, model.initial_weights(0))
  assert not state.counts.any()
  assert work['client_work']['clients_trained'] == 0
  # By default it trains.
  _, (state,), work = _run([model], tiny, rounds=1)
  assert state.counts.sum() == 4
  assert work['client_work']['clients_trained'] == 1


def test_weighting_by_examples(model):
  few, many = _random_clients(1, 10)[0], _random_clients(1, 30, seed=1)[0]
  still = _sgd(0.0)
  server, states, _ = _run(
    [model],
    [few, many],
    rounds=1,
    optimizer=still,
    class_means=prototypes.ClassMeanConfig(weighting='examples'),
  )
  counts = np.stack([s.counts for s in states])
  sums = np.stack([s.prototypes for s in states]) * counts[:, :, None]
  expected = sums.sum(0) / np.maximum(counts.sum(0), 1)[:, None]
  golden.assert_close(server.model.prototypes, expected)


def test_independent_initial_weights(model):
  shared = client_state.build_initial_state_fn([model])
  independent = client_state.build_initial_state_fn(
    [model], client_init='independent'
  )
  np.testing.assert_array_equal(shared(0).weights, shared(5).weights)
  assert np.abs(independent(0).weights - independent(5).weights).max() > 0.01
  np.testing.assert_array_equal(independent(5).weights, independent(5).weights)


def test_bad_parts_are_named(model):
  build = lambda **options: fedsa.build_fedsa(
    [model], **{'input_spec': _SPEC, **options}
  )
  with pytest.raises(ValueError, match=r'Expected anchors .* found \[3, 16\]'):
    build(anchors=np.zeros((3, 16), np.float32))
  with pytest.raises(ValueError, match='lambda_reg >= 0'):
    fedsa.FedSAConfig(lambda_reg=-1.0)
  with pytest.raises(ValueError, match='margin_scale >= 0'):
    fedsa.FedSAConfig(margin_scale=-1.0)
  with pytest.raises(ValueError, match='warmup_rounds >= 0'):
    fedsa.FedSAConfig(warmup_rounds=-1)
  with pytest.raises(ValueError, match='found both'):
    build(
      objective=fedsa.build_objective(10, 16),
      config=fedsa.FedSAConfig(warmup_rounds=1),
    )
  with pytest.raises(ValueError, match='`anchors` or anchor_seed in `config`'):
    build(
      anchors=np.zeros((10, 16), np.float32),
      config=fedsa.FedSAConfig(anchor_seed=1),
    )
  with pytest.raises(ValueError, match='known: clients, examples'):
    prototypes.ClassMeanConfig(weighting='none')
  with pytest.raises(ValueError, match='batch_size >= 1'):
    _config(batch_size=0)
  with pytest.raises(ValueError, match='known: short, wrap, drop'):
    _config(remainder='pad')
  with pytest.raises(ValueError, match='the same num_classes'):
    fedsa.build_fedsa([model, _tiny_mlp(num_classes=3)], input_spec=_SPEC)
  with pytest.raises(ValueError, match='takes inputs of shape'):
    build(input_spec=input_spec.InputSpec((32, 32, 3)))
  with pytest.raises(TypeError, match='Keras optimizers are not supported'):
    local_optimizer.LocalOptimizer(tf.keras.optimizers.SGD())
  with pytest.raises(ValueError, match=r'expected weights of shape \(2778,\)'):
    client_state.new_client_state(model, 0, np.zeros(3), client_id=7)
