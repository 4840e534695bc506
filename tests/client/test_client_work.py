"""A client's round as one computation: what it keeps, sends and measures."""

import collections
import types

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tests.algorithms import clients
from tff_fedsa.client import client_state
from tff_fedsa.client import client_work
from tff_fedsa.client import objective
from tff_fedsa.server import server_model

pytestmark = pytest.mark.usefixtures('in_process_context')

_RATE = 0.5
_HEAD_SIZE = 16 * 10 + 10


@pytest.fixture(scope='module')
def models():
  return [clients.tiny_mlp(), clients.tiny_mlp('tanh')]


@pytest.fixture(scope='module')
def head():
  rng = np.random.default_rng(2)
  return (
    rng.standard_normal([16, 10]).astype(np.float32),
    rng.standard_normal([10]).astype(np.float32),
  )


@pytest.fixture(scope='module')
def work(models):
  """Clients begin with the server's head and send their prototypes."""
  return client_work.build_client_work(
    models,
    objective.cross_entropy_objective(),
    server_model.head_model_type(models[0].head_specs),
    update_fn=client_work.class_prototypes_update_fn('examples'),
    receive_fn=client_work.receive_head,
    measure_fn=lambda result: {
      'classes': tf.math.count_nonzero(result.counts, dtype=tf.float32),
      'unknown': tf.constant(np.nan),
    },
    optimizer=clients.sgd(_RATE),
    input_spec=clients.SPEC,
    config=clients.ONE_STEP,
  )


def _new_state(models, client_id):
  return client_state.build_initial_state_fn(models)(client_id)


@pytest.mark.parametrize('architecture', [0, 1])
def test_a_step_by_hand(work, models, head, architecture):
  model = models[architecture]
  state = _new_state(models, architecture)
  assert state.architecture == architecture
  (examples,) = clients.random_examples(1, 10)
  output = work(0, server_model.HeadModel(head), state, examples)

  extractor = model.to_keras(state.weights).feature_extractor
  features = extractor(examples['x']).numpy()
  logits = features @ head[0] + head[1]
  exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
  probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
  members = np.eye(10)[examples['y']]
  gradient = (probabilities - members) / 10
  expected = [
    head[0] - _RATE * features.T @ gradient,
    head[1] - _RATE * gradient.sum(axis=0),
  ]
  after = output.client_state
  np.testing.assert_allclose(
    after.weights[-_HEAD_SIZE:],
    np.concatenate([part.ravel() for part in expected]),
    rtol=1e-4,
    atol=1e-5,
  )
  # The extractor moves as well.
  assert np.any(after.weights[:-_HEAD_SIZE] != state.weights[:-_HEAD_SIZE])

  counts = members.sum(axis=0)
  means = members.T @ features / np.maximum(counts, 1)[:, None]
  np.testing.assert_array_equal(after.counts, counts)
  np.testing.assert_allclose(after.prototypes, means, rtol=1e-4, atol=1e-5)
  np.testing.assert_array_equal(output.update.vectors, after.prototypes)
  np.testing.assert_array_equal(output.update.weights, counts)
  assert output.num_examples == 10.0

  loss = -np.sum(members * np.log(probabilities))
  metrics = output.metrics
  assert metrics.sums['loss'] == pytest.approx(loss, rel=1e-4)
  assert metrics.sums['cross_entropy'] == metrics.sums['loss']
  assert metrics.sums['classes'] == np.count_nonzero(counts)
  # What is not finite is not averaged.
  assert metrics.sums['unknown'] == 0.0
  assert dict(metrics.weights) == {
    'loss': 10.0,
    'cross_entropy': 10.0,
    'classes': 1.0,
    'unknown': 0.0,
  }
  assert dict(metrics.totals) == {
    'clients_nonfinite': 0,
    'clients_trained': 1,
    'examples': 10,
  }
  # What identifies the client stays.
  assert after.architecture == architecture
  np.testing.assert_array_equal(after.seed, state.seed)


def test_a_client_that_diverges_keeps_its_state_and_is_counted(
  work, models, head
):
  state = _new_state(models, 0)._replace(
    prototypes=np.full([10, 16], 7.0, np.float32),
    counts=np.full([10], 2.0, np.float32),
  )
  (examples,) = clients.random_examples(1, 10)
  # Its features overflow; those of the others are small.
  examples['x'][3] = 3e38
  output = work(0, server_model.HeadModel(head), state, examples)
  for name, kept, before in zip(
    state._fields, output.client_state, state, strict=True
  ):
    np.testing.assert_array_equal(kept, before, err_msg=name)
  assert not output.update.vectors.any() and not output.update.weights.any()
  assert output.num_examples == 0.0
  metrics = output.metrics
  assert set(metrics.sums.values()) == set(metrics.weights.values()) == {0.0}
  assert metrics.totals['clients_nonfinite'] == 1
  assert metrics.totals['clients_trained'] == 0


def test_a_client_without_a_batch_sends_nothing_and_is_not_broken(
  work, models, head
):
  (examples,) = clients.random_examples(1, 9)
  output = work(
    0, server_model.HeadModel(head), _new_state(models, 0), examples
  )
  assert not output.update.weights.any()
  assert output.num_examples == 0.0
  assert dict(output.metrics.totals) == {
    'clients_nonfinite': 0,
    'clients_trained': 0,
    'examples': 0,
  }


def test_the_type_says_what_leaves_a_client(work):
  result = work.type_signature.result
  assert str(result.update) == '<vectors=float32[10,16],weights=float32[10]>'
  assert str(work.type_signature.parameter.examples) == (
    '<x=float32[?,8,8,1],y=int32[?]>'
  )
  state_type = client_state.client_state_type(10, 16)
  assert work.type_signature.parameter.client_state == state_type
  assert result.client_state.is_equivalent_to(state_type)
  assert isinstance(work, tff.Computation)


def test_prototypes_count_as_they_are_weighted():
  result = types.SimpleNamespace(
    prototypes=tf.ones([3, 2]), counts=tf.constant([0.0, 1.0, 7.0])
  )
  for weighting, weights in (('clients', [0, 1, 1]), ('examples', [0, 1, 7])):
    update_fn = client_work.class_prototypes_update_fn(weighting)
    update = update_fn(None, result)
    np.testing.assert_array_equal(update.weights, weights)
    assert update.vectors is result.prototypes
  with pytest.raises(ValueError, match="weighting 'none'; known: clients"):
    client_work.class_prototypes_update_fn('none')


def _model(name='one', num_classes=10, feature_dim=16, head_shape=(16, 10)):
  return types.SimpleNamespace(
    name=name,
    num_classes=num_classes,
    feature_dim=feature_dim,
    input_shape=(8, 8, 1),
    head_specs=[tf.TensorSpec(head_shape)],
  )


@pytest.mark.parametrize(
  'models, message',
  [
    ([], 'at least one model, found none'),
    (
      [_model(), _model('two', num_classes=3)],
      r"the same num_classes, found \[10, 3\] for \['one', 'two'\]",
    ),
    (
      [_model(), _model('two', feature_dim=8)],
      r'the same feature_dim, found \[16, 8\] .*adaptive_average_pooling',
    ),
  ],
)
def test_models_that_disagree_are_named(models, message):
  with pytest.raises(ValueError, match=message):
    client_work.check_models(models, clients.SPEC)


def test_images_must_fit_every_model():
  assert client_work.check_models([_model()] * 2, clients.SPEC) == (10, 16)
  wide = _model('wide')
  wide.input_shape = (9, 8, 1)
  with pytest.raises(
    ValueError,
    match=r"'wide' takes inputs of shape \(9, 8, 1\), but the data gives \(8,",
  ):
    client_work.check_models([_model(), wide], clients.SPEC)


def test_heads_that_differ_are_named():
  first = _model()
  assert client_work.check_heads([first, _model('two')]) == first.head_specs
  with pytest.raises(
    ValueError, match=r"\[\(16, 10\)\] in 'one' and \[\(10, 16\)\] in 'two'"
  ):
    client_work.check_heads([first, _model('two', head_shape=(10, 16))])


def test_work_is_wrapped_on_both_sides(work, models, head):
  def fn(inner, arguments):
    labels = tf.zeros_like(arguments.examples['y'])
    output = inner(
      arguments._replace(
        examples=collections.OrderedDict(arguments.examples, y=labels)
      )
    )
    return output._replace(update=output.update.weights)

  wrapped = client_work.wrap(work, fn)
  assert wrapped.type_signature.parameter == work.type_signature.parameter
  (examples,) = clients.random_examples(1, 10)
  received = server_model.HeadModel(head)
  state = _new_state(models, 0)
  found = wrapped(0, received, state, examples)
  expected = work(0, received, state, {**examples, 'y': 0 * examples['y']})
  np.testing.assert_array_equal(found.update, expected.update.weights)
  for name in ('weights', 'prototypes', 'counts'):
    np.testing.assert_array_equal(
      getattr(found.client_state, name), getattr(expected.client_state, name)
    )
