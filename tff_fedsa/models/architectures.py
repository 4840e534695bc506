"""The registry of architectures: name -> function that builds a Keras model."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
import inspect
from typing import Any, Optional

from etils import epy
import numpy as np

from tff_fedsa.models import heads
from tff_fedsa.runs import errors

with epy.lazy_imports():
  import tensorflow as tf

  from tff_fedsa.models import functional
  from tff_fedsa.models import standardization
  from tff_fedsa.models import word_vectors

BuildFn = Callable[..., 'functional.KerasClientModel']
# What an architecture takes.
_KINDS = {True: 'integers (tokens)', False: 'numbers, e.g. images'}

_ARCHITECTURES: dict[str, BuildFn] = {}


def register_architecture(name: str) -> Callable[[BuildFn], BuildFn]:
  """Returns a decorator that registers an architecture by name.

  The decorated function takes `(input_shape, num_classes, feature_dim)` and
  returns a new `KerasClientModel` each time it is called. A function that also
  takes `vocabulary_size` builds models of integers, int32[batch, length]. For
  several inputs, `input_shape` is a dict by name, and `vocabulary_sizes`, if
  the function takes it, are those of the inputs that are tokens. A function
  that takes `masked` learns whether the last channel of series is a mask, or
  which of several inputs are such series; others get it as one more channel:

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


def check_rank(input_shape: Sequence[int], rank: int, what: str) -> None:
  """Raises a ValueError if inputs do not have as many axes as they should.

  Args:
    input_shape: Shape of one input.
    rank: The number of axes that an architecture takes.
    what: What it takes, in words.
  """
  if len(input_shape) != rank:
    raise errors.UserError(
      f'Expected {what}, found inputs of shape {tuple(input_shape)}.'
    )


def names() -> list[str]:
  """Returns the names of all registered architectures."""
  return sorted(_ARCHITECTURES)


def is_known(name: str) -> bool:
  """Returns whether `build` knows the name."""
  base, plus, head = name.partition('+')
  return base in _ARCHITECTURES and (not plus or head in heads.names())


def build_keras(
  name: str,
  input_shape: Any,
  num_classes: int,
  feature_dim: int,
  vocabulary_size: Optional[int | Mapping[str, int]] = None,
  embedding_width: Optional[int] = None,
  masked: bool | Collection[str] = (),
) -> functional.KerasClientModel:
  """Returns a new Keras model of an architecture that is known.

  Args:
    name: See `build`.
    input_shape: See `build`.
    num_classes: C.
    feature_dim: D.
    vocabulary_size: See `build`.
    embedding_width: Width of embeddings, for architectures that have one of
      their own (an argument `embedding_width`); others ignore it.
    masked: See `build`.

  Raises:
    ValueError: If the architecture is not for inputs of this kind.
  """
  base, _, head = name.partition('+')
  build_fn = _ARCHITECTURES[base]
  parameters = inspect.signature(build_fn).parameters
  takes_tokens = 'vocabulary_size' in parameters
  options: dict[str, Any] = {}
  if isinstance(input_shape, Mapping):
    if 'vocabulary_sizes' in parameters:
      options['vocabulary_sizes'] = vocabulary_size or {}
  elif 'vocabulary_sizes' in parameters:
    raise errors.UserError(
      f'The architecture {base!r} takes several inputs by name, found one of '
      f'shape {input_shape}.'
    )
  elif takes_tokens != (vocabulary_size is not None):
    raise errors.UserError(
      f'The architecture {base!r} takes {_KINDS[takes_tokens]}, found '
      f'{_KINDS[not takes_tokens]} of shape {input_shape}. A model of '
      'integers is built by a function with an argument vocabulary_size.'
    )
  elif takes_tokens:
    options['vocabulary_size'] = vocabulary_size
  if embedding_width is not None and 'embedding_width' in parameters:
    options['embedding_width'] = embedding_width
  if masked and 'masked' in parameters:
    options['masked'] = masked
  try:
    keras_model = build_fn(input_shape, num_classes, feature_dim, **options)
  except (IndexError, TypeError, ValueError) as error:
    if isinstance(error, errors.UserError):
      raise
    if isinstance(input_shape, Mapping):
      raise errors.UserError(
        f'The architecture {base!r} does not take several inputs '
        f'({", ".join(input_shape)}); --family=mixed does: {error}'
      ) from error
    if len(input_shape) == 3:
      raise
    # Most architectures take images.
    raise errors.UserError(
      f'The architecture {base!r} takes no inputs of shape '
      f'{input_shape}: {error}'
    ) from error
  if head:
    own_head = heads.build(head, feature_dim, num_classes)
    keras_model = keras_model._replace(head=own_head)
  return keras_model


def build(
  name: str,
  input_shape: Any,
  num_classes: int,
  feature_dim: int,
  *,
  vocabulary_size: Optional[int | Mapping[str, int]] = None,
  embeddings: Optional[np.ndarray] = None,
  masked: bool | Collection[str] = (),
  load_fn: Optional[Callable[[tf.keras.Model], None]] = None,
  standardized: bool = False,
) -> functional.FunctionalModel:
  """Returns the functional model of a registered architecture.

  Args:
    name: One of `names()`, or with another head of `heads.names()`, e.g.
      `resnet34+mlp256`.
    input_shape: Shape of one input, `InputSpec.model_shape`; a dict of several
      inputs by name.
    num_classes: C.
    feature_dim: D.
    vocabulary_size: `InputSpec.vocabulary_size`. None for inputs other than
      integers; a dict by name of several inputs.
    embeddings: float32[vocabulary_size, width], with which the embeddings of
      tokens start; rows of NaN start at random.
    masked: `InputSpec.masked`; names of several inputs, `PackedSpec.masked`.
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
    keras_model = build_keras(
      name,
      input_shape,
      num_classes,
      feature_dim,
      vocabulary_size,
      None if embeddings is None else embeddings.shape[1],
      masked,
    )
    if embeddings is not None:
      word_vectors.assign(keras_model.feature_extractor, embeddings)
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
