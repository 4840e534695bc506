"""TFF's own processes and aggregators: in process as in the stock runtime."""

import collections

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

_SPEC = collections.OrderedDict(
  x=tf.TensorSpec([None, 4], tf.float32), y=tf.TensorSpec([None, 1], tf.int32)
)


def _client_data(num_clients=4):
  rng = np.random.default_rng(1)
  clients = []
  for size in range(5, 5 + num_clients):
    x = rng.normal(size=[size, 4]).astype(np.float32)
    y = rng.integers(0, 3, [size, 1]).astype(np.int32)
    data = tf.data.Dataset.from_tensor_slices(collections.OrderedDict(x=x, y=y))
    clients.append(data.batch(3))
  return clients


def _model_fn():
  # Layers with state that trains, too: their variables travel.
  def dense(units, **options):
    seeded = tf.keras.initializers.GlorotUniform(seed=units)
    return tf.keras.layers.Dense(units, kernel_initializer=seeded, **options)

  model = tf.keras.Sequential(
    [
      dense(5, activation='tanh', input_shape=(4,)),
      tf.keras.layers.BatchNormalization(),
      dense(3),
    ]
  )
  return tff.learning.models.from_keras_model(
    model,
    loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    input_spec=_SPEC,
    metrics=[tf.keras.metrics.SparseCategoricalAccuracy()],
  )


def _sgd(rate):
  return tff.learning.optimizers.build_sgdm(rate, 0.9)


def _three_rounds(process, clients):
  state, metrics = process.initialize(), []
  for _ in range(3):
    output = process.next(state, clients)
    state = output.state
    metrics.append(output.metrics)
  return state, metrics


def _weighted_fed_avg():
  process = tff.learning.algorithms.build_weighted_fed_avg(
    _model_fn, _sgd(0.1), _sgd(1.0)
  )
  return lambda: _three_rounds(process, _client_data())


def _fed_avg_of_a_for_loop():
  process = tff.learning.algorithms.build_weighted_fed_avg(
    _model_fn,
    tff.learning.optimizers.build_adam(0.01),
    tff.learning.optimizers.build_yogi(0.1),
    loop_implementation=tff.learning.LoopImplementation.DATASET_ITERATOR,
  )
  return lambda: _three_rounds(process, _client_data())


def _fed_prox():
  process = tff.learning.algorithms.build_weighted_fed_prox(
    _model_fn, 0.1, _sgd(0.1), _sgd(1.0)
  )
  return lambda: _three_rounds(process, _client_data())


def _robust_fed_avg():
  process = tff.learning.algorithms.build_weighted_fed_avg(
    _model_fn,
    _sgd(0.1),
    _sgd(1.0),
    model_aggregator=tff.learning.robust_aggregator(),
  )
  return lambda: _three_rounds(process, _client_data())


def _fed_eval():
  process = tff.learning.algorithms.build_fed_eval(_model_fn)
  training = tff.learning.algorithms.build_weighted_fed_avg(
    _model_fn, _sgd(0.1), _sgd(1.0)
  )

  def run():
    weights = training.get_model_weights(training.initialize())
    state = process.set_model_weights(process.initialize(), weights)
    return process.next(state, _client_data()).metrics

  return run


def _kmeans():
  process = tff.learning.algorithms.build_fed_kmeans(
    2, (4,), random_seed=(1, 2)
  )
  points = [
    [np.asarray(x) for x in data.map(lambda e: e['x']).unbatch()]
    for data in _client_data()
  ]

  def run():
    state = process.initialize()
    clients = [
      tf.data.Dataset.from_tensor_slices(np.stack(client)) for client in points
    ]
    for _ in range(3):
      output = process.next(state, clients)
      state = output.state
    return state, output.metrics

  return run


def _personalization():
  def build_strategy():
    @tf.function
    def train(model, train_data, test_data, context=None):
      variables = model.trainable_variables
      for batch in train_data.batch(2):
        with tf.GradientTape() as tape:
          loss = model.forward_pass(batch).loss
        for variable, gradient in zip(
          variables, tape.gradient(loss, variables)
        ):
          variable.assign_sub(0.1 * gradient)
      losses = tf.constant(0.0)
      for batch in test_data.batch(2):
        losses += model.forward_pass(batch, training=False).loss
      return collections.OrderedDict(loss=losses)

    return train

  evaluate = tff.learning.algorithms.build_personalization_eval_computation(
    _model_fn,
    collections.OrderedDict(sgd=build_strategy),
    baseline_evaluate_fn=lambda model, data: collections.OrderedDict(
      loss=data.batch(2).reduce(
        0.0,
        lambda total, batch: total
        + model.forward_pass(batch, training=False).loss,
      )
    ),
    max_num_clients=10,
  )
  training = tff.learning.algorithms.build_weighted_fed_avg(
    _model_fn, _sgd(0.1), _sgd(1.0)
  )

  def run():
    weights = training.get_model_weights(training.initialize())
    clients = [
      collections.OrderedDict(
        train_data=data.unbatch().take(3), test_data=data.unbatch().skip(3)
      )
      for data in _client_data()
    ]
    result = evaluate(weights, clients)
    # The clients are a reservoir sample, in random order.
    return {
      name: np.sort(
        np.concatenate([np.ravel(x) for x in tf.nest.flatten(part)])
      )
      for name, part in result.items()
    }

  return run


def _aggregator(factory, weighted=False):
  def build():
    value_type = tff.TensorType(np.float32, [8])
    weight_types = (tff.TensorType(np.float32),) if weighted else ()
    process = factory().create(value_type, *weight_types)

    def run():
      rng = np.random.default_rng(2)
      state, results = process.initialize(), []
      for _ in range(3):
        values = [rng.normal(size=8).astype(np.float32) for _ in range(4)]
        weights = ([1.0, 2.0, 3.0, 0.5],) if weighted else ()
        output = process.next(state, values, *weights)
        state = output.state
        results.append(output.result)
      return results

    return run

  return build


_CASES = {
  'weighted_fed_avg': _weighted_fed_avg,
  'fed_avg_of_a_for_loop': _fed_avg_of_a_for_loop,
  'fed_prox': _fed_prox,
  'robust_fed_avg': _robust_fed_avg,
  'fed_eval': _fed_eval,
  'kmeans': _kmeans,
  'personalization': _personalization,
  'mean': _aggregator(tff.aggregators.MeanFactory, weighted=True),
  'zeroing_clipping': _aggregator(
    lambda: tff.aggregators.zeroing_factory(
      10.0,
      tff.aggregators.clipping_factory(2.0, tff.aggregators.SumFactory()),
    )
  ),
  'adaptive_clipping': _aggregator(
    lambda: tff.aggregators.clipping_factory(
      tff.aggregators.PrivateQuantileEstimationProcess.no_noise(
        1.0, 0.5, learning_rate=1.0
      ),
      tff.aggregators.UnweightedMeanFactory(),
    )
  ),
  'dp_without_noise': _aggregator(
    lambda: tff.aggregators.DifferentiallyPrivateFactory.gaussian_fixed(
      noise_multiplier=0.0, clients_per_round=4, clip=1.0
    )
  ),
  'dp_adaptive_without_noise': _aggregator(
    lambda: tff.aggregators.DifferentiallyPrivateFactory.gaussian_adaptive(
      noise_multiplier=0.0,
      clients_per_round=4,
      clipped_count_stddev=0.0,
    )
  ),
  'quantized': _aggregator(
    lambda: tff.aggregators.EncodedSumFactory.quantize_above_threshold(
      quantization_bits=16, threshold=0
    )
  ),
}


@pytest.mark.parametrize('name', _CASES)
def test_same_result(name, runtimes):
  results = []
  for runtime in ('native', 'in_process'):
    with runtimes.default(runtime):
      results.append(_CASES[name]()())
  expected, found = results
  tf.nest.assert_same_structure(expected, found)
  # Encodings are rounded at random, by less than a step of theirs.
  tolerance = 1e-3 if name == 'quantized' else 1e-5
  for a, b in zip(tf.nest.flatten(expected), tf.nest.flatten(found)):
    scale = np.max(np.abs(a), initial=0.0)
    assert np.max(np.abs(a - b), initial=0.0) <= tolerance * scale


def test_dp_noise_is_drawn_anew_in_each_round(in_process_context):
  factory = tff.aggregators.DifferentiallyPrivateFactory.gaussian_fixed(
    noise_multiplier=1.0, clients_per_round=2, clip=1.0
  )
  process = factory.create(tff.TensorType(np.float32, [1000]))
  values = [np.zeros(1000, np.float32)] * 2
  state = process.initialize()
  first = process.next(state, values).result
  second = process.next(state, values).result
  assert np.std(first) == pytest.approx(0.5, rel=0.2)
  assert not np.array_equal(first, second)
