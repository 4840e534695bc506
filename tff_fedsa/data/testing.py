"""How clients train and are tested: augmented, held-out, on which classes."""

from __future__ import annotations

import collections
from collections.abc import Collection
import dataclasses
import functools
from typing import Any, TYPE_CHECKING

import numpy as np

from tff_fedsa.data import client_shift
from tff_fedsa.data import mapped_clients
from tff_fedsa.data import validation

if TYPE_CHECKING:
  from tff_fedsa.data import task_spec
  from tff_fedsa.data import tasks


def prepared(
  task: tasks.FederatedTask, spec: task_spec.TaskSpec
) -> tasks.FederatedTask:
  """Returns a task as a specification wants it to be trained and tested.

  Args:
    task: A task without validation examples and augmentation.
    spec: Names them: `client_rotation`, `client_tint`, `validation_fraction`,
      `test_classes`, `seed`, and those of its `augmentation`.

  Raises:
    ValueError: See `client_shift.shifted`, `validation.hold_out`,
      `on_all_classes` and `InputSpec`.
  """
  task = client_shift.shifted(
    task,
    rotation=spec.client_rotation,
    tint=spec.client_tint,
    seed=spec.seed,
  )
  augmented = task.input_spec.having(**spec.augmentation())
  task = dataclasses.replace(task, input_spec=augmented)
  task = validation.hold_out(task, spec.validation_fraction, seed=spec.seed)
  return on_all_classes(task) if spec.test_classes == 'all' else task


def on_all_classes(task: tasks.FederatedTask) -> tasks.FederatedTask:
  """Returns the task in which each client has the test examples of all clients.

  Train and validation examples do not change. All clients share one array.

  Args:
    task: A task whose clients have test examples of their own.

  Raises:
    ValueError: If the inputs stay on disk, so joining them could fill the
      memory.
  """
  in_memory = mapped_clients.in_memory(
    task.clients,
    f'{task.name}: test_classes=all joins the test examples of all clients, '
    'but these images stay on disk. Use test_set=original, which tests every '
    "client on the data set's own test set, of all classes.",
  )
  tests = [client.test for client in in_memory]
  joined = collections.OrderedDict(
    (name, np.concatenate([test[name] for test in tests])) for name in tests[0]
  )
  clients = tuple(client._replace(test=joined) for client in in_memory)
  return dataclasses.replace(task, clients=clients)


def without_tests(
  task: tasks.FederatedTask, client_ids: Collection[int]
) -> tasks.FederatedTask:
  """Returns a task in which some clients have nothing to be tested on.

  Args:
    task: The task.
    client_ids: Clients whose test and validation examples are left out.
  """
  if not client_ids:
    return task
  clients: list[Any] = list(task.clients)
  validation_fns = list(task.validation_fns)
  for client_id in client_ids:
    test = task.clients[client_id].test
    clients[client_id] = clients[client_id].with_test(_none_of(test))
    if validation_fns:
      validation_fns[client_id] = functools.partial(_none_of, test)
  return dataclasses.replace(
    task, clients=tuple(clients), validation_fns=tuple(validation_fns)
  )


def _none_of(examples: Any) -> Any:
  return collections.OrderedDict(
    (name, array[:0]) for name, array in examples.items()
  )
