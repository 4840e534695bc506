"""FedKD: mutual distillation by hand; what is exchanged is of low rank."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from tests import golden
from tests.algorithms import clients
from tff_fedsa.algorithms import fedkd
from tff_fedsa.client import client_state

pytestmark = pytest.mark.usefixtures('in_process_context')

_MODELS = [clients.tiny_mlp(), clients.tiny_mlp('tanh', head_units=[8])]
_config = fedkd.FedKDConfig
_build = functools.partial(fedkd.build_fedkd, input_spec=clients.SPEC)
# Of the shared model, the first of these.
_KERNELS = [(64, 32), (32, 16), (16, 10)]
_SIZE = 65 * 32 + 33 * 16 + 17 * 10


@pytest.fixture(scope='module')
def process():
  return _build(_MODELS)


@pytest.fixture(scope='module')
def lossless():
  """Which compresses nothing."""
  return _build(_MODELS[:1], _config(energy_start=1.0, energy_end=1.0))


def _initial(process):
  return process.initialize().model.shared_weights


def _truncated(vector, energy, base=0.0):
  """Returns base + the truncated rest, and how many numbers that takes."""
  vector = np.asarray(vector, np.float64) - base
  parts, start, count = [], 0, 0
  for rows, columns in _KERNELS:
    kernel = vector[start : start + rows * columns].reshape(rows, columns)
    left, values, right = np.linalg.svd(kernel, full_matrices=False)
    shares = np.cumsum(values**2) / np.sum(values**2)
    # Float32 decides the same.
    assert np.min(np.abs(shares - energy)) > 1e-5
    rank = int(np.sum(shares <= energy)) + 1
    parts.append(((left[:, :rank] * values[:rank]) @ right[:rank]).ravel())
    count += min(1 + rank * (1 + rows + columns), rows * columns) + columns
    start += rows * columns
    parts.append(vector[start : start + columns])
    start += columns
  return base + np.concatenate(parts), count


def test_the_energy_grows_linearly_and_stays():
  schedule = _config(energy_start=0.5, energy_end=0.75, energy_rounds=10)
  found = [float(schedule.energy_at(tf.constant(t))) for t in (0, 4, 10, 25)]
  np.testing.assert_allclose(found, [0.5, 0.6, 0.75, 0.75], rtol=1e-6)


@pytest.mark.parametrize(
  'reference', [False, pytest.param(True, marks=pytest.mark.slow)]
)
def test_a_step_by_hand(reference):
  rate, shared_rate = 0.1, 0.025
  own = _MODELS[1]
  process = _build(
    [own],
    _config(
      shared_learning_rate=shared_rate,
      energy_start=1.0,
      energy_end=1.0,
      clip_norm=0.0,
      reference_losses=reference,
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
  keras = [m.to_keras(w) for m, w in zip((own, _MODELS[0]), weights)]
  variables = [e.trainable_weights + h.trainable_weights for e, h in keras]
  # All clients begin with the same W_h, U(-1/sqrt(D), 1/sqrt(D)).
  transformation = tf.random.stateless_uniform([16, 16], [3, 0], -0.25, 0.25)
  with tf.GradientTape(persistent=True) as tape:
    tape.watch(transformation)
    features, shared_features = (e(examples['x']) for e, _ in keras)
    logits, shared_logits = keras[0][1](features), keras[1][1](shared_features)
    cross, shared_cross = (
      tf.reduce_mean(
        tf.keras.losses.sparse_categorical_crossentropy(
          examples['y'], scores, from_logits=True
        )
      )
      for scores in (logits, shared_logits)
    )
    p, q = tf.nn.softmax(logits), tf.nn.softmax(shared_logits)
    divergence = tf.keras.losses.KLDivergence()
    scale = 10 if reference else 1
    hidden = tf.reduce_mean((features - shared_features @ transformation) ** 2)
    total = cross + shared_cross
    own_loss = cross + (divergence(q, p) / scale + hidden) / total
    shared_loss = shared_cross + (divergence(p, q) / scale + hidden) / total
    both = own_loss + shared_loss
  # Of its own objective's partial derivative; one objective's gradient
  # with respect to one model.
  sources = (both, both) if reference else (own_loss, shared_loss)
  found = (state.weights, server.model.shared_weights)
  for i, step in enumerate((rate, shared_rate)):
    gradients = tape.gradient(sources[i], variables[i])
    moved = np.concatenate([-step * np.ravel(g) for g in gradients])
    golden.assert_close(found[i] - weights[i], moved, 1e-4)
  moved = -rate * tape.gradient(both, transformation)
  golden.assert_close(
    state.private - np.ravel(transformation), np.ravel(moved), 1e-4
  )
  found = measurements['client_work']
  golden.assert_close(found['loss'], own_loss)
  golden.assert_close(found['shared'], shared_loss)
  golden.assert_close(found['hidden'], hidden)


@pytest.mark.slow
def test_updates_are_compressed_on_both_ways(process, lossless):
  examples = clients.random_examples(1, 23) + clients.random_examples(1, 9, 5)
  initial = _initial(process)
  new_state = client_state.build_initial_state_fn(_MODELS)
  # Two clients of the first architecture, the lossless one's.
  states = [new_state(0), new_state(2)]
  # What each would send.
  sent, counts = [], []
  for state, client_examples in zip(states, examples):
    output = lossless.next(lossless.initialize(), [state], [client_examples])
    update, count = _truncated(
      output.state.model.shared_weights - initial, 0.95
    )
    sent.append(update)
    counts.append(count)
  mean = np.average(sent, axis=0, weights=[23, 9])
  expected, count_down = _truncated(initial + mean, 0.95, initial)
  output = process.next(process.initialize(), states, examples)
  server, states, measurements = (
    output.state,
    output.result,
    output.measurements,
  )
  golden.assert_close(
    server.model.shared_weights - initial, expected - initial, 1e-4
  )
  assert server.model.num_floats == count_down < _SIZE
  assert server.model.energy == np.float32(0.9503)
  work, finalizer = measurements['client_work'], measurements['finalizer']
  golden.assert_close(work['bytes_up_per_client'], 4 * np.mean(counts) + 4)
  golden.assert_close(
    work['compression_up'],
    np.mean([(4 * _SIZE + 4) / (4 * count + 4) for count in counts]),
  )
  # The first weights are not compressed.
  assert finalizer['bytes_down_per_client'] == 4 * _SIZE + 8
  assert finalizer['compression_down'] == 1
  output = process.next(server, states, examples)
  finalizer = output.measurements['finalizer']
  assert finalizer['bytes_down_per_client'] == 4 * count_down + 8
  golden.assert_close(
    finalizer['compression_down'], (4 * _SIZE + 8) / (4 * count_down + 8)
  )


@pytest.mark.slow
def test_compression_of_the_reference_is_of_weights(lossless):
  process = _build(_MODELS, _config(reference_compression=True))
  examples = clients.random_examples(1)
  plain, _, _ = clients.run(lossless, _MODELS, examples, rounds=1)
  sent, _ = _truncated(plain.model.shared_weights, 0.95)
  expected, count = _truncated(sent, 0.95)
  server, states, _ = clients.run(process, _MODELS, examples, rounds=1)
  golden.assert_close(server.model.shared_weights, expected, 1e-4)
  assert server.model.num_floats == count
  # Without anybody's update, weights stay and are sent again.
  examples[0]['x'] = examples[0]['x'] * np.float32(1e30)
  output = process.next(server, states, examples)
  np.testing.assert_array_equal(
    output.state.model.shared_weights, server.model.shared_weights
  )
  assert output.state.model.num_floats == count


def test_clients_that_diverge_do_not_count(process):
  examples = clients.random_examples()
  examples[1]['x'] = examples[1]['x'] * np.float32(1e30)
  server, states, measurements = clients.run(
    process, _MODELS, examples, rounds=1
  )
  assert measurements['client_work']['clients_nonfinite'] == 1
  for name in ('hidden', 'bytes_up_per_client', 'compression_up'):
    assert 0 < measurements['client_work'][name] < np.inf, name
  new_state = client_state.build_initial_state_fn(_MODELS)
  np.testing.assert_array_equal(states[1].weights, new_state(1).weights)
  assert [state.private.size for state in states] == [256, 0, 256]
  healthy = process.next(
    process.initialize(), [new_state(0), new_state(2)], examples[::2]
  )
  golden.assert_close(
    server.model.shared_weights, healthy.state.model.shared_weights
  )
  # Nobody is left: the shared model stays, and nothing is to be sent.
  server, _, _ = clients.run(process, _MODELS, examples[1:2], rounds=1)
  assert server.model.num_floats == 0
  np.testing.assert_array_equal(server.model.shared_weights, _initial(process))


def test_the_transformation_stays_with_its_client(process):
  examples = clients.random_examples()
  server, states, _ = clients.run(process, _MODELS, examples, rounds=1)
  private = [state.private for state in states]
  assert len({tuple(vector) for vector in private}) == 3
  # It goes on from there, also when others are not there.
  output = process.next(server, states[2:], examples[2:])
  moved = output.result[0].private - private[2]
  assert 0 < np.max(np.abs(moved)) < np.max(np.abs(private[2]))


@pytest.mark.parametrize(
  'options, message',
  [
    ({'energy_start': 0.0}, r'energy_start in \(0, 1\], found 0.0'),
    ({'energy_end': 1.5}, r'energy_end in \(0, 1\], found 1.5'),
    ({'energy_rounds': 0}, 'energy_rounds >= 1, found 0'),
    ({'clip_norm': -1.0}, 'clip_norm >= 0, found -1.0'),
    ({'weighting': 'equal'}, "weighting 'equal'; known: clients, examples"),
    ({'shared_model': 'resnet1'}, "architecture 'resnet1'"),
  ],
)
def test_wrong_settings_are_named(options, message):
  with pytest.raises(ValueError, match=message):
    _build(_MODELS[:1], _config(**options))
