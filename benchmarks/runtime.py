"""Compares the in-process runtime with TFF's stock C++ runtime.

  python -m benchmarks.runtime
  python -m benchmarks.runtime --cases=fed_avg --rounds=20

Each case runs in both runtimes alternately, in one process, after a warm-up.
Printed are the seconds of a round (minimum and median), the ratio of the
medians, the first call (tracing and compiling included), the largest difference
between what both have computed in the first round, and the resident memory of
Python and of the stock runtime's worker after the case.
"""

import collections
from collections.abc import Callable, Sequence
import functools
import os
import statistics
import time
from typing import Any, NamedTuple

from absl import app
from absl import flags
import numpy as np
import psutil

from launch import runner

_CASES = flags.DEFINE_list(
  'cases',
  [],
  'Only cases whose name starts with one of these. Default: all.',
)
_ROUNDS = flags.DEFINE_integer(
  'rounds', 10, 'Measured rounds of each runtime.', lower_bound=1
)
_REPETITIONS = flags.DEFINE_integer(
  'repetitions', 1, 'Repetitions of all cases, in turn.', lower_bound=1
)


# Later rounds say less about runtimes, because training amplifies rounding.
_COMPARED_ROUND = 1


class Case(NamedTuple):
  """A process to measure.

  Attributes:
    initialize: Returns the first state.
    next: `next(state) -> state`: one round.
  """

  initialize: Callable[[], Any]
  next: Callable[[Any], Any]


def fed_avg(num_clients: int) -> Case:
  """`build_weighted_fed_avg` of a small CNN, 60 digits per client."""
  from sklearn import datasets
  import tensorflow as tf
  import tensorflow_federated as tff

  digits = datasets.load_digits()
  images = (digits.images[..., np.newaxis] / 16).astype(np.float32)
  labels = digits.target.astype(np.int32)
  element_spec = (
    tf.TensorSpec([None, 8, 8, 1], tf.float32),
    tf.TensorSpec([None], tf.int32),
  )

  def model_fn():
    keras_model = tf.keras.Sequential(
      [
        tf.keras.layers.Conv2D(8, 3, activation='relu', input_shape=(8, 8, 1)),
        tf.keras.layers.Flatten(),
        tf.keras.layers.Dense(32, activation='relu'),
        tf.keras.layers.Dense(10),
      ]
    )
    return tff.learning.models.from_keras_model(
      keras_model,
      loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
      input_spec=element_spec,
    )

  process = tff.learning.algorithms.build_weighted_fed_avg(
    model_fn,
    client_optimizer_fn=tff.learning.optimizers.build_sgdm(0.1),
    server_optimizer_fn=tff.learning.optimizers.build_sgdm(1.0),
  )
  rng = np.random.default_rng(0)
  clients = []
  for _ in range(num_clients):
    chosen = rng.choice(len(labels), 60, replace=False)
    data = tf.data.Dataset.from_tensor_slices((images[chosen], labels[chosen]))
    clients.append(data.batch(10))
  return Case(
    process.initialize, lambda state: process.next(state, clients).state
  )


def stateful(megabytes: float) -> Case:
  """Ten clients that keep a vector between rounds."""
  import tensorflow as tf
  import tensorflow_federated as tff

  size = int(megabytes * 1e6 / 4)
  state_type = tff.TensorType(np.float32, [None])

  @tff.tensorflow.computation(state_type)
  def work(state):
    return state + 1.0, tf.reduce_mean(state)

  @tff.federated_computation(tff.FederatedType(state_type, tff.CLIENTS))
  def run_round(states):
    results = tff.federated_map(work, states)
    return results[0], tff.federated_mean(results[1])

  return Case(
    lambda: [np.full([size], i, np.float32) for i in range(10)],
    lambda states: run_round(states)[0],
  )


def data_set(megabytes: float) -> Case:
  """Ten clients that read a data set of images."""
  import tensorflow as tf
  import tensorflow_federated as tff

  count = max(1, int(megabytes * 1e6 / (32 * 32 * 3)))
  spec = tf.TensorSpec([None, 32, 32, 3], tf.uint8)

  @tff.tensorflow.computation(
    tff.SequenceType(tff.types.tensorflow_to_type(spec))
  )
  def work(data):
    return data.reduce(
      0.0,
      lambda total, batch: total + tf.reduce_mean(tf.cast(batch, tf.float32)),
    )

  @tff.federated_computation(
    tff.FederatedType(work.type_signature.parameter, tff.CLIENTS)
  )
  def run_round(data):
    return tff.federated_mean(tff.federated_map(work, data))

  rng = np.random.default_rng(0)
  clients = [
    tf.data.Dataset.from_tensor_slices(
      rng.integers(0, 256, [count, 32, 32, 3]).astype(np.uint8)
    ).batch(20)
    for _ in range(10)
  ]
  return Case(lambda: None, lambda _: run_round(clients))


def fed_sa(num_examples: int, batch_size: int) -> Case:
  """FedSA, FedAvgCNN, 20 clients with CIFAR-shaped images, no evaluation."""
  import tensorflow_federated as tff

  from tff_fedsa.algorithms import fedsa
  from tff_fedsa.client import client_state
  from tff_fedsa.client import local_optimizer
  from tff_fedsa.client import local_training
  from tff_fedsa.data import input_spec
  from tff_fedsa.models import families

  spec = input_spec.InputSpec((32, 32, 3), 'uint8', 1 / 127.5, -1.0)
  models = families.build_family('fedavg_cnn', (32, 32, 3), 10, 512)
  process = fedsa.build_fedsa(
    models,
    input_spec=spec,
    optimizer=local_optimizer.LocalOptimizer(
      tff.learning.optimizers.build_sgdm(0.01)
    ),
    local=local_training.LocalTrainingConfig(batch_size=batch_size),
  )
  initial_state = client_state.build_initial_state_fn(models)
  rng = np.random.default_rng(0)
  examples = [
    collections.OrderedDict(
      x=rng.integers(0, 256, [num_examples, 32, 32, 3]).astype(np.uint8),
      y=rng.integers(0, 10, num_examples).astype(np.int32),
    )
    for _ in range(20)
  ]

  def run_round(state):
    output = process.next(*state, examples)
    return output.state, list(output.result)

  return Case(
    lambda: (process.initialize(), [initial_state(i) for i in range(20)]),
    run_round,
  )


CASES: dict[str, Callable[[], Case]] = {
  **{f'fed_avg_{n}': functools.partial(fed_avg, n) for n in (10, 50, 200)},
  **{
    f'stateful_{mb}mb': functools.partial(stateful, mb)
    for mb in (0.1, 1, 10, 50)
  },
  **{
    f'data_set_{mb}mb': functools.partial(data_set, mb) for mb in (0.06, 6, 30)
  },
  'fed_sa_500_batch10': functools.partial(fed_sa, 500, 10),
}


def compare(case: Case, rounds: int) -> dict[str, Any]:
  """Runs a case in both runtimes alternately.

  Returns:
    Per runtime `first`, `min` and `median` seconds, and `difference`, the
    largest between their states after the first round, relative to the largest
    entry.
  """
  import tensorflow as tf
  import tensorflow_federated as tff

  from tff_fedsa.execution import native
  from tff_fedsa.execution.in_process import contexts

  stack = tff.framework.get_context_stack()
  runtimes = {}
  runtimes['in_process'] = contexts.set_in_process_context()
  native.set_native_context()
  runtimes['native'] = stack.current
  states, seconds = {}, collections.defaultdict(list)
  for name, context in runtimes.items():
    stack.set_default_context(context)
    states[name] = case.initialize()
  for round_num in range(1, max(rounds + 2, _COMPARED_ROUND) + 1):
    for name, context in runtimes.items():
      stack.set_default_context(context)
      started = time.perf_counter()
      states[name] = case.next(states[name])
      seconds[name].append(time.perf_counter() - started)
    if round_num == _COMPARED_ROUND:
      compared = dict(states)
  ours, theirs = (
    [np.asarray(leaf, np.float64) for leaf in tf.nest.flatten(compared[name])]
    for name in runtimes
  )
  scale = max(np.max(np.abs(leaf), initial=1e-30) for leaf in theirs)
  return {
    **{
      name: {
        'first': values[0],
        'min': min(values[2:]),
        'median': statistics.median(values[2:]),
      }
      for name, values in seconds.items()
    },
    'memory_mb': [
      round(psutil.Process(pid).memory_info().rss / 1e6)
      for pid in (os.getpid(), *native.worker_pids())
    ],
    'difference': max(
      np.max(np.abs(a - b), initial=0.0) for a, b in zip(ours, theirs)
    )
    / scale,
  }


def main(argv: Sequence[str]) -> None:
  """Measures and prints a table."""
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected arguments: {argv[1:]}')
  print(
    '| case | in process: min | median | stock: min | median | ratio | '
    'first call, s | difference | MB: Python / worker |\n'
    '|---|---|---|---|---|---|---|---|---|'
  )
  for _ in range(_REPETITIONS.value):
    for name, build in CASES.items():
      if not _CASES.value or name.startswith(tuple(_CASES.value)):
        found = compare(build(), _ROUNDS.value)
        ours, theirs = found['in_process'], found['native']
        print(
          f'| {name} | {ours["min"]:.4f} | {ours["median"]:.4f} | '
          f'{theirs["min"]:.4f} | {theirs["median"]:.4f} | '
          f'{theirs["median"] / ours["median"]:.1f} | '
          f'{ours["first"]:.1f} / {theirs["first"]:.1f} | '
          f'{found["difference"]:.0e} | '
          f'{" / ".join(map(str, found["memory_mb"]))} |',
          flush=True,
        )


if __name__ == '__main__':
  runner.run(main)
