"""FedPCL: contrast with global prototypes and with those of all clients."""

import numpy as np
import pytest
import tensorflow as tf

from tests import golden
from tests.algorithms import clients
from tff_fedsa.algorithms import fedpcl
from tff_fedsa.evaluation import client_evaluation
from tff_fedsa.maths import prototypes
from tff_fedsa.runs import metrics

pytestmark = pytest.mark.usefixtures('in_process_context')

_MODELS = [clients.tiny_mlp(), clients.tiny_mlp('tanh')]


@pytest.fixture(scope='module')
def process():
  return fedpcl.build_fedpcl(
    _MODELS, input_spec=clients.SPEC, local=clients.ONE_STEP, max_participants=4
  )


def _contrast(features, labels, table, present, temperature):
  """The loss of one table, example by example."""
  total = 0.0
  for feature, label in zip(features, labels):
    if not present[label]:
      continue
    scores = {
      k: feature @ table[k] / np.linalg.norm(feature) / np.linalg.norm(table[k])
      for k in np.flatnonzero(present)
    }
    exponentials = {k: np.exp(s / temperature) for k, s in scores.items()}
    total -= np.log(exponentials[label] / sum(exponentials.values()))
  return total / len(labels)


def test_contrast_by_hand():
  # Angles 0 and 90 degrees, temperature 1: log(1 + e) - 1 and log(1 + e).
  found = fedpcl.contrast(
    tf.constant([[2.0, 0.0]]),
    tf.constant([0]),
    tf.constant([[[5.0, 0.0], [0.0, 3.0]], [[0.0, 1.0], [7.0, 0.0]]]),
    tf.constant([True, True]),
    1.0,
  )
  golden.assert_close(found, [np.log(1 + np.e) - 1, np.log(1 + np.e)])


def test_absent_classes_do_not_count():
  rng = np.random.default_rng(0)
  features = rng.standard_normal((7, 3)).astype(np.float32)
  labels = np.array([0, 1, 2, 3, 1, 2, 0], np.int32)
  tables = rng.standard_normal((2, 4, 3)).astype(np.float32)
  present = np.array([True, False, True, True])
  expected = [_contrast(features, labels, t, present, 0.5) for t in tables]
  tables[:, 1] = np.nan
  features = tf.constant(features)
  with tf.GradientTape() as tape:
    tape.watch(features)
    found = fedpcl.contrast(features, labels, tables, present, 0.5)
  golden.assert_close(found, expected)
  gradient = tape.gradient(found, features).numpy()
  assert np.isfinite(gradient).all()
  np.testing.assert_array_equal(np.any(gradient != 0, axis=1), present[labels])
  # There is no class at all; features and centers are zero.
  nothing = np.zeros([4], bool)
  for centers, there in ((tables, nothing), (np.zeros_like(tables), present)):
    features = tf.zeros([7, 3])
    with tf.GradientTape() as tape:
      tape.watch(features)
      found = fedpcl.contrast(features, labels, centers, there, 0.07)
    golden.assert_close(found, [np.log(3) * 5 / 7 * there.any()] * 2)
    assert np.isfinite(tape.gradient(found, features)).all()


def test_the_server_by_hand():
  finalizer = fedpcl.build_finalizer(3, 2, 3)
  collected = prototypes.ClassPrototypes(
    np.array(
      [
        [[1, 2], [np.nan, 9], [0, 0]],
        [[9, 9], [9, 9], [9, 9]],  # Sent nothing.
        [[5, 6], [7, 8], [0, 0]],
      ],
      np.float32,
    ),
    np.array([[1, 0, 0], [0, 0, 0], [3, 3, 0]], np.float32),
  )
  before = fedpcl.FedPCLModel(
    prototypes=np.array([[0, 0], [0, 0], [4, 4]], np.float32),
    present=np.array([False, False, True]),
    client_prototypes=np.full([3, 3, 2], 7, np.float32),
    participated=np.ones([3], bool),
  )
  model = finalizer.next(finalizer.initialize(), before, collected).result
  golden.assert_close(model.prototypes, [[4, 5], [7, 8], [4, 4]])
  assert model.present.all()
  golden.assert_close(
    model.client_prototypes,
    [
      [[1, 2], [7, 8], [4, 4]],  # Without classes 1 and 2.
      [[5, 6], [7, 8], [4, 4]],
      np.zeros([3, 2]),
    ],
  )
  np.testing.assert_array_equal(model.participated, [True, True, False])


def test_rounds_by_hand(process):
  examples = clients.random_examples(3, 10)
  for i in range(3):
    examples[i]['y'] %= 3 + i  # Classes are absent, and not the same ones.
  server, states, measurements = clients.run(
    process, _MODELS, examples, rounds=1
  )
  # There is nothing to contrast with yet.
  work = measurements['client_work']
  assert work['contrastive_global'] == work['contrastive_local'] == 0
  assert work['loss'] == work['cross_entropy'] > 0
  # Prototypes are of the trained models, in inference mode.
  features = [
    _MODELS[i % 2].to_keras(state.weights)[0](data['x']).numpy()
    for i, (state, data) in enumerate(zip(states, examples))
  ]
  sent = np.zeros([3, 10, 16])
  held = np.zeros([3, 10], bool)
  for i, data in enumerate(examples):
    for c in np.unique(data['y']):
      sent[i, c] = features[i][data['y'] == c].mean(axis=0)
      held[i, c] = True
  present = held.any(axis=0)
  known = sent.sum(axis=0) / np.maximum(held.sum(axis=0), 1)[:, np.newaxis]
  golden.assert_close(server.model.prototypes, known)
  np.testing.assert_array_equal(server.model.present, present)
  # The next round's only step is made with the weights that it begins with.
  measurements = process.next(server, states, examples).measurements
  work = measurements['client_work']
  tables = np.where(held[:, :, np.newaxis], sent, known)
  to_global, to_clients = (
    np.mean(
      [
        [
          _contrast(features[i], data['y'], table, present, 0.07)
          for table in against
        ]
        for i, data in enumerate(examples)
      ]
    )
    for against in ([known], tables)
  )
  golden.assert_close(work['contrastive_global'], to_global, 1e-4)
  golden.assert_close(work['contrastive_local'], to_clients, 1e-4)
  golden.assert_close(
    work['loss'], work['cross_entropy'] + to_global + to_clients, 1e-4
  )


def test_without_cross_entropy_heads_stay():
  process = fedpcl.build_fedpcl(
    _MODELS[:1],
    fedpcl.FedPCLConfig(cross_entropy_weight=0.0),
    input_spec=clients.SPEC,
    max_participants=3,
  )
  examples = clients.random_examples()  # Batches of 10, 10 and 3.
  first = _MODELS[0].initial_weights(0)
  server, states, _ = clients.run(process, _MODELS[:1], examples, rounds=1)
  for state in states:
    np.testing.assert_array_equal(state.weights, first)
    assert state.counts.sum() == 23
  losses = []
  for _ in range(5):
    output = process.next(server, states, examples)
    server, states = output.state, output.result
    work = output.measurements['client_work']
    golden.assert_close(
      work['loss'], work['contrastive_global'] + work['contrastive_local']
    )
    losses.append(work['loss'])
  assert losses[-1] < losses[0]
  head = 16 * 10 + 10
  for state in states:
    np.testing.assert_array_equal(state.weights[-head:], first[-head:])
    assert (state.weights[:-head] != first[:-head]).any()


def test_clients_that_diverge_are_left_out(process):
  examples = clients.random_examples()
  examples[0]['x'] = examples[0]['x'] * np.float32(1e30)
  server, states, measurements = clients.run(process, _MODELS, examples)
  assert measurements['client_work']['clients_nonfinite'] == 1
  np.testing.assert_array_equal(
    server.model.participated, [True, True, False, False]
  )
  assert not server.model.client_prototypes[2:].any()
  assert all(np.isfinite(v).all() for v in tf.nest.flatten(server.model))
  again, _, _ = clients.run(process, _MODELS, examples)
  for found, same in zip(
    tf.nest.flatten(server.model), tf.nest.flatten(again.model)
  ):
    np.testing.assert_array_equal(found, same)
  evaluate = client_evaluation.build_evaluation(
    _MODELS, clients.SPEC, process.server_model_type
  )
  result = evaluate(server.model, states, examples)
  assert list(result[0]) == ['num_examples', 'prototype', 'head']
  # Global prototypes, which there are; four clients' tables, which there are.
  assert metrics.communication_columns(process) == {
    'bytes_down_per_client': (10 * 16 * 4 + 10) + (4 * 10 * 16 * 4 + 4) + 4,
    'bytes_up_per_client': 10 * 16 * 4 + 10 * 4,
  }


def test_more_clients_than_built_for_are_named(process):
  with pytest.raises(
    tf.errors.InvalidArgumentError,
    match='More clients took part .*max_participants=4',
  ):
    clients.run(process, _MODELS, clients.random_examples(5, 10), rounds=1)


@pytest.mark.parametrize(
  'options, message',
  [
    (dict(temperature=0.0), 'temperature > 0, found 0.0'),
    (dict(lambda_=-1.0), 'lambda_ >= 0, found -1.0'),
    (
      dict(cross_entropy_weight=float('inf')),
      'cross_entropy_weight >= 0, found inf',
    ),
    (dict(weighting='all'), "weighting 'all'; known: clients, examples"),
  ],
)
def test_bad_values_are_named(options, message):
  with pytest.raises(ValueError, match=message):
    fedpcl.FedPCLConfig(**options)


def test_there_are_participants():
  with pytest.raises(ValueError, match='max_participants >= 1, found 0'):
    fedpcl.build_fedpcl(_MODELS, input_spec=clients.SPEC, max_participants=0)
