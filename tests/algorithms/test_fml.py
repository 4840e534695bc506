"""FML: own and shared models teach each other; shared ones are averaged."""

import functools

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tests import golden
from tests.algorithms import clients
from tff_fedsa import composer
from tff_fedsa.algorithms import fml
from tff_fedsa.algorithms import local
from tff_fedsa.client import client_state
from tff_fedsa.client import local_optimizer
from tff_fedsa.client import local_training
from tff_fedsa.data import input_spec
from tff_fedsa.runs import metrics

pytestmark = pytest.mark.usefixtures('in_process_context')

_MODELS = [clients.tiny_mlp(), clients.tiny_mlp('tanh', head_units=[8])]
_build = functools.partial(fml.build_fml, input_spec=clients.SPEC)


@pytest.fixture(scope='module')
def process():
  return _build(_MODELS)


def _initial(process):
  return process.initialize().model.shared_weights


@pytest.mark.parametrize(
  'reference', [False, pytest.param(True, marks=pytest.mark.slow)]
)
def test_a_step_by_hand(reference):
  alpha, beta, rate, norm = 0.7, 0.4, 0.1, 0.5
  own = _MODELS[1]
  process = _build(
    [own],
    fml.FMLConfig(
      alpha=alpha, beta=beta, clip_norm=norm, reference_losses=reference
    ),
    shared_model=_MODELS[0],
    optimizer=clients.sgd(rate),
    local=clients.ONE_STEP,
    model_seed=3,
  )
  (examples,) = clients.random_examples(1, 10)
  server, (state,), measurements = clients.run(
    process, [own], [examples], rounds=1
  )
  weights = [own.initial_weights(0), _MODELS[0].initial_weights(3)]
  np.testing.assert_array_equal(_initial(process), weights[1])
  # The same with Keras, one objective and one model at a time.
  keras = [m.to_keras(w) for m, w in zip((own, _MODELS[0]), weights)]
  variables = [e.trainable_weights + h.trainable_weights for e, h in keras]
  with tf.GradientTape(persistent=True) as tape:
    logits, shared_logits = (h(e(examples['x'])) for e, h in keras)
    crosses = [
      tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)(
        examples['y'], scores
      )
      for scores in (logits, shared_logits)
    ]
    p, q = tf.nn.softmax(logits), tf.nn.softmax(shared_logits)
    divergence = tf.keras.losses.KLDivergence()
    scale = 10 if reference else 1
    terms = [divergence(q, p) / scale, divergence(p, q) / scale]
    totals = [
      weight * cross + (1 - weight) * term
      for weight, cross, term in zip((alpha, beta), crosses, terms)
    ]
    both = totals[0] + totals[1]
  for i, found in enumerate((state.weights, server.model.shared_weights)):
    gradients = tape.gradient(both if reference else totals[i], variables[i])
    length = float(tf.linalg.global_norm(gradients))
    assert length > norm
    moved = [
      v.numpy() - rate * g.numpy() * norm / length
      for v, g in zip(variables[i], gradients)
    ]
    expected = np.concatenate([v.ravel() for v in moved])
    golden.assert_close(found - weights[i], expected - weights[i], 1e-4)
  found = measurements['client_work']
  golden.assert_close(found['loss'], totals[0])
  golden.assert_close(found['shared'], totals[1])
  golden.assert_close(found['cross_entropy'], crosses[0])
  golden.assert_close(found['distillation'], terms[0], 1e-4)


@pytest.mark.slow
def test_labels_alone_are_local_training():
  optimizer = local_optimizer.LocalOptimizer(
    tff.learning.optimizers.build_sgdm(0.05, 0.9), state='keep'
  )
  config = local_training.LocalTrainingConfig(num_epochs=2)
  options = {'optimizer': optimizer, 'local': config}
  process = _build(
    _MODELS,
    fml.FMLConfig(alpha=1.0, beta=1.0, clip_norm=0.0),
    model_seed=5,
    **options,
  )
  examples = clients.random_examples(2)
  states = [
    client_state.new_client_state(
      model, i, model.initial_weights(i), client_id=i, optimizer=optimizer
    )
    for i, model in enumerate(_MODELS)
  ]
  alone = local.build_local(_MODELS, input_spec=clients.SPEC, **options)
  server, expected_server = process.initialize(), alone.initialize()
  expected = found = states
  for _ in range(2):
    output = process.next(server, found, examples)
    server, found = output.state, output.result
    output = alone.next(expected_server, expected, examples)
    expected_server, expected = output.state, output.result
  for a, b in zip(found, expected):
    golden.assert_close(a.weights, b.weights)
    golden.assert_close(a.optimizer, b.optimizer)
    golden.assert_close(a.prototypes, b.prototypes)
    assert a.optimizer.any() and a.private.shape == (0,)
  # The shared model, of the smaller architecture: FedAvg's.
  started = [
    state._replace(
      architecture=np.int32(0),
      weights=_initial(process),
      optimizer=optimizer.initial_vector(_MODELS[0].trainable_specs),
    )
    for state in states
  ]
  alone_output = alone.next(alone.initialize(), started, examples)
  output = process.next(process.initialize(), states, examples)
  golden.assert_close(
    output.state.model.shared_weights,
    np.mean([state.weights for state in alone_output.result], axis=0),
  )


def test_shared_models_are_averaged_by_examples(process):
  examples = clients.random_examples(2, 23) + clients.random_examples(1, 9, 5)
  server, states, _ = clients.run(process, _MODELS, examples, rounds=1)
  new_state = client_state.build_initial_state_fn(_MODELS)
  sent, own = [], []
  for i, client_examples in enumerate(examples):
    output = process.next(
      process.initialize(), [new_state(i)], [client_examples]
    )
    sent.append(output.state.model.shared_weights)
    own.append(output.result[0].weights)
  golden.assert_close(
    server.model.shared_weights, np.average(sent, axis=0, weights=[23, 23, 9])
  )
  for state, expected in zip(states, own):
    golden.assert_close(state.weights, expected)
  # Who is not there in a round does not count, and keeps its state.
  output = process.next(server, states[1:2], examples[1:2])
  assert output.measurements['client_work']['clients_trained'] == 1
  assert np.any(output.state.model.shared_weights != server.model[0])


def test_clients_that_diverge_do_not_count(process):
  examples = clients.random_examples()
  examples[0]['x'] = examples[0]['x'] * np.float32(1e30)
  server, states, measurements = clients.run(
    process, _MODELS, examples, rounds=1
  )
  assert measurements['client_work']['clients_nonfinite'] == 1
  assert np.isfinite(measurements['client_work']['shared'])
  new_state = client_state.build_initial_state_fn(_MODELS)
  np.testing.assert_array_equal(states[0].weights, new_state(0).weights)
  healthy = process.next(
    process.initialize(), [new_state(1), new_state(2)], examples[1:]
  )
  golden.assert_close(
    server.model.shared_weights, healthy.state.model.shared_weights
  )
  # Nobody is left: the shared model stays.
  server, _, _ = clients.run(process, _MODELS, examples[:1], rounds=1)
  np.testing.assert_array_equal(server.model.shared_weights, _initial(process))


def test_shared_models_by_name_and_what_they_take(process):
  assert isinstance(process, composer.StatefulProcess)
  # The smallest of the clients' by default.
  assert _initial(process).shape == (_MODELS[0].num_weights,)
  # A dense layer of 64, one of 16, the head.
  size = 65 * 64 + 65 * 16 + 17 * 10
  named = _build(_MODELS, fml.FMLConfig(shared_model='digits_mlp'))
  assert _initial(named).shape == (size,)
  assert metrics.communication_columns(named) == {
    'bytes_down_per_client': size * 4 + 4,
    'bytes_up_per_client': size * 4 + 4,
  }


@pytest.mark.slow
def test_statistics_are_averaged_too_and_clients_may_count_the_same():
  process = _build(
    _MODELS, fml.FMLConfig(shared_model='digits_cnn_bn', weighting='clients')
  )
  examples = clients.random_examples(2, 23) + clients.random_examples(1, 9, 5)
  server, _, _ = clients.run(process, _MODELS, examples, rounds=1)
  new_state = client_state.build_initial_state_fn(_MODELS)
  sent = [
    process.next(
      process.initialize(), [new_state(i)], [client_examples]
    ).state.model.shared_weights
    for i, client_examples in enumerate(examples)
  ]
  golden.assert_close(server.model.shared_weights, np.mean(sent, axis=0))
  # Of BatchNorm, at the end of the vector.
  statistics = slice(-2 * (16 + 32), None)
  assert np.all(
    server.model.shared_weights[statistics] != _initial(process)[statistics]
  )


@pytest.mark.parametrize(
  'options, message',
  [
    ({'alpha': 1.5}, r'alpha in \[0, 1\], found 1.5'),
    ({'beta': -0.5}, r'beta in \[0, 1\], found -0.5'),
    ({'clip_norm': -1.0}, 'clip_norm >= 0, found -1.0'),
    ({'weighting': 'equal'}, "weighting 'equal'; known: clients, examples"),
    ({'shared_model': 'resnet1'}, "architecture 'resnet1'"),
    ({'shared_model': 'digits3'}, 'one architecture, found .digits3., which'),
  ],
)
def test_wrong_settings_are_named(options, message):
  with pytest.raises(ValueError, match=message):
    _build(_MODELS[:1], fml.FMLConfig(**options))


def test_shared_models_that_do_not_fit_are_named():
  from tff_fedsa.models import architectures

  other = architectures.build('digits_mlp', (8, 8, 1), 10, 8)
  with pytest.raises(ValueError, match="clients' feature_dim = 16, found 8 in"):
    _build(_MODELS[:1], shared_model=other)
  with pytest.raises(ValueError, match='takes inputs of shape'):
    fml.build_fml(_MODELS, input_spec=input_spec.InputSpec((9, 8, 1)))
