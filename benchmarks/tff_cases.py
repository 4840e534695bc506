"""Small cases of TFF's own processes and aggregators.

A case builds a process once and runs it in any runtime. Its results are
structures of arrays; it takes its numbers from seeds. Where TFF draws from the
clock, the case says so: its results are compared within a tolerance, or in
kind only.
"""

import collections
from collections.abc import Callable, Mapping
import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

_NUM_CLIENTS = 4
_SPEC = collections.OrderedDict(
  x=tf.TensorSpec([None, 4], tf.float32), y=tf.TensorSpec([None, 1], tf.int32)
)


@dataclasses.dataclass(frozen=True)
class Case:
  """One process or aggregator of TFF.

  Attributes:
    group: `learning`, `aggregators` or `analytics`.
    build: Builds it, and returns a function `run() -> results`, a structure of
      arrays, for any runtime.
    tolerance: Of results, relative to the largest number of an array; None if
      only dtypes, shapes and finiteness are compared.
    reason: Why results are not compared bit for bit; empty if they are.
  """

  group: str
  build: Callable[[], Callable[[], Any]]
  tolerance: float | None = 0.0
  reason: str = ''

  @property
  def draws(self) -> bool:
    """Whether TFF draws numbers from the clock."""
    return self.reason not in ('', _KERNELS)


_CLOCK = 'TFF draws from the clock'
_ROUNDED = 'TFF draws a rotation from the clock, and takes it back'
_KERNELS = "the worker's kernels of matrices round otherwise"


# Learning.


def _client_data() -> list[tf.data.Dataset]:
  rng = np.random.default_rng(1)
  clients = []
  for size in range(5, 5 + _NUM_CLIENTS):
    x = rng.normal(size=[size, 4]).astype(np.float32)
    y = rng.integers(0, 3, [size, 1]).astype(np.int32)
    data = tf.data.Dataset.from_tensor_slices(collections.OrderedDict(x=x, y=y))
    clients.append(data.batch(3))
  return clients


def _dense(units: int, **options: Any) -> tf.keras.layers.Layer:
  seeded = tf.keras.initializers.GlorotUniform(seed=units)
  return tf.keras.layers.Dense(units, kernel_initializer=seeded, **options)


def _loss() -> tf.keras.losses.Loss:
  return tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def _metrics() -> list[tf.keras.metrics.Metric]:
  return [tf.keras.metrics.SparseCategoricalAccuracy()]


def keras_model() -> tff.learning.models.VariableModel:
  """A model that also has non-trainable state."""
  return tff.learning.models.from_keras_model(
    tf.keras.Sequential(
      [
        _dense(5, activation='tanh', input_shape=(4,)),
        tf.keras.layers.BatchNormalization(),
        _dense(3),
      ]
    ),
    loss=_loss(),
    input_spec=_SPEC,
    metrics=_metrics(),
  )


def _functional_model() -> tff.learning.models.FunctionalModel:
  return tff.learning.models.functional_model_from_keras(
    lambda: tf.keras.Sequential(
      [
        tf.keras.layers.InputLayer([4]),
        _dense(5, activation='tanh'),
        _dense(3),
      ]
    ),
    loss_fn=_loss(),
    input_spec=_SPEC,
    metrics_constructor=lambda: collections.OrderedDict(
      accuracy=tf.keras.metrics.SparseCategoricalAccuracy()
    ),
  )


def _sgd(rate: float) -> tff.learning.optimizers.Optimizer:
  return tff.learning.optimizers.build_sgdm(rate, 0.9)


def three_rounds(process: Any, clients: list[Any]) -> Callable[[], Any]:
  """Returns `run() -> (last state, metrics of each round)`."""

  def run():
    state, metrics = process.initialize(), []
    for _ in range(3):
      output = process.next(state, clients)
      state = output.state
      metrics.append(output.metrics)
    return state, metrics

  return run


_LOOPS = {
  'reduce': tff.learning.LoopImplementation.DATASET_REDUCE,
  'for loop': tff.learning.LoopImplementation.DATASET_ITERATOR,
}


def _learning_processes() -> Mapping[str, Callable[[Any, Any], Any]]:
  """Returns builders by name, for a model and its loop of steps."""
  algorithms = tff.learning.algorithms
  adam = tff.learning.optimizers.build_adam
  yogi = tff.learning.optimizers.build_yogi
  return {
    'build_weighted_fed_avg': lambda model, loop: (
      algorithms.build_weighted_fed_avg(
        model, _sgd(0.1), _sgd(1.0), loop_implementation=loop
      )
    ),
    'build_unweighted_fed_avg': lambda model, loop: (
      algorithms.build_unweighted_fed_avg(
        model, adam(0.01), yogi(0.1), loop_implementation=loop
      )
    ),
    'build_weighted_fed_avg_with_optimizer_schedule': lambda model, loop: (
      algorithms.build_weighted_fed_avg_with_optimizer_schedule(
        model,
        lambda round_num: 0.1 / tf.cast(round_num + 1, tf.float32),
        tff.learning.optimizers.build_sgdm,
        _sgd(1.0),
        loop_implementation=loop,
      )
    ),
    'build_fed_sgd': lambda model, loop: algorithms.build_fed_sgd(
      model, _sgd(0.1), loop_implementation=loop
    ),
    'build_weighted_fed_prox': lambda model, loop: (
      algorithms.build_weighted_fed_prox(
        model, 0.1, _sgd(0.1), _sgd(1.0), loop_implementation=loop
      )
    ),
    'build_unweighted_fed_prox': lambda model, loop: (
      algorithms.build_unweighted_fed_prox(
        model, 0.1, _sgd(0.1), _sgd(1.0), loop_implementation=loop
      )
    ),
    'build_weighted_mime_lite': lambda model, loop: (
      algorithms.build_weighted_mime_lite(
        model, _sgd(0.1), loop_implementation=loop
      )
    ),
    'build_unweighted_mime_lite': lambda model, loop: (
      algorithms.build_unweighted_mime_lite(
        model, adam(0.01), loop_implementation=loop
      )
    ),
    'build_mime_lite_with_optimizer_schedule': lambda model, loop: (
      algorithms.build_mime_lite_with_optimizer_schedule(
        model,
        lambda round_num: 0.1 / tf.cast(round_num + 1, tf.float32),
        _sgd(0.1),
        loop_implementation=loop,
      )
    ),
  }


def _trained_by(name: str, model: Any, loop: str) -> Case:
  def build():
    built = model() if model is _functional_model else model
    process = _learning_processes()[name](built, _LOOPS[loop])
    return three_rounds(process, _client_data())

  # Statistics of three examples amplify differences of rounding.
  tolerance = 1e-4 if model is keras_model else 1e-5
  return Case('learning', build, tolerance, _KERNELS)


def _optimizer(name: str, *arguments: Any) -> Case:
  def build():
    optimizer = getattr(tff.learning.optimizers, name)(*arguments)
    process = tff.learning.algorithms.build_weighted_fed_avg(
      _functional_model(), optimizer, _sgd(1.0)
    )
    return three_rounds(process, _client_data())

  return Case('learning', build, 1e-5, _KERNELS)


def _fed_eval(model: Any) -> Case:
  def build():
    built = model() if model is _functional_model else model
    process = tff.learning.algorithms.build_fed_eval(built)
    training = tff.learning.algorithms.build_weighted_fed_avg(
      built, _sgd(0.1), _sgd(1.0)
    )
    clients = _client_data()

    def run():
      weights = training.get_model_weights(training.initialize())
      state = process.set_model_weights(process.initialize(), weights)
      return process.next(state, clients).metrics

    return run

  return Case('learning', build, 1e-5, _KERNELS)


def _aggregated_by(aggregator: Callable[[], Any], **options: Any) -> Case:
  def build():
    process = tff.learning.algorithms.build_unweighted_fed_avg(
      _functional_model(),
      _sgd(0.1),
      _sgd(1.0),
      model_aggregator=aggregator(),
    )
    return three_rounds(process, _client_data())

  options = {'tolerance': 1e-5, 'reason': _KERNELS, **options}
  return Case('learning', build, **options)


def _kmeans() -> Callable[[], Any]:
  process = tff.learning.algorithms.build_fed_kmeans(
    2, (4,), random_seed=(1, 2)
  )
  clients = [data.map(lambda e: e['x']).unbatch() for data in _client_data()]
  return three_rounds(process, clients)


def _recon_model() -> tff.learning.models.ReconstructionModel:
  inputs = tf.keras.Input([4])
  body, head = _dense(5, activation='tanh'), _dense(3)
  return tff.learning.models.ReconstructionModel.from_keras_model_and_layers(
    keras_model=tf.keras.Model(inputs, head(body(inputs))),
    global_layers=[body],
    local_layers=[head],
    input_spec=_SPEC,
  )


def _fed_recon() -> Callable[[], Any]:
  process = tff.learning.algorithms.build_fed_recon(
    _recon_model,
    loss_fn=_loss,
    metrics_fn=_metrics,
    client_optimizer_fn=_sgd(0.1),
    reconstruction_optimizer_fn=_sgd(0.1),
  )
  return three_rounds(process, _client_data())


def _fed_recon_eval() -> Callable[[], Any]:
  process = tff.learning.algorithms.build_fed_recon_eval(
    _recon_model, loss_fn=_loss, metrics_fn=_metrics
  )
  clients = _client_data()
  return lambda: process.next(process.initialize(), clients).metrics


def _personalization() -> Callable[[], Any]:
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
    keras_model,
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
    keras_model, _sgd(0.1), _sgd(1.0)
  )
  clients = [
    collections.OrderedDict(
      train_data=data.unbatch().take(3), test_data=data.unbatch().skip(3)
    )
    for data in _client_data()
  ]

  def run():
    weights = training.get_model_weights(training.initialize())
    result = evaluate(weights, clients)
    # The clients are a reservoir sample, in random order.
    return {
      name: np.sort(
        np.concatenate([np.ravel(x) for x in tf.nest.flatten(part)])
      )
      for name, part in result.items()
    }

  return run


# Aggregators.


def _aggregator(
  factory: Callable[[], Any],
  *,
  size: int = 8,
  weighted: bool = False,
  dtype: Any = np.float32,
  structure: bool = False,
  **options: Any,
) -> Case:
  """Runs three rounds of an aggregator of vectors, with fixed numbers."""

  def build():
    value_type: Any = tff.TensorType(dtype, [size])
    if structure:
      value_type = tff.types.to_type(
        collections.OrderedDict(a=value_type, b=tff.TensorType(dtype, [2, 3]))
      )
    weight_types = (tff.TensorType(np.float32),) if weighted else ()
    process = factory().create(value_type, *weight_types)
    rng = np.random.default_rng(2)

    def draw(shape):
      if np.issubdtype(dtype, np.integer):
        return rng.integers(0, 5, shape).astype(dtype)
      return rng.normal(size=shape).astype(dtype)

    def draw_value():
      value = draw([size])
      if structure:
        return collections.OrderedDict(a=value, b=draw([2, 3]))
      return value

    rounds = [[draw_value() for _ in range(_NUM_CLIENTS)] for _ in range(3)]
    weights = ([1.0, 2.0, 3.0, 0.5],) if weighted else ()

    def run():
      state, results = process.initialize(), []
      for values in rounds:
        output = process.next(state, values, *weights)
        state = output.state
        results.append((output.result, output.measurements))
      return results

    return run

  return Case('aggregators', build, **options)


def _quantile() -> Any:
  return tff.aggregators.PrivateQuantileEstimationProcess.no_noise(
    1.0, 0.5, learning_rate=1.0
  )


def _distributed_dp(size: int, rotation: str) -> Case:
  return _aggregator(
    lambda: tff.learning.ddp_secure_aggregator(
      0.1, _NUM_CLIENTS, bits=16, zeroing=False, rotation_type=rotation
    ),
    size=size,
    tolerance=None,
    reason=_CLOCK,
  )


def _federated(
  run_fn: Callable[..., Any], values: list[float]
) -> Callable[[], Callable[[], Any]]:
  """Returns the builder of a computation of float32 clients."""
  clients = tff.FederatedType(np.float32, tff.CLIENTS)

  def build():
    computation = tff.federated_computation(run_fn, clients)
    # A sample has any order.
    return lambda: np.sort(computation(values), axis=None)

  return build


# Analytics.


def _words() -> list[tf.data.Dataset]:
  texts = (
    ['a', 'b', 'a', 'ccc'],
    ['a', 'ccc', 'dd'],
    ['a', 'dd', 'e', 'e'],
    ['ccc'],
  )
  return [tf.data.Dataset.from_tensor_slices(words) for words in texts]


def _heavy_hitters(**options: Any) -> Callable[[], Callable[[], Any]]:
  def build():
    computation = tff.analytics.heavy_hitters.iblt.build_iblt_computation(
      capacity=20, string_max_bytes=8, **options
    )
    clients = [words.batch(1) for words in _words()]

    def run():
      result = computation(clients)
      counts = dict(
        zip(
          result.heavy_hitters,
          zip(
            np.ravel(result.heavy_hitters_unique_counts),
            np.ravel(result.heavy_hitters_counts),
          ),
        )
      )
      # Heavy hitters with equal counts have any order.
      return sorted(counts.items()), result.num_not_decoded, result.clients

    return run

  return build


def _iblt_factory() -> Callable[[], Any]:
  value_type = tff.SequenceType(
    collections.OrderedDict(key=np.str_, value=tff.TensorType(np.int64, [1]))
  )
  process = tff.analytics.IbltFactory(
    capacity=20, string_max_bytes=8, repetitions=3
  ).create(value_type)
  clients = [
    tf.data.Dataset.from_tensor_slices(
      collections.OrderedDict(
        key=list(words.as_numpy_iterator()),
        value=np.ones([len(words), 1], np.int64),
      )
    )
    for words in _words()
  ]
  return lambda: process.next(process.initialize(), clients).measurements


def _histogram(**options: Any) -> Callable[[], Callable[[], Any]]:
  def build():
    process = tff.analytics.build_hierarchical_histogram_process(
      0.0, 8.0, 8, arity=2, max_records_per_user=20, **options
    )
    clients = [
      tf.data.Dataset.from_tensor_slices(np.arange(i, i + 3, dtype=np.float32))
      for i in range(4)
    ]

    def run():
      output = process.next(process.initialize(), clients)
      # Without the time of the day.
      return tf.nest.flatten(output, expand_composites=True)[:-1]

    return run

  return build


def _count_distinct(use_secagg: bool) -> Callable[[], Callable[[], Any]]:
  def build():
    lib = tff.analytics.count_distinct
    computation = lib.create_federated_hyperloglog_computation(
      use_secagg=use_secagg
    )
    clients = _words()
    return lambda: computation(clients)

  return build


def _data_processing() -> Callable[[], Any]:
  lib = tff.analytics.data_processing

  @tff.tensorflow.computation(tff.SequenceType(tff.TensorType(np.str_, [None])))
  @tf.function
  def work(data):
    return (
      lib.get_all_elements(data, 3),
      lib.get_unique_elements(data, 3),
      lib.get_unique_elements_with_counts(data, 3),
      lib.get_top_elements(data, 2, 3),
      lib.get_capped_elements(data, 2, 1, 3),
    )

  clients = tff.FederatedType(work.type_signature.parameter, tff.CLIENTS)
  run = tff.federated_computation(lambda x: tff.federated_map(work, x), clients)
  batches = [words.batch(1) for words in _words()]
  return lambda: run(batches)


def cases() -> dict[str, Case]:
  """Returns all cases by name."""
  aggregators = tff.aggregators
  dp = aggregators.DifferentiallyPrivateFactory
  found: dict[str, Case] = {}
  for name in _learning_processes():
    found[f'{name}, Keras'] = _trained_by(name, keras_model, 'reduce')
    # TFF cannot build this process with its other loop.
    loop = 'reduce' if name.endswith('_schedule') else 'for loop'
    found[f'{name}, functional'] = _trained_by(name, _functional_model, loop)
  found |= {
    f'build_weighted_fed_avg by {name}': _optimizer(name, *arguments)
    for name, *arguments in (
      ('build_adagrad', 0.1),
      ('build_adam', 0.01),
      ('build_adamw', 0.01),
      ('build_rmsprop', 0.01),
      ('build_yogi', 0.01),
    )
  }
  found |= {
    'build_fed_eval, Keras': _fed_eval(keras_model),
    'build_fed_eval, functional': _fed_eval(_functional_model),
    'build_fed_kmeans': Case('learning', _kmeans, 1e-5, _KERNELS),
    'build_fed_recon': Case('learning', _fed_recon, 1e-5, _KERNELS),
    'build_fed_recon_eval': Case('learning', _fed_recon_eval, 1e-5, _KERNELS),
    'build_personalization_eval_computation': Case(
      'learning', _personalization, 1e-5, _KERNELS
    ),
    'robust_aggregator': _aggregated_by(
      lambda: tff.learning.robust_aggregator(weighted=False)
    ),
    'secure_aggregator': _aggregated_by(
      lambda: tff.learning.secure_aggregator(weighted=False)
    ),
    'compression_aggregator': _aggregated_by(
      lambda: tff.learning.compression_aggregator(weighted=False)
    ),
    'dp_aggregator': _aggregated_by(
      lambda: tff.learning.dp_aggregator(0.1, 4), tolerance=None, reason=_CLOCK
    ),
    'SumFactory': _aggregator(aggregators.SumFactory, structure=True),
    'MeanFactory': _aggregator(aggregators.MeanFactory, weighted=True),
    'UnweightedMeanFactory': _aggregator(aggregators.UnweightedMeanFactory),
    'as_weighted_aggregator': _aggregator(
      lambda: aggregators.as_weighted_aggregator(
        aggregators.UnweightedMeanFactory()
      ),
      weighted=True,
    ),
    'SecureSumFactory, bounds': _aggregator(
      lambda: aggregators.SecureSumFactory(10.0, -10.0), structure=True
    ),
    'SecureSumFactory, integers': _aggregator(
      lambda: aggregators.SecureSumFactory(10, 0), dtype=np.int32
    ),
    'SecureSumFactory, estimated': _aggregator(
      lambda: aggregators.SecureSumFactory(_quantile())
    ),
    'SecureModularSumFactory': _aggregator(
      lambda: aggregators.SecureModularSumFactory(17), dtype=np.int32
    ),
    'SecureModularSumFactory, symmetric': _aggregator(
      lambda: aggregators.SecureModularSumFactory(17, symmetric_range=True),
      dtype=np.int32,
    ),
    'clipping_factory': _aggregator(
      lambda: aggregators.clipping_factory(2.0, aggregators.SumFactory())
    ),
    'clipping_factory, adaptive': _aggregator(
      lambda: aggregators.clipping_factory(
        _quantile(), aggregators.UnweightedMeanFactory()
      )
    ),
    'zeroing_factory': _aggregator(
      lambda: aggregators.zeroing_factory(
        2.0, aggregators.MeanFactory(), norm_order=2.0
      ),
      weighted=True,
    ),
    'zeroing_factory, adaptive': _aggregator(
      lambda: aggregators.zeroing_factory(
        _quantile(), aggregators.SumFactory()
      ),
      structure=True,
    ),
    'gaussian_fixed, no noise': _aggregator(
      lambda: dp.gaussian_fixed(0.0, 4, 1.0), structure=True
    ),
    'gaussian_fixed': _aggregator(
      lambda: dp.gaussian_fixed(1.0, 4, 1.0), tolerance=None, reason=_CLOCK
    ),
    'gaussian_adaptive, no noise': _aggregator(
      lambda: dp.gaussian_adaptive(0.0, 4, clipped_count_stddev=0.0)
    ),
    'gaussian_adaptive': _aggregator(
      lambda: dp.gaussian_adaptive(0.1, 4), tolerance=None, reason=_CLOCK
    ),
    'tree_aggregation': _aggregator(
      lambda: dp.tree_aggregation(
        1.0, 4, 1.0, tf.TensorSpec([8], tf.float32), noise_seed=1
      )
    ),
    'tree_adaptive, no noise': _aggregator(
      lambda: dp.tree_adaptive(
        0.0,
        4,
        tf.TensorSpec([8], tf.float32),
        clipped_count_stddev=0.0,
        noise_seed=1,
      )
    ),
    # The seed is that of the values' noise; the norm's is drawn by the clock.
    'tree_adaptive': _aggregator(
      lambda: dp.tree_adaptive(
        0.1, 4, tf.TensorSpec([8], tf.float32), noise_seed=1
      ),
      tolerance=None,
      reason=_CLOCK,
    ),
    'EncodedSumFactory': _aggregator(
      lambda: aggregators.EncodedSumFactory.quantize_above_threshold(16, 0),
      tolerance=1e-3,
      reason='TFF rounds at random, by less than a step of 16 bits',
    ),
    'HadamardTransformFactory': _aggregator(
      aggregators.HadamardTransformFactory,
      structure=True,
      tolerance=1e-5,
      reason=_ROUNDED,
    ),
    'DiscreteFourierTransformFactory': _aggregator(
      aggregators.DiscreteFourierTransformFactory,
      structure=True,
      tolerance=1e-5,
      reason=_ROUNDED,
    ),
    'concat_factory': _aggregator(
      lambda: aggregators.concat_factory(aggregators.SumFactory()),
      structure=True,
    ),
    'add_measurements': _aggregator(
      lambda: aggregators.add_measurements(
        aggregators.SumFactory(),
        client_measurement_fn=lambda value: collections.OrderedDict(
          sum=tff.federated_sum(value)
        ),
      )
    ),
    'UnweightedReservoirSamplingFactory': _aggregator(
      lambda: aggregators.UnweightedReservoirSamplingFactory(2),
      tolerance=None,
      reason=_CLOCK,
    ),
    'federated_sample': Case(
      'aggregators',
      _federated(
        lambda x: aggregators.federated_sample(x, 10), [1.0, 2.0, 3.0]
      ),
    ),
    'secure_quantized_sum': Case(
      'aggregators',
      _federated(
        lambda x: aggregators.secure_quantized_sum(
          x, np.float32(-5.0), np.float32(5.0)
        ),
        [1.0, 2.0, 30.0],
      ),
    ),
  }
  # Alone, because within a process its proto is too deep for TFF's parser.
  found |= {
    f'ddp_secure_aggregator of {size}, {rotation}': _distributed_dp(
      size, rotation
    )
    for size in (1, 3, 8, 17, 64)
    for rotation in ('hd', 'dft')
  }
  found |= {
    'build_iblt_computation': Case('analytics', _heavy_hitters()),
    'build_iblt_computation, secure': Case(
      'analytics', _heavy_hitters(secure_sum_bitwidth=20)
    ),
    'build_iblt_computation, capped': Case(
      'analytics', _heavy_hitters(multi_contribution=False, k_anonymity=2)
    ),
    'IbltFactory': Case('analytics', _iblt_factory),
    'build_hierarchical_histogram_process': Case('analytics', _histogram()),
    'build_hierarchical_histogram_process, distinct': Case(
      'analytics', _histogram(clip_mechanism='distinct')
    ),
    'build_hierarchical_histogram_process, central DP': Case(
      'analytics',
      _histogram(dp_mechanism='central-gaussian', noise_multiplier=0.1),
      None,
      _CLOCK,
    ),
    'build_hierarchical_histogram_process, distributed DP': Case(
      'analytics',
      _histogram(
        dp_mechanism='distributed-discrete-gaussian', noise_multiplier=0.1
      ),
      None,
      _CLOCK,
    ),
    'count_distinct': Case('analytics', _count_distinct(False)),
    'count_distinct, secure': Case('analytics', _count_distinct(True)),
    'data_processing': Case('analytics', _data_processing),
  }
  return found
