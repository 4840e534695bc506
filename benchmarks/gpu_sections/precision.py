"""Speed and accuracy of number formats and compilers.

TensorFlow takes most of these settings at its start only: each variant has a
process of its own.
"""

import dataclasses
import time
from typing import Any

import numpy as np

from benchmarks import overhead
from benchmarks.gpu_sections import throughput
from launch import devices as devices_program


def prepare(variant: str) -> None:
  """Sets a variant, before TensorFlow starts.

  `xla` is the environment's (TF_XLA_FLAGS), `jit_compile` the context's,
  `default` TensorFlow's.

  Raises:
    ValueError: If there is no such variant.
  """
  import tensorflow as tf

  if variant == 'tf32_off':
    tf.config.experimental.enable_tensor_float_32_execution(False)
  elif variant == 'deterministic':
    tf.keras.utils.set_random_seed(0)
    tf.config.experimental.enable_op_determinism()
  elif variant == 'float16':
    # As --mixed_precision, on GPUs only.
    tf.config.optimizer.set_experimental_options({'auto_mixed_precision': True})
  elif variant not in ('default', 'xla', 'jit_compile'):
    raise ValueError(f'Unknown variant {variant!r}.')


def measure(
  model: str, batch_size: int, clients: int, seconds: float
) -> dict[str, Any]:
  """Measures FedSA in process and the plain loop in TFF's context.

  Returns:
    Both speeds, the seconds of the first round, and `moved`, how far a round of
    FedSA moves the weights of the first client (L2 norm): it tells whether the
    numbers are still the same.
  """
  # XLA draws other random orders than TensorFlow.
  work = dataclasses.replace(
    throughput.workload(model, batch_size, max(2, clients)), shuffle=False
  )
  federated = overhead.build_federated(work)
  started = time.perf_counter()
  state = federated.next(federated.initial)
  seconds_of_first = time.perf_counter() - started
  before, after = (
    federated.weights(one)[0] for one in (federated.initial, state)
  )
  return {
    'first_round_seconds': round(seconds_of_first, 2),
    'moved': float(np.linalg.norm(after - before)),
    'FedSA in process': throughput.as_dict(
      throughput.measure_contender(work, federated, seconds)
    ),
    'plain loop': throughput.as_dict(
      throughput.measure_contender(
        work, overhead.build_plain(work, clients), seconds
      )
    ),
  }


def measure_keras(
  model: str, batch_size: int, seconds: float
) -> dict[str, Any]:
  """Measures `fit` with and without XLA."""
  return {
    f'Keras fit{", XLA" * jit_compile}': throughput.as_dict(
      devices_program.measure_keras(
        model, batch_size, seconds, jit_compile=jit_compile
      )
    )
    for jit_compile in (False, True)
  }


def try_keras_policy(model: str, policy: str = 'mixed_float16') -> str:
  """Returns the effect of a mixed-precision policy of Keras on our models."""
  import tensorflow as tf

  from tff_fedsa.models import families

  before = tf.keras.mixed_precision.global_policy()
  tf.keras.mixed_precision.set_global_policy(policy)
  try:
    families.build_family(model, (32, 32, 3), 10, 512)
  except Exception as error:  # noqa: BLE001
    return f'{type(error).__name__}: {str(error).splitlines()[0]}'
  finally:
    tf.keras.mixed_precision.set_global_policy(before)
  return 'built'
