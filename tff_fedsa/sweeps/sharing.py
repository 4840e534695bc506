"""Shares of cores, memory and GPUs for the runs of a sweep."""

from collections.abc import Mapping, Sequence
import os
from typing import Any, NamedTuple, Optional

import psutil

_BYTES_PER_RUN = 2e9


class Limits(NamedTuple):
  """Share of the machine for each run of a sweep.

  Attributes:
    environments: Environment variables, one mapping for each run that works at
      a time.
    flags: Flags by name. A sweep may override them.
  """

  environments: Sequence[Mapping[str, str]]
  flags: Mapping[str, Any]


def share(num_runs: int, max_parallel: Optional[int], runtime: str) -> Limits:
  """Shares this machine between runs.

  Args:
    num_runs: Number of runs.
    max_parallel: Runs at a time. Default: one per core, or per GPU if there are
      GPUs, with 2 GB of free memory for each.
    runtime: Value of --runtime.
  """
  from tff_fedsa.execution import devices  # Imports TensorFlow.

  found = devices.detect()
  memory = int(psutil.virtual_memory().available // _BYTES_PER_RUN)
  at_a_time = max_parallel or max(
    1, min(len(found.gpus) or found.cores, memory)
  )
  at_a_time = min(at_a_time, num_runs)
  if found.gpus and runtime == 'in_process':
    numbers = ','.join(map(str, range(len(found.gpus))))
    gpus = (os.environ.get('CUDA_VISIBLE_DEVICES') or numbers).split(',')
    return Limits(
      [{'CUDA_VISIBLE_DEVICES': gpus[i % len(gpus)]} for i in range(at_a_time)],
      {},
    )
  cores = max(1, found.cores // at_a_time)
  limits = {'max_concurrent_clients': cores}
  if runtime == 'in_process':
    # The last digits of results depend on the threads. So their number must not
    # depend on the number of parallel runs.
    limits['intra_op_threads'] = 1
  threads = {
    f'{library}_NUM_THREADS': str(cores)
    for library in ('OMP', 'OPENBLAS', 'MKL')
  }
  return Limits([threads] * at_a_time, limits)
