"""Sends clients the parts of the server's model that they need."""

from collections.abc import Callable
import functools
from typing import Any

import tensorflow_federated as tff

from tff_fedsa.server import server_model


class Distributor(tff.learning.templates.DistributionProcess):
  """A distribution process that tells what it sends.

  Attributes:
    select: `(M@SERVER -> B@SERVER)`: the part of the model that clients get.
  """

  def __init__(
    self,
    initialize_fn: tff.Computation,
    next_fn: tff.Computation,
    select: tff.Computation,
  ):
    super().__init__(initialize_fn, next_fn)
    self.select = select


def build_distributor(
  model_type: tff.Type, select_fn: Callable[[Any], Any] = lambda model: model
) -> Distributor:
  """Returns the process that broadcasts the model, or a part of it.

  Its `next` has the type `(<S@SERVER, M@SERVER> -> <state=S@SERVER,
  result=B@CLIENTS, measurements=<>@SERVER>)`, the same `B` for all clients.

  Args:
    model_type: Unplaced type of the server's model, M.
    select_fn: Returns the part of the model to send, for the model as a
      federated value at the server. Default: the whole model.
  """
  placed_type = tff.FederatedType(model_type, tff.SERVER)
  select = tff.federated_computation(lambda m: select_fn(m), placed_type)
  broadcast = tff.learning.templates.build_broadcast_process(
    select.type_signature.result.member
  )

  @tff.federated_computation(
    broadcast.initialize.type_signature.result, placed_type
  )
  def next_fn(state, model):
    return broadcast.next(state, select(model))

  return Distributor(broadcast.initialize, next_fn, select)


@functools.lru_cache
def build_anchor_distributor(num_classes: int, feature_dim: int) -> Distributor:
  """Returns the process that broadcasts only the anchors.

  See `build_distributor`. The model is a `server_model.ServerModel`. Clients
  need no global prototypes for training, so these stay at the server.
  """
  return build_distributor(
    server_model.server_model_type(num_classes, feature_dim),
    lambda model: model.anchors,
  )
