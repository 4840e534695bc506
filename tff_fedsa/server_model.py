"""What the server of FedSA knows: anchors and global prototypes."""

from typing import Any, NamedTuple

import numpy as np
import tensorflow_federated as tff


class ServerModel(NamedTuple):
  """The server's knowledge.

  Attributes:
    anchors: float32[num_classes, feature_dim], the semantic anchors.
    prototypes: float32[num_classes, feature_dim], global prototypes; zeros
      where `present` is False.
    present: bool[num_classes], classes that have a global prototype.
  """

  anchors: Any
  prototypes: Any
  present: Any


def server_model_type(num_classes: int, feature_dim: int) -> tff.Type:
  """Returns the (unplaced) TFF type of a `ServerModel`."""
  table = tff.TensorType(np.float32, (num_classes, feature_dim))
  return tff.types.to_type(
    ServerModel(
      anchors=table,
      prototypes=table,
      present=tff.TensorType(np.bool_, (num_classes,)),
    )
  )


def initial_server_model(anchors: np.ndarray) -> ServerModel:
  """Returns the model before the first round: anchors, no prototype.

  Raises:
    ValueError: If `anchors` is not a finite float table of rank 2.
  """
  anchors = np.asarray(anchors)
  if (
    anchors.ndim != 2
    or not np.issubdtype(anchors.dtype, np.floating)
    or not np.isfinite(anchors).all()
  ):
    raise ValueError(
      'Expected finite anchors float32[num_classes, feature_dim], found '
      f'{anchors.dtype}{list(anchors.shape)}.'
    )
  anchors = anchors.astype(np.float32)
  return ServerModel(
    anchors=anchors,
    prototypes=np.zeros_like(anchors),
    present=np.zeros(anchors.shape[:1], np.bool_),
  )
