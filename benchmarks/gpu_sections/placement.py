"""Finds the device of each operation of clients, loop bodies included."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
import contextlib
import os
import re
import sys
import tempfile
from typing import Any

import numpy as np

# Operations that only move values.
_TRANSPORT = frozenset(
  (
    '_Arg',
    '_EagerConst',
    '_Retval',
    '_SwitchN',
    'Const',
    'Enter',
    'Exit',
    'Identity',
    'IdentityN',
    'Merge',
    'NextIteration',
    'NoOp',
    'Switch',
  )
)
# Operation without GPU kernel, once per epoch, for the order of examples.
_WITHOUT_KERNEL = frozenset(['StatelessShuffle'])
# Each step has all of these operations.
_HEAVY = ('Conv2D', 'Conv2DBackpropInput', 'Conv2DBackpropFilter', 'MatMul')
_PLACED = re.compile(
  r'^\S+: \((\w+)\): /job:\S+/device:(\w+:\d+)$', re.MULTILINE
)


def count(log: str, device: str) -> dict[str, Any]:
  """Counts operations by device.

  Args:
    log: Text that TensorFlow printed: see `logged`.
    device: Device of the clients, e.g. `GPU:0`.

  Returns:
    `on_device` and `elsewhere`, numbers of operations, without those that only
    move values; `heavy`, by kind, those on the device that take the time of a
    step; `loops`, the loops on the device; `kinds_elsewhere`, by kind, those
    that are not on the device. `ok` is whether the latter are only those
    that have no kernel there, and there are some of each of the former.
  """
  here: Counter[str] = Counter()
  elsewhere: Counter[str] = Counter()
  for kind, where in _PLACED.findall(log):
    if kind not in _TRANSPORT:
      (here if where == device else elsewhere)[kind] += 1
  heavy = {kind: here[kind] for kind in _HEAVY}
  loops = here['While'] + here['StatelessWhile'] + here['LoopCond']
  return {
    'ok': elsewhere.keys() <= _WITHOUT_KERNEL
    and loops > 0
    and all(heavy.values()),
    'on_device': sum(here.values()),
    'elsewhere': sum(elsewhere.values()),
    'loops': loops,
    'heavy': heavy,
    'kinds_elsewhere': dict(elsewhere.most_common()),
  }


@contextlib.contextmanager
def logged() -> Iterator[Callable[[], str]]:
  """Yields a function that returns the output so far within `with`.

  TensorFlow prints placements from C++, if it was told to before it started
  (`tf.debugging.set_log_device_placement`): the process's standard output goes
  to a file.
  """
  sys.stdout.flush()
  stdout = os.dup(1)
  with tempfile.TemporaryFile('w+') as file:
    os.dup2(file.fileno(), 1)

    def read() -> str:
      _flush()
      file.seek(0)
      return file.read()

    try:
      yield read
    finally:
      _flush()
      os.dup2(stdout, 1)
      os.close(stdout)


def _flush() -> None:
  """Flushes the output of C++."""
  import ctypes

  ctypes.CDLL(None).fflush(None)


def build_round(models: Sequence[str], batch_size: int) -> Callable[[], Any]:
  """Returns a function that computes a FedSA round with the server's part.

  Args:
    models: Architectures, a client for each.
    batch_size: Each client has two batches of random images, 32x32x3.
  """
  from tff_fedsa.algorithms import fedsa
  from tff_fedsa.client import client_state
  from tff_fedsa.client import local_training
  from tff_fedsa.data import input_spec
  from tff_fedsa.models import families

  family = families.build_family(models, (32, 32, 3), 10, 512)
  process = fedsa.build_fedsa(
    family,
    input_spec=input_spec.InputSpec((32, 32, 3), 'uint8', 1 / 127.5, -1.0),
    local=local_training.LocalTrainingConfig(batch_size=batch_size),
  )
  initial_state = client_state.build_initial_state_fn(family)
  rng = np.random.default_rng(0)
  examples = [
    {
      'x': rng.integers(0, 256, [2 * batch_size, 32, 32, 3]).astype(np.uint8),
      'y': rng.integers(0, 10, 2 * batch_size).astype(np.int32),
    }
    for _ in models
  ]
  states = [initial_state(i) for i in range(len(models))]
  server = process.initialize()
  return lambda: process.next(server, states, examples)
