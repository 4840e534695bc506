"""The registry of architectures: name -> function that builds a Keras model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Optional

from etils import epy

from tff_fedsa.models import heads
from tff_fedsa.runs import errors

with epy.lazy_imports():
  import tensorflow as tf

  from tff_fedsa.models import functional
  from tff_fedsa.models import standardization

BuildFn = Callable[
  [tuple[int, int, int], int, int], 'functional.KerasClientModel'
]
_ARCHITECTURES: dict[str, BuildFn] = {}


def register_architecture(name: str) -> Callable[[BuildFn], BuildFn]:
  """Returns a decorator that registers an architecture by name.

  The decorated function takes `(input_shape, num_classes, feature_dim)` and
  returns a new `KerasClientModel` each time it is called:

    @architectures.register_architecture('my_net')
    def my_net(input_shape, num_classes, feature_dim):
      images = tf.keras.Input(input_shape)
      hidden = tf.keras.layers.Conv2D(32, 3, activation='relu')(images)
      features = pooling.adaptive_average_pooling(hidden, feature_dim)
      return functional.KerasClientModel(
        feature_extractor=tf.keras.Model(images, features),
        head=initializers.linear_head(feature_dim, num_classes),
      )

  Args:
    name: Letters, digits, '_' and '-'.

  Raises:
    ValueError: If the name is taken or has other characters.
  """
  if not name.replace('_', '').replace('-', '').isalnum():
    raise errors.UserError(
      f"Expected a name of letters, digits, '_' and '-', found {name!r}."
    )
  if name in _ARCHITECTURES:
    raise errors.UserError(f'An architecture {name!r} is registered already.')

  def register(build_fn: BuildFn) -> BuildFn:
    _ARCHITECTURES[name] = build_fn
    return build_fn

  return register


def names() -> list[str]:
  """Returns the names of all registered architectures."""
  return sorted(_ARCHITECTURES)


def is_known(name: str) -> bool:
  """Returns whether `build` knows the name."""
  base, plus, head = name.partition('+')
  return base in _ARCHITECTURES and (not plus or head in heads.names())


def build_keras(
  name: str,
  input_shape: tuple[int, int, int],
  num_classes: int,
  feature_dim: int,
) -> functional.KerasClientModel:
  """Returns a new Keras model of a registered architecture."""
  base, _, head = name.partition('+')
  keras_model = _ARCHITECTURES[base](input_shape, num_classes, feature_dim)
  if head:
    own_head = heads.build(head, feature_dim, num_classes)
    keras_model = keras_model._replace(head=own_head)
  return keras_model


def build(
  name: str,
  input_shape: tuple[int, int, int],
  num_classes: int,
  feature_dim: int,
  *,
  load_fn: Optional[Callable[[tf.keras.Model], None]] = None,
  standardized: bool = False,
) -> functional.FunctionalModel:
  """Returns the functional model of a registered architecture.

  Args:
    name: One of `names()`, or with another head of `heads.names()`, e.g.
      `resnet34+mlp256`.
    input_shape: (height, width, channels), `InputSpec.model_shape`.
    num_classes: C.
    feature_dim: D.
    load_fn: Assigns initial weights to a feature extractor, e.g. with
      `pretrained.load`.
    standardized: Whether to standardize features, see `standardization`.

  Raises:
    ValueError: If the name is unknown, or the architecture does not fit the
      shapes.
  """
  if not is_known(name):
    raise errors.UserError(
      f'Unknown architecture {name!r}; known: {", ".join(names())}; each also '
      f'with another head, as in resnet34+mlp256: {", ".join(heads.names())}.'
    )

  def build_fn() -> functional.KerasClientModel:
    keras_model = build_keras(name, input_shape, num_classes, feature_dim)
    if load_fn is not None:
      load_fn(keras_model.feature_extractor)
    if standardized:
      keras_model = standardization.standardize(keras_model)
    return keras_model

  model = functional.FunctionalModel(
    build_fn, name=name, input_shape=input_shape
  )
  found = (model.feature_dim, model.num_classes)
  if found != (feature_dim, num_classes):
    raise errors.UserError(
      f'The architecture {name!r} should have (feature_dim, num_classes) = '
      f'{(feature_dim, num_classes)}, found {found}.'
    )
  return model
