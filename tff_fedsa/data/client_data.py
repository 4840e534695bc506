"""Natural client data: `tff.simulation.datasets.ClientData` as a task."""

import collections
from collections.abc import Sequence
from typing import Any, Optional

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_fedsa.data import elements
from tff_fedsa.data import tasks


def task_from_client_data(
  train: tff.simulation.datasets.ClientData,
  test: Optional[tff.simulation.datasets.ClientData] = None,
  *,
  num_classes: int,
  client_ids: Optional[Sequence[str]] = None,
  train_fraction: float = 0.75,
  seed: int = 0,
  scale: Optional[float] = None,
  offset: Optional[float] = None,
  image_size: Optional[int] = None,
  channels: Optional[int] = None,
  name: str = 'client_data',
) -> tasks.FederatedTask:
  """Makes a task whose clients are those of a `ClientData`.

  Args:
    train: Each element a dict of an image (`x`, `image` or `pixels`) and an
      integer label (`y` or `label`).
    test: The same clients' held-out examples; by default `train_fraction` of
      each client's examples are for training, the rest for testing.
    num_classes: C.
    client_ids: Which clients to take, in this order; all by default.
    train_fraction: See `test`.
    seed: Of the division where there is no `test`.
    scale: Models see `x * scale + offset`; by default [0, 255] of uint8, and
      [0, 1] of float images, is mapped to [-1, 1].
    offset: See `scale`.
    image_size: Images are resized to this many pixels square in the step.
    channels: Images get this many channels by repetition.
    name: For messages.

  Raises:
    ValueError: For unknown clients or unsuitable elements; the client is named.
  """
  known = set(train.client_ids)
  if test is not None:
    known &= set(test.client_ids)
  client_ids = list(client_ids or sorted(known))
  unknown = [client_id for client_id in client_ids if client_id not in known]
  if unknown:
    raise ValueError(f'{name}: unknown client ids {unknown[:5]}.')
  clients = []
  for index, client_id in enumerate(client_ids):
    examples = _stacked(train, client_id)
    if test is not None:
      clients.append(tasks.ClientExamples(examples, _stacked(test, client_id)))
      continue
    order = np.random.default_rng([seed, index]).permutation(len(examples['y']))
    cut = int(np.ceil(train_fraction * len(order)))
    clients.append(
      tasks.ClientExamples(
        *(
          {k: v[part] for k, v in examples.items()}
          for part in (order[:cut], order[cut:])
        )
      )
    )
  spec = elements.input_spec_of(
    train.element_type_structure,
    scale=scale,
    offset=offset,
    image_size=image_size,
    channels=channels,
  )
  return tasks.task_from_clients(
    clients, spec, tuple(map(str, range(num_classes))), name=name
  )


def _stacked(data: tff.simulation.datasets.ClientData, client_id: str) -> Any:
  dataset = data.create_tf_dataset_for_client(client_id)
  try:
    examples = elements.stack(dataset)
  except ValueError as error:
    raise ValueError(f'Client {client_id!r}: {error}') from error
  except tf.errors.InvalidArgumentError as error:
    raise ValueError(f'Client {client_id!r} has no example.') from error
  return collections.OrderedDict(
    (name, part.numpy()) for name, part in examples.items()
  )
