"""Own data of any form as a task: arrays, `ClientData`, or a task already."""

from collections.abc import Mapping, Sequence
import functools
import hashlib
from typing import Any

import numpy as np
import tensorflow_federated as tff

from tff_fedsa.data import client_data
from tff_fedsa.data import input_spec as input_spec_lib
from tff_fedsa.data import task_spec
from tff_fedsa.data import tasks
from tff_fedsa.data import validation
from tff_fedsa.runs import errors

_FORMS = (
  'Expected own data as a FederatedTask, a tff.simulation.datasets.ClientData, '
  'or a list with, for each client, a pair of arrays (images, labels), a pair '
  'of such pairs (train, test) or a ClientExamples'
)


def to_task(data: Any, spec: task_spec.TaskSpec) -> tasks.FederatedTask:
  """Returns own data as a task.

  Args:
    data: A `FederatedTask`; a `ClientData`; or for each client a pair (images,
      labels), a pair of such pairs (train, test), or a `ClientExamples`. Images
      are uint8 or float32[num_examples, height, width(, channels)], labels
      whole numbers or text[num_examples]. uint8 is scaled to [-1, 1], float32
      is taken as it comes.
    spec: Its `train_fraction` and `seed` divide the examples of clients that
      have no test examples; its `validation_fraction`, `image_size` and
      `channels` apply, too.

  Raises:
    TypeError: If data have another form.
    ValueError: If arrays do not fit; the client is named.
  """
  if isinstance(data, tasks.FederatedTask):
    return data
  if isinstance(data, tff.simulation.datasets.ClientData):
    task = client_data.task_from_client_data(
      data,
      train_fraction=spec.train_fraction,
      seed=spec.seed,
      image_size=spec.image_size,
      channels=spec.channels,
    )
    return validation.hold_out(task, spec.validation_fraction, seed=spec.seed)
  if isinstance(data, np.ndarray | str | bytes | Mapping) or not isinstance(
    data, Sequence
  ):
    raise TypeError(f'{_FORMS}; found {type(data).__name__}.')
  return validation.hold_out(
    _task_of_arrays(data, spec), spec.validation_fraction, seed=spec.seed
  )


def digest(task: tasks.FederatedTask) -> str:
  """Returns a SHA-256 of all examples of all clients."""
  found = hashlib.sha256()
  for client in task.clients:
    for examples in (client.train, client.test):
      for name in ('x', 'y'):
        array = np.ascontiguousarray(examples[name])
        found.update(f'{array.shape}{array.dtype}'.encode())
        found.update(array.tobytes())
  return found.hexdigest()


def _task_of_arrays(
  data: Sequence[Any], spec: task_spec.TaskSpec
) -> tasks.FederatedTask:
  clients = []
  for index, client in enumerate(data):
    try:
      parts = _parts(client)
    except TypeError as error:
      raise TypeError(f'{_FORMS}; client {index}: {error}.') from error
    if len(parts) == 1:
      parts = _divided(index, parts[0], spec)
    clients.append(parts)
  return tasks.task_from_pairs(
    clients,
    functools.partial(_input_spec, spec),
    name='own data',
    client_names=[str(index) for index in range(len(clients))],
  )


def _input_spec(
  spec: task_spec.TaskSpec, shape: Any, dtype: str
) -> input_spec_lib.InputSpec:
  is_float = dtype == 'float32'
  return input_spec_lib.InputSpec(
    shape=shape,
    dtype=dtype,
    scale=1.0 if is_float else 1.0 / 127.5,
    offset=0.0 if is_float else -1.0,
    size=None if spec.image_size is None else (spec.image_size,) * 2,
    channels=spec.channels,
  )


def _parts(client: Any) -> list[tuple[np.ndarray, np.ndarray]]:
  """Returns (images, labels) of all examples, or of train and test."""
  if isinstance(client, Mapping):
    return [_pair(client)]
  if not isinstance(client, Sequence) or len(client) != 2:
    raise TypeError(f'found {type(client).__name__}')
  first, second = client
  if hasattr(first, 'shape') and hasattr(second, 'shape'):
    return [(np.asarray(first), np.asarray(second))]
  return [_pair(first), _pair(second)]


def _pair(examples: Any) -> tuple[np.ndarray, np.ndarray]:
  if isinstance(examples, Mapping):
    if not {'x', 'y'} <= set(examples):
      raise TypeError(f'found a dict with {list(examples)}, not x and y')
    return np.asarray(examples['x']), np.asarray(examples['y'])
  if not isinstance(examples, Sequence) or len(examples) != 2:
    raise TypeError(f'found {type(examples).__name__} for (images, labels)')
  return np.asarray(examples[0]), np.asarray(examples[1])


def _divided(
  index: int,
  examples: tuple[np.ndarray, np.ndarray],
  spec: task_spec.TaskSpec,
) -> list[tuple[np.ndarray, np.ndarray]]:
  """Divides a client's examples into train and test."""
  images, labels = examples
  if len(images) != len(labels):
    raise errors.UserError(
      f'Client {index}: expected one label for each of {len(images)} images, '
      f'found {len(labels)}.'
    )
  if len(labels) < 2:
    raise errors.UserError(
      f'Client {index}: expected two examples or more, one of them to test '
      f'with, found {len(labels)}.'
    )
  order = np.random.default_rng([spec.seed, index]).permutation(len(labels))
  cut = min(int(np.ceil(spec.train_fraction * len(order))), len(order) - 1)
  return [(images[part], labels[part]) for part in (order[:cut], order[cut:])]
