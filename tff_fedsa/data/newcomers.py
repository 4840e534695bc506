"""Clients that never train: how models serve clients who join later."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Any, TYPE_CHECKING

if TYPE_CHECKING:
  from tff_fedsa.data import tasks


def split(
  task: tasks.FederatedTask, num_held_out: int
) -> tuple[tasks.FederatedTask, Mapping[int, Any]]:
  """Returns the task of the clients that train, and the other clients by id.

  Args:
    task: Data of all clients.
    num_held_out: Clients that never train, the last ones, >= 0 and fewer than
      there are.
  """
  if not num_held_out:
    return task, {}
  kept = task.num_clients - num_held_out
  partition = task.partition
  if partition is not None:
    partition = dataclasses.replace(
      partition,
      train=partition.train[:kept],
      test=partition.test[:kept],
      client_names=partition.client_names[:kept],
    )
  trained = dataclasses.replace(
    task,
    clients=task.clients[:kept],
    partition=partition,
    validation_fns=task.validation_fns[:kept],
    client_names=task.client_names[:kept],
  )
  return trained, dict(enumerate(task.clients[kept:], kept))
