"""The registry of architectures: name -> function that builds a Keras model."""

from collections.abc import Callable

from tff_fedsa.models import functional

BuildFn = Callable[
  [tuple[int, int, int], int, int], functional.KerasClientModel
]
_ARCHITECTURES: dict[str, BuildFn] = {}


def register_architecture(name: str) -> Callable[[BuildFn], BuildFn]:
  """Returns a decorator that makes an architecture known by a name.

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
    raise ValueError(
      f"Expected a name of letters, digits, '_' and '-', found {name!r}."
    )
  if name in _ARCHITECTURES:
    raise ValueError(f'An architecture {name!r} is registered already.')

  def register(build_fn: BuildFn) -> BuildFn:
    _ARCHITECTURES[name] = build_fn
    return build_fn

  return register


def names() -> list[str]:
  """Returns the names of all registered architectures."""
  return sorted(_ARCHITECTURES)


def build(
  name: str,
  input_shape: tuple[int, int, int],
  num_classes: int,
  feature_dim: int,
) -> functional.FunctionalModel:
  """Returns the functional model of a registered architecture.

  Args:
    name: One of `names()`.
    input_shape: (height, width, channels), `InputSpec.model_shape`.
    num_classes: C.
    feature_dim: D.

  Raises:
    ValueError: If the name is unknown, or the architecture does not fit the
      shapes.
  """
  if name not in _ARCHITECTURES:
    raise ValueError(
      f'Unknown architecture {name!r}; known: {", ".join(names())}.'
    )

  def build_fn() -> functional.KerasClientModel:
    return _ARCHITECTURES[name](input_shape, num_classes, feature_dim)

  model = functional.FunctionalModel(
    build_fn, name=name, input_shape=input_shape
  )
  found = (model.feature_dim, model.num_classes)
  if found != (feature_dim, num_classes):
    raise ValueError(
      f'The architecture {name!r} should have (feature_dim, num_classes) = '
      f'{(feature_dim, num_classes)}, found {found}.'
    )
  return model
