"""Measures a round of FedSA with each aggregator.

  python -m benchmarks.aggregators

100 clients with 20 made-up images each send 100 prototypes of 512 features. All
processes take turns in one Python process, after a warm-up. Printed are the
least seconds of a round, the median CPU seconds of a round (all threads), which
depend less on other programs, and their ratios to the mean's.
"""

from collections.abc import Sequence
import statistics
import time

from absl import flags
import numpy as np

from launch import runner
from tff_fedsa.aggregation import aggregator_config

_ROUNDS = flags.DEFINE_integer(
  'rounds', 9, 'Measured rounds of each aggregator.', lower_bound=1
)
_CLIENTS = flags.DEFINE_integer('num_clients', 100, 'Clients.', lower_bound=1)
_CLASSES = flags.DEFINE_integer('num_classes', 100, 'Classes.', lower_bound=2)
_FEATURES = flags.DEFINE_integer('feature_dim', 512, 'D.', lower_bound=1)


def main(argv: Sequence[str]) -> None:
  """Prints a table."""
  del argv  # Unused.
  # TensorFlow is imported now, see `runner`.
  from tff_fedsa.algorithms import registry
  from tff_fedsa.client import client_state
  from tff_fedsa.data import input_spec
  from tff_fedsa.execution.in_process import contexts
  from tff_fedsa.models import families

  contexts.set_in_process_context()
  spec = input_spec.InputSpec((8, 8, 1), 'uint8', scale=1 / 8, offset=-1.0)
  models = families.build_family(
    'digits_mlp', spec.model_shape, _CLASSES.value, _FEATURES.value
  )
  processes = {
    name: registry.build(
      'fedsa',
      models,
      input_spec=spec,
      aggregator=aggregator_config.AggregatorConfig(name),
    )
    for name in aggregator_config.AGGREGATORS
  }
  rng = np.random.default_rng(0)
  examples = [
    {
      'x': rng.integers(0, 16, [20, 8, 8, 1], np.uint8),
      'y': rng.integers(0, _CLASSES.value, [20], np.int32),
    }
    for _ in range(_CLIENTS.value)
  ]
  initial_state_fn = client_state.build_initial_state_fn(models)
  states = [initial_state_fn(i) for i in range(_CLIENTS.value)]
  seconds: dict[str, list[float]] = {name: [] for name in processes}
  cpu_seconds: dict[str, list[float]] = {name: [] for name in processes}
  for round_num in range(_ROUNDS.value + 1):
    for name, process in processes.items():
      server = process.initialize()
      started, cpu_started = time.perf_counter(), time.process_time()
      process.next(server, states, examples)
      if round_num:
        seconds[name].append(time.perf_counter() - started)
        cpu_seconds[name].append(time.process_time() - cpu_started)
  print('| aggregator | seconds | ratio | CPU seconds | ratio |')
  print('|---|---|---|---|---|')
  least = {name: min(taken) for name, taken in seconds.items()}
  middle = {name: statistics.median(of) for name, of in cpu_seconds.items()}
  for name in processes:
    print(
      f'| {name} | {least[name]:.2f} | {least[name] / least["mean"]:.2f} | '
      f'{middle[name]:.2f} | {middle[name] / middle["mean"]:.2f} |'
    )


if __name__ == '__main__':
  runner.run(main)
