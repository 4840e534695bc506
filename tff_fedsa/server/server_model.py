"""Server models of the methods.

Each method has its own NamedTuple. The following fields mean the same in every
method. Evaluation, metrics, figures and export use those that a model has:

- `anchors`: float32[num_classes, feature_dim];
- `prototypes`: float32[num_classes, feature_dim], global prototypes, and
  `present`: bool[num_classes], whether a class has one;
- `head`: the weights of a classifier head for all clients, a tuple of tensors;
- `weights`: float32[tiers.num_weights], the averaged ones with which clients of
  each architecture begin a round, one architecture after the other (see
  `averaging` and `models.tiers`).
"""

import collections
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Optional

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_fedsa.maths import margins
from tff_fedsa.models import functional
from tff_fedsa.runs import errors


class ServerModel(NamedTuple):
  """The knowledge of FedSA's server.

  Attributes:
    anchors: float32[num_classes, feature_dim], the semantic anchors.
    prototypes: float32[num_classes, feature_dim], global prototypes, or zeros
      where `present` is False.
    present: bool[num_classes], classes that have a global prototype.
  """

  anchors: Any
  prototypes: Any
  present: Any


class StatisticsModel(NamedTuple):
  """The knowledge of FedSA's server that learns variances of features, too.

  Attributes:
    anchors: As in `ServerModel`.
    prototypes: As in `ServerModel`.
    present: As in `ServerModel`.
    squares: float32[num_classes, feature_dim], mean squares of features, or
      zeros where `present` is False.
  """

  anchors: Any
  prototypes: Any
  present: Any
  squares: Any


class PrototypeModel(NamedTuple):
  """The knowledge of a server with global prototypes only.

  Attributes:
    prototypes: float32[num_classes, feature_dim], or zeros where `present` is
      False.
    present: bool[num_classes], classes that have a global prototype.
  """

  prototypes: Any
  present: Any


class HeadModel(NamedTuple):
  """The knowledge of a server with one head for all clients.

  Attributes:
    head: Tuple of float32 tensors, the trainable weights of the head.
  """

  head: Any


def reference_of(known: Any) -> Optional[tf.Tensor]:
  """Returns vectors near which the class means of a round are expected.

  Args:
    known: Anchors, or what has `anchors`, or `present` and either `prototypes`
      or `logits`: a server's model, or a part that clients receive.

  Returns:
    float32[num_classes, dim], 0 for classes that have none; None if nothing of
    this kind is known. Where `squares` are sent with class means, those of the
    anchors follow.
  """
  if hasattr(known, 'squares'):
    return tf.concat([known.anchors, tf.square(known.anchors)], axis=1)
  if hasattr(known, 'anchors'):
    return known.anchors
  if isinstance(known, tf.Tensor):
    return known
  for name in ('prototypes', 'logits'):
    if hasattr(known, 'present') and hasattr(known, name):
      table = getattr(known, name)
      present = known.present[:, tf.newaxis]
      return tf.where(present, table, tf.zeros_like(table))
  return None


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


def statistics_model_type(num_classes: int, feature_dim: int) -> tff.Type:
  """Returns the (unplaced) TFF type of a `StatisticsModel`."""
  plain = server_model_type(num_classes, feature_dim)
  return tff.types.to_type(
    StatisticsModel(
      anchors=plain.anchors,
      prototypes=plain.prototypes,
      present=plain.present,
      squares=plain.prototypes,
    )
  )


def prototype_model_type(num_classes: int, feature_dim: int) -> tff.Type:
  """Returns the (unplaced) TFF type of a `PrototypeModel`."""
  return tff.types.to_type(
    PrototypeModel(
      prototypes=tff.TensorType(np.float32, (num_classes, feature_dim)),
      present=tff.TensorType(np.bool_, (num_classes,)),
    )
  )


def head_model_type(head_specs: Sequence[tf.TensorSpec]) -> tff.Type:
  """Returns the (unplaced) TFF type of a `HeadModel`.

  Args:
    head_specs: `FunctionalModel.head_specs`.
  """
  return tff.types.to_type(
    HeadModel(
      tuple(tff.TensorType(np.float32, tuple(s.shape)) for s in head_specs)
    )
  )


def initial_server_model(anchors: np.ndarray) -> ServerModel:
  """Returns the model before the first round: anchors, no prototypes.

  Raises:
    ValueError: If `anchors` is not a finite float array of rank 2.
  """
  anchors = np.asarray(anchors)
  if (
    anchors.ndim != 2
    or not np.issubdtype(anchors.dtype, np.floating)
    or not np.isfinite(anchors).all()
  ):
    raise errors.UserError(
      'Expected finite anchors float32[num_classes, feature_dim], found '
      f'{anchors.dtype}{list(anchors.shape)}.'
    )
  anchors = anchors.astype(np.float32)
  return ServerModel(anchors, *initial_prototype_model(*anchors.shape))


def with_squares(model: ServerModel) -> StatisticsModel:
  """Returns a model before the first round that learns squares, too."""
  return StatisticsModel(*model, squares=np.zeros_like(model.prototypes))


def initial_head_model(
  model: functional.FunctionalModel, seed: int
) -> HeadModel:
  """Returns the model before the first round: an untrained head.

  Args:
    model: The architecture of the head.
    seed: Seed of `FunctionalModel.initial_weights`.
  """
  head = model.head_of(tf.constant(model.initial_weights(seed)))
  return HeadModel(tuple(weight.numpy() for weight in head))


def initial_prototype_model(
  num_classes: int, feature_dim: int
) -> PrototypeModel:
  """Returns the model before the first round: no prototypes."""
  return PrototypeModel(
    prototypes=np.zeros([num_classes, feature_dim], np.float32),
    present=np.zeros([num_classes], np.bool_),
  )


def build_server_metrics_fn(
  initial_model: Any,
) -> Callable[[Any], Mapping[str, float]]:
  """Returns a function that describes the model of a server state.

  If the model has anchors, the result has `anchor_separation_min` and
  `anchor_separation_mean` (distance of an anchor to the nearest other anchor)
  and `anchor_drift` (mean distance of an anchor from its initial place). If the
  model has class means, the result has `classes_present`.

  Args:
    initial_model: The server's model before the first round.
  """

  def server_metrics_fn(state: Any) -> Mapping[str, float]:
    found: dict[str, float] = collections.OrderedDict()
    model = state.model
    if hasattr(model, 'anchors'):
      nearest = margins.nearest_class_distances(
        tf.constant(model.anchors)
      ).numpy()
      moved = np.linalg.norm(model.anchors - initial_model.anchors, axis=1)
      found['anchor_separation_min'] = float(nearest.min())
      found['anchor_separation_mean'] = float(nearest.mean())
      found['anchor_drift'] = float(moved.mean())
    if hasattr(model, 'present'):
      found['classes_present'] = int(np.sum(model.present))
    return found

  return server_metrics_fn
