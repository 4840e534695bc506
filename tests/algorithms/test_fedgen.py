"""FedGen: a generator that the server trains, features that clients draw."""

import numpy as np
import pytest
import tensorflow as tf

from tests import golden
from tests.algorithms import clients
from tff_fedsa.algorithms import fedgen
from tff_fedsa.client import client_state
from tff_fedsa.evaluation import client_evaluation
from tff_fedsa.models import generator as generator_lib
from tff_fedsa.runs import metrics

pytestmark = pytest.mark.usefixtures('in_process_context')

_MODELS = [clients.tiny_mlp(), clients.tiny_mlp('tanh')]
_HEAD = 16 * 10 + 10  # the last weights of the flat vector: there is no state
_SMALL = dict(noise_dim=6, hidden_dim=12)
_CONFIG = fedgen.FedGenConfig(**_SMALL)


@pytest.fixture(scope='module')
def process():
  return fedgen.build_fedgen(_MODELS, _CONFIG, input_spec=clients.SPEC)


def _generator(num_classes=10, feature_dim=16, seed=0):
  """A generator whose normalization is not that of the beginning."""
  rng = np.random.default_rng(seed)
  drawn = generator_lib.initial_generator(
    num_classes, feature_dim, **_SMALL, seed=seed
  )
  return drawn._replace(
    scale=rng.uniform(0.5, 2, 12).astype(np.float32),
    offset=rng.uniform(-1, 1, 12).astype(np.float32),
  )


def _features(generator, noise, labels):
  """Returns hidden units and features, in NumPy."""
  inputs = np.concatenate([noise, np.eye(10)[labels]], axis=1)
  hidden = inputs @ generator.hidden_kernel
  hidden = (hidden - hidden.mean(axis=0)) / np.sqrt(hidden.var(axis=0) + 1e-5)
  hidden = np.maximum(hidden * generator.scale + generator.offset, 0)
  return hidden, hidden @ generator.output_kernel + generator.output_bias


def _softmax(logits):
  exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
  return exponentials / exponentials.sum(axis=1, keepdims=True)


def _fold_in(seed, *data):
  for number in data:
    seed = tf.random.experimental.stateless_fold_in(seed, number)
  return seed


def test_ensembles_by_hand():
  counts = tf.constant([[3.0, 1.0, 0.0], [0.0, 4.0, 0.0], [0.0, 0.0, 0.0]])
  golden.assert_close(
    fedgen.ensemble_weights(counts, 'examples'),
    [[0.5] * 3, [0.5] * 3, [0.0] * 3],
  )
  # Nobody of the round has class 2.
  weights = fedgen.ensemble_weights(counts, 'labels')
  golden.assert_close(weights, [[1, 0.2, 0.5], [0, 0.8, 0.5], [0, 0, 0]])
  nobody = fedgen.ensemble_weights(tf.zeros([2, 3]), 'labels')
  assert not np.any(nobody)
  heads = (tf.constant([[[1.0]], [[10.0]], [[100.0]]]),)
  logits = tf.function(fedgen.ensemble_logits, autograph=False)(
    lambda head, features: features @ head[0],
    heads,
    weights,
    tf.constant([[1.0], [2.0]]),
    tf.constant([0, 1]),
  )
  golden.assert_close(logits, [[1.0], [0.2 * 2 + 0.8 * 20]])


def test_a_step_of_the_server_by_hand():
  rng = np.random.default_rng(0)
  head_fn = _MODELS[0].build_head()
  kernels = rng.standard_normal((2, 16, 10)).astype(np.float32)
  biases = rng.standard_normal((2, 10)).astype(np.float32)
  counts = rng.integers(1, 9, (2, 10)).astype(np.float32)
  label_counts = counts.sum(axis=0)
  generator = _generator()
  config = fedgen.FedGenConfig(
    **_SMALL, server_epochs=1, generator_learning_rate=0.1
  )
  trained, loss = tf.function(fedgen.train_generator, autograph=False)(
    generator,
    head_fn,
    fedgen.FedGenUpdate((kernels, biases), counts),
    label_counts,
    config,
    10,
    tf.constant([3, 4]),
  )
  noise, labels = generator_lib.draw(label_counts, 6, 10, _fold_in([3, 4], 0))
  hidden, features = _features(generator, noise.numpy(), labels.numpy())
  shares = counts.sum(axis=1) / counts.sum()
  # The mean of linear heads is the head of mean weights.
  kernel = np.tensordot(shares, kernels, 1)
  probabilities = _softmax(features @ kernel + shares @ biases)
  true = np.eye(10)[labels]
  golden.assert_close(loss, -np.log((probabilities * true).sum(1)).mean())
  error = (probabilities - true) / 10 @ kernel.T
  # Adam's first step: the rate times the gradient's sign.
  for found, before, gradient in (
    (trained.output_kernel, generator.output_kernel, hidden.T @ error),
    (trained.output_bias, generator.output_bias, error.sum(axis=0)),
  ):
    expected = before - 0.1 * gradient / (np.abs(gradient) + 1e-8)
    clear = np.abs(gradient) > 1e-4
    assert clear.mean() > 0.5
    golden.assert_close(found.numpy()[clear], expected[clear], 1e-3)
  for before, after in zip(generator, trained):
    assert (before != after.numpy()).any()


def test_a_step_of_a_client_by_hand():
  weight, rate = 0.5, 0.1
  process = fedgen.build_fedgen(
    _MODELS[:1],
    fedgen.FedGenConfig(lambda_=weight, **_SMALL),
    input_spec=clients.SPEC,
    optimizer=clients.sgd(rate),
    local=clients.ONE_STEP,
  )
  server = process.initialize()
  label_counts = np.arange(10, dtype=np.float32)
  server = server._replace(
    round_num=np.int32(5),
    model=server.model._replace(
      generator=_generator(), label_counts=label_counts
    ),
  )
  model = _MODELS[0]
  state = client_state.new_client_state(
    model, 0, model.initial_weights(1), client_id=7, seed=2
  )
  (examples,) = clients.random_examples(1, 10)
  output = process.next(server, [state], [examples])
  kernel, bias = server.model.head  # Not the client's own.
  features = model.to_keras(state.weights)[0](examples['x']).numpy()
  # Seed, client, round, epoch, step.
  seed = _fold_in([2, 7], 5, 0, 1, 0)
  noise, drawn = generator_lib.draw(label_counts, 6, 10, seed)
  _, generated = _features(server.model.generator, noise.numpy(), drawn.numpy())
  terms, kernel_gradient, bias_gradient = [], 0.0, 0.0
  for share, inputs, labels in (
    (1.0, features, examples['y']),
    (weight, generated, drawn.numpy()),
  ):
    probabilities = _softmax(inputs @ kernel + bias)
    true = np.eye(10)[labels]
    terms.append(-np.log((probabilities * true).sum(axis=1)).mean())
    error = share * (probabilities - true) / 10
    kernel_gradient += inputs.T @ error
    bias_gradient += error.sum(axis=0)
  work = output.measurements['client_work']
  golden.assert_close(work['cross_entropy'], terms[0])
  golden.assert_close(work['generative'], terms[1])
  golden.assert_close(work['loss'], terms[0] + weight * terms[1])
  expected = np.concatenate(
    [np.ravel(kernel - rate * kernel_gradient), bias - rate * bias_gradient]
  )
  golden.assert_close(output.result[0].weights[-_HEAD:], expected)


def test_rounds_by_hand(process):
  examples = clients.random_examples(2, 23) + clients.random_examples(1, 9, 5)
  examples[0]['y'] %= 3  # Classes are absent.
  server, states, _ = clients.run(process, _MODELS, examples, rounds=1)
  first = process.initialize().model
  np.testing.assert_array_equal(
    np.concatenate([np.ravel(weight) for weight in first.head]),
    _MODELS[0].initial_weights(0)[-_HEAD:],
  )
  heads = np.stack([state.weights[-_HEAD:] for state in states])
  golden.assert_close(
    np.concatenate([np.ravel(weight) for weight in server.model.head]),
    np.average(heads, axis=0, weights=[23, 23, 9]),
  )
  np.testing.assert_array_equal(
    server.model.label_counts,
    sum(np.bincount(e['y'], minlength=10) for e in examples),
  )
  output = process.next(server, states, examples)
  golden.assert_close(
    output.state.model.label_counts, 2 * server.model.label_counts
  )
  # The ensemble recognizes more of what is generated.
  assert output.measurements['finalizer']['server_loss'] < np.log(10) / 2
  again, same_states, _ = clients.run(process, _MODELS, examples)
  for found, same in zip(
    tf.nest.flatten((output.state, list(output.result))),
    tf.nest.flatten((again, list(same_states))),
  ):
    np.testing.assert_array_equal(found, same)
  evaluate = client_evaluation.build_evaluation(
    _MODELS, clients.SPEC, process.server_model_type
  )
  result = evaluate(output.state.model, output.result, examples)
  assert list(result[0]) == ['num_examples', 'head', 'global_head']
  generator = (6 + 10) * 12 + 2 * 12 + 12 * 16 + 16
  assert metrics.communication_columns(process) == {
    'bytes_down_per_client': (generator + _HEAD + 10) * 4 + 4,
    'bytes_up_per_client': (_HEAD + 10) * 4,
  }


def test_clients_that_diverge_do_not_count(process):
  examples = clients.random_examples()
  examples[0]['x'] = examples[0]['x'] * np.float32(1e30)
  server, states, measurements = clients.run(
    process, _MODELS, examples, rounds=1
  )
  assert measurements['client_work']['clients_nonfinite'] == 1
  healthy = [state.weights[-_HEAD:] for state in states[1:]]
  golden.assert_close(
    np.concatenate([np.ravel(weight) for weight in server.model.head]),
    np.mean(healthy, axis=0),
  )
  assert server.model.label_counts.sum() == 46
  assert np.isfinite(server.model.generator.output_kernel).all()
  # Nobody is left: everything stays.
  server, _, measurements = clients.run(
    process, _MODELS, examples[:1], rounds=1
  )
  for found, before in zip(
    tf.nest.flatten(server.model),
    tf.nest.flatten(process.initialize().model),
  ):
    np.testing.assert_array_equal(found, before)
  assert measurements['finalizer']['server_loss'] == 0


def test_without_steps_the_generator_stays():
  process = fedgen.build_fedgen(
    _MODELS[:1],
    fedgen.FedGenConfig(server_epochs=0, ensemble_weighting='labels', **_SMALL),
    input_spec=clients.SPEC,
  )
  server, _, _ = clients.run(process, _MODELS[:1], clients.random_examples(1))
  first = process.initialize().model
  np.testing.assert_array_equal(
    server.model.generator.output_kernel, first.generator.output_kernel
  )
  assert (server.model.head[0] != first.head[0]).any()


@pytest.mark.parametrize(
  'options, message',
  [
    (dict(lambda_=-1.0), 'lambda_ >= 0, found -1.0'),
    (dict(noise_dim=0), 'noise_dim >= 1, found 0'),
    (dict(hidden_dim=0), 'hidden_dim >= 1, found 0'),
    (dict(server_epochs=-1), 'server_epochs >= 0, found -1'),
    (
      dict(generator_learning_rate=float('nan')),
      'generator_learning_rate >= 0, found nan',
    ),
    (
      dict(ensemble_weighting='clients'),
      "ensemble_weighting 'clients'; known: examples, labels",
    ),
  ],
)
def test_bad_values_are_named(options, message):
  with pytest.raises(ValueError, match=message):
    fedgen.FedGenConfig(**options)


def test_batches_of_one_are_refused():
  with pytest.raises(ValueError, match='batch_size >= 2, found 1'):
    fedgen.build_fedgen(
      _MODELS,
      input_spec=clients.SPEC,
      local=clients.local_training.LocalTrainingConfig(batch_size=1),
    )


def test_heads_that_differ_are_named():
  with pytest.raises(ValueError, match='needs the same head in all models'):
    fedgen.build_fedgen(
      [clients.tiny_mlp(), clients.tiny_mlp('tanh', head_units=[8])],
      input_spec=clients.SPEC,
    )
