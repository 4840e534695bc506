"""Sends the anchors from the server to the clients."""

import tensorflow_federated as tff

from tff_fedsa import server_model


def build_anchor_distributor(
  num_classes: int, feature_dim: int
) -> tff.learning.templates.DistributionProcess:
  """Returns the process that broadcasts the anchors and nothing else.

  Its `next` has the type
  `(<S@SERVER, M@SERVER> -> <state=S@SERVER, result=A@CLIENTS,
  measurements=<>@SERVER>)`, `M` being `server_model.ServerModel` and `A`
  `float32[num_classes, feature_dim]`, the same for all clients. Clients need
  no prototypes of others to train, so these stay at the server.
  """
  model_type = server_model.server_model_type(num_classes, feature_dim)
  broadcast = tff.learning.templates.build_broadcast_process(model_type.anchors)

  @tff.federated_computation(
    broadcast.initialize.type_signature.result,
    tff.FederatedType(model_type, tff.SERVER),
  )
  def next_fn(state, model):
    return broadcast.next(state, model.anchors)

  return tff.learning.templates.DistributionProcess(
    broadcast.initialize, next_fn
  )
