"""Natural client data: `tff.simulation.datasets.ClientData` as a task."""

from collections.abc import Iterable, Mapping
import functools
from typing import Any, Optional

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_fedsa.data import dealing
from tff_fedsa.data import elements
from tff_fedsa.data import task_spec
from tff_fedsa.data import tasks
from tff_fedsa.runs import errors


def task_from_client_data(
  train: tff.simulation.datasets.ClientData,
  test: Optional[tff.simulation.datasets.ClientData] = None,
  *,
  num_classes: Optional[int] = None,
  client_ids: Optional[Iterable[str]] = None,
  train_fraction: float = 0.75,
  seed: int = 0,
  scale: Optional[float] = None,
  offset: Optional[float] = None,
  image_size: Optional[int] = None,
  channels: Optional[int] = None,
  vocabulary_size: Optional[int] = None,
  normalization: str = 'half',
  name: str = 'client_data',
) -> tasks.FederatedTask:
  """Makes a task whose clients are those of a `ClientData`.

  Args:
    train: Each element a dict of an input (`x`, `image` or `pixels`) and a
      label (`y` or `label`), see `elements.stack`; or of a dict of several
      inputs by name.
    test: The same clients' held-out examples; by default `train_fraction` of
      each client's examples are for training, the rest for testing.
    num_classes: C; by default as many as there are distinct labels, see
      `labels.classes`.
    client_ids: Which clients to take, in this order; all by default.
    train_fraction: See `test`; in (0, 1).
    seed: Seed of the division where there is no `test`.
    scale: See `elements.input_spec_for`.
    offset: See there.
    image_size: See there.
    channels: See there.
    vocabulary_size: See there; by default what the clients' tokens need.
    normalization: See `normalization.normalized`; `scale` and `offset` go
      before it.
    name: For messages.

  Raises:
    ValueError: For unknown clients, pipelines that fail or unsuitable elements;
      the client is named, and the failure is quoted.
  """
  if not 0.0 < train_fraction < 1.0:
    raise errors.UserError(
      f'Expected train_fraction in (0, 1), found {train_fraction}.'
    )
  known = set(train.client_ids)
  if test is not None:
    known &= set(test.client_ids)
  chosen = _chosen(known, client_ids, name)
  parts: list[list[tuple[Any, np.ndarray]]] = []
  for index, client_id in enumerate(chosen):
    inputs, labels = _read(train, client_id)
    if test is not None:
      parts.append([(inputs, labels), _read(test, client_id)])
      continue
    divided = dealing.division(
      len(labels), train_fraction, seed=seed, client=index
    )
    parts.append(
      [(elements.taken(inputs, part), labels[part]) for part in divided]
    )
  if any(isinstance(inputs, Mapping) for inputs, _ in parts[0]):
    if (scale, offset, vocabulary_size) != (None, None, None):
      raise errors.UserError(
        f'{name}: several inputs have no scale, offset or vocabulary_size in '
        'common.'
      )
    return tasks.task_of_parts(
      parts,
      task_spec.TaskSpec(
        image_size=image_size, channels=channels, normalization=normalization
      ),
      num_classes=num_classes,
      name=name,
      client_names=[repr(client_id) for client_id in chosen],
    )
  return tasks.task_from_pairs(
    parts,
    functools.partial(
      elements.input_spec_for,
      scale=scale,
      offset=offset,
      image_size=image_size,
      channels=channels,
      vocabulary_size=vocabulary_size,
    ),
    num_classes=num_classes,
    name=name,
    client_names=[repr(client_id) for client_id in chosen],
    normalization=normalization if (scale, offset) == (None, None) else None,
  )


def _chosen(
  known: set[str], client_ids: Optional[Iterable[str]], name: str
) -> list[str]:
  """Returns which clients to take, checked."""
  if client_ids is None:
    chosen = sorted(known)
  elif isinstance(client_ids, str | bytes):
    raise errors.UserError(
      f'{name}: expected a sequence of client ids, found {client_ids!r}.'
    )
  else:
    # Arrays hold a text type of their own.
    chosen = [str(i) if isinstance(i, str) else i for i in client_ids]
  if not chosen:
    raise errors.UserError(f'{name}: expected at least one client, found none.')
  unknown = [client_id for client_id in chosen if client_id not in known]
  if unknown:
    raise errors.UserError(f'{name}: unknown client ids {unknown[:5]}.')
  if len(set(chosen)) < len(chosen):
    twice = next(i for i in chosen if chosen.count(i) > 1)
    raise errors.UserError(f'{name}: the client id {twice!r} is there twice.')
  return chosen


def _read(
  data: tff.simulation.datasets.ClientData, client_id: str
) -> tuple[Any, np.ndarray]:
  """Returns a client's inputs and labels; errors name the client."""
  try:
    return elements.gather(data.create_tf_dataset_for_client(client_id))
  except errors.UserError as error:
    raise errors.UserError(f'Client {client_id!r}: {error}') from error
  except tf.errors.OpError as error:
    raise errors.UserError(f'Client {client_id!r}: {error.message}') from error
  # An error of the user's own function while it makes the data set.
  except Exception as error:
    raise errors.UserError(
      f'Client {client_id!r}: its data set cannot be made: '
      f'{type(error).__name__}: {error}'
    ) from error
