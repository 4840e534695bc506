"""Class prototypes: one vector and one weight per class."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, NamedTuple, Optional

from etils import epy
import numpy as np

from tff_fedsa import settings
from tff_fedsa.runs import errors

with epy.lazy_imports():
  import tensorflow as tf
  import tensorflow_federated as tff

  from tff_fedsa.maths import distances

WEIGHTINGS = ('clients', 'examples')


@dataclasses.dataclass(frozen=True)
class ClassMeanConfig(settings.Settings):
  """Global prototypes: the server's average of clients' class means.

  Attributes:
    weighting: Weight of a client in the global prototype of a class: 1
      (clients, the reference), or its examples of the class (examples).
    keep_missing: Keep the global prototype of a class that no client sent in a
      round. The reference forgets it.
  """

  weighting: Annotated[
    str, settings.OneOf(WEIGHTINGS), settings.Flag('prototype_weighting')
  ] = 'clients'
  keep_missing: bool = True


class ClassPrototypes(NamedTuple):
  """One prototype per class.

  Attributes:
    vectors: float32[num_classes, feature_dim]. Row `c` is ignored if
      `weights[c] == 0`.
    weights: float32[num_classes], the weight of each class in a mean (see
      `upload_weights`). Zero for an absent class.
  """

  vectors: Any
  weights: Any


def prototypes_type(num_classes: int, feature_dim: int) -> tff.Type:
  """Returns the (unplaced) TFF type of a `ClassPrototypes`."""
  return tff.types.to_type(
    ClassPrototypes(
      vectors=tff.TensorType(np.float32, (num_classes, feature_dim)),
      weights=tff.TensorType(np.float32, (num_classes,)),
    )
  )


def is_prototypes_type(value_type: tff.Type) -> bool:
  """Returns whether a type is that of a `ClassPrototypes`."""
  return (
    isinstance(value_type, tff.types.StructWithPythonType)
    and value_type.python_container is ClassPrototypes
  )


def class_sums(
  features: tf.Tensor,
  labels: tf.Tensor,
  num_classes: int,
  example_weights: Optional[tf.Tensor] = None,
) -> tuple[tf.Tensor, tf.Tensor]:
  """Returns the sum of features and the number of examples per class.

  >>> features = tf.constant([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
  >>> sums, counts = class_sums(features, tf.constant([2, 0, 2]), 3)
  >>> sums.numpy().tolist()
  [[3.0, 4.0], [0.0, 0.0], [6.0, 8.0]]
  >>> counts.numpy().tolist()
  [1.0, 0.0, 2.0]

  Args:
    features: float32[batch, feature_dim].
    labels: int[batch], in `[0, num_classes)`.
    num_classes: C.
    example_weights: float32[batch]. An example of weight 0 does not count.

  Returns:
    float32[num_classes, feature_dim] and float32[num_classes].
  """
  membership = tf.one_hot(labels, num_classes, dtype=features.dtype)
  if example_weights is not None:
    membership *= example_weights[:, tf.newaxis]
  sums = tf.matmul(membership, features, transpose_a=True)
  return sums, tf.reduce_sum(membership, axis=0)


def class_means(sums: tf.Tensor, counts: tf.Tensor) -> tf.Tensor:
  """Returns `sums / counts` per class; zeros for classes without examples."""
  return tf.math.divide_no_nan(sums, counts[:, tf.newaxis])


def upload_weights(counts: tf.Tensor, weighting: str) -> tf.Tensor:
  """Returns the weight of each prototype of a client in the global mean.

  Args:
    counts: float32[num_classes], examples behind each prototype.
    weighting: `clients` (reference): 1 for every class that the client has.
      `examples`: the client's examples of the class.

  Returns:
    float32[num_classes], zero for classes that the client lacks.

  Raises:
    ValueError: For an unknown weighting.
  """
  check_weighting(weighting)
  return counts if weighting == 'examples' else tf.cast(counts > 0, tf.float32)


def check_weighting(weighting: str) -> None:
  """Raises `ValueError` for an unknown weighting."""
  if weighting not in WEIGHTINGS:
    raise errors.UserError(
      f'Unknown prototype weighting {weighting!r}; known: '
      f'{", ".join(WEIGHTINGS)}.'
    )


def mean_squared_distances(
  features: tf.Tensor, centers: tf.Tensor, present: Optional[tf.Tensor] = None
) -> tf.Tensor:
  """Returns the distances for the prediction by the nearest prototype.

  Args:
    features: float32[batch, feature_dim].
    centers: float32[num_classes, feature_dim].
    present: bool[num_classes]; all classes are present by default.

  Returns:
    float32[batch, num_classes], squared distance / feature_dim; +inf for
    classes that are not present.
  """
  if present is not None:
    # Rows of absent classes may hold anything, NaN included.
    centers = tf.where(present[:, tf.newaxis], centers, tf.zeros_like(centers))
  feature_dim = tf.cast(tf.shape(centers)[1], features.dtype)
  squared = distances.squared_distances(features, centers) / feature_dim
  if present is None:
    return squared
  return tf.where(present, squared, tf.constant(np.inf, features.dtype))


def nearest_class(
  features: tf.Tensor, centers: tf.Tensor, present: Optional[tf.Tensor] = None
) -> tf.Tensor:
  """Returns the class whose center is nearest, int32[batch].

  Source: reference code `clientSA.test_metrics`. The first class wins ties. If
  no class is present, the prediction is -1, which is never correct.

  Args:
    features: float32[batch, feature_dim].
    centers: float32[num_classes, feature_dim].
    present: bool[num_classes]; all classes are present by default.
  """
  nearest = tf.argmin(
    mean_squared_distances(features, centers, present),
    axis=1,
    output_type=tf.int32,
  )
  if present is None:
    return nearest
  return tf.where(tf.reduce_any(present), nearest, -tf.ones_like(nearest))
