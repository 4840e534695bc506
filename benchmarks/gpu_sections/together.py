"""Clients of one architecture trained together, against each alone."""

from collections.abc import Iterator, Sequence
import dataclasses
from typing import Any

import numpy as np

from benchmarks import overhead
from benchmarks.gpu_sections import throughput


def measurements(
  model: str,
  batch_sizes: Sequence[int],
  counts: Sequence[int],
  num_clients: int,
  seconds: float,
) -> Iterator[dict[str, Any]]:
  """Yields a row for each batch size and number of clients in a step.

  A row has the speed, its ratio to that of each client alone, and the largest
  difference of a weight after a round.

  Args:
    model: Architecture of all clients.
    batch_sizes: Examples of a client in a step.
    counts: Values of --batch_clients.
    num_clients: Clients of a round.
    seconds: Measuring time of each row; one round at least.
  """
  for batch_size in batch_sizes:
    work = throughput.workload(model, batch_size, num_clients)
    alone, expected = None, None
    for count in (None, *counts):
      federated = overhead.build_federated(
        dataclasses.replace(work, batch_clients=count)
      )
      weights = np.stack(federated.weights(federated.next(federated.initial)))
      speed = throughput.as_dict(
        throughput.measure_contender(work, federated, seconds)
      )
      if alone is None or expected is None:
        alone, expected = speed['images_per_second'], weights
      yield {
        'batch_size': batch_size,
        'together': count or 1,
        'ratio': round(speed['images_per_second'] / alone, 2),
        'difference': float(np.max(np.abs(weights - expected))),
        **speed,
      }
