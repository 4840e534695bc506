"""Checks that a Keras client model can be made functional.

Messages name layers and weights; `naming_model` puts the model's name in front.
"""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
from typing import Any

import tensorflow as tf

from tff_fedsa.models import building
from tff_fedsa.models import layer_names
from tff_fedsa.runs import errors

# Operations that turn logits into probabilities, and their activations.
_PROBABILITIES = {'Softmax': 'softmax', 'Sigmoid': 'sigmoid'}
# Operations that leave the values as they are.
_PASSING = ('Identity', 'Reshape', 'Squeeze', 'EnsureShape', 'StopGradient')


@contextlib.contextmanager
def naming_model(name: str) -> Iterator[None]:
  """Puts the model's name in front of the message of any `ValueError`.

  Other errors (of own layers and building functions) get a note.
  """
  try:
    yield
  except ValueError as error:
    raise errors.UserError(f'Model {name!r}: {error}') from error
  except Exception as error:
    error.add_note(f'In the model {name!r}.')
    raise


def check_shapes(
  extractor: tf.keras.Model,
  head: tf.keras.Model,
  declared: Any,
) -> tuple[Any, int, int]:
  """Returns the shape of an input, feature_dim and num_classes.

  Args:
    extractor: Built.
    head: Built.
    declared: The shape of one input, None if the extractor knows it.

  Raises:
    ValueError: If the two do not fit each other, or the declared shape.
  """
  inputs, features = building.input_shape_of(extractor), extractor.output_shape
  head_input, logits = head.input_shape, head.output_shape
  if len(features) != 2 or features[1] is None:
    raise errors.UserError(
      'the feature extractor must return [batch, feature_dim], found '
      f'{list(features)}. Add a Flatten or pooling layer.'
    )
  if tuple(head_input) != tuple(features):
    raise errors.UserError(
      f'the head takes {list(head_input)}, but the feature extractor returns '
      f'{list(features)} [batch, feature_dim].'
    )
  if len(logits) != 2 or logits[1] is None:
    raise errors.UserError(
      f'the head must return [batch, num_classes], found {list(logits)}.'
    )
  if isinstance(inputs, Mapping):
    takes: Any = {name: tuple(shape[1:]) for name, shape in inputs.items()}
  else:
    takes = tuple(inputs[1:])
  if declared is None:
    declared = takes
  if not fits(takes, declared):
    raise errors.UserError(
      f'expected inputs of shape {declared}, but the feature extractor takes '
      f'{takes}.'
    )
  return declared, features[1], logits[1]


def fits(takes: Any, given: Any) -> bool:
  """Returns whether a model takes inputs of a shape.

  Args:
    takes: Shape of one input, None where it may vary; a dict of several.
    given: Shape of one input; a dict of several.
  """
  if isinstance(takes, Mapping) or isinstance(given, Mapping):
    return (
      isinstance(takes, Mapping)
      and isinstance(given, Mapping)
      and takes.keys() == given.keys()
      and all(fits(takes[name], given[name]) for name in takes)
    )
  return tf.TensorShape(takes).is_compatible_with(given)


def check_layers(extractor: tf.keras.Model, head: tf.keras.Model) -> None:
  """Raises a ValueError for models that clients would train unlike Keras.

  Raises:
    ValueError: If the two share weights, a layer computes in low precision, or
      a weight has a constraint.
  """
  own = [{id(v): v.name for v in half.weights} for half in (extractor, head)]
  shared = [own[0][key] for key in own[0].keys() & own[1].keys()]
  if shared:
    raise errors.UserError(
      f'feature extractor and head share the weights {sorted(shared)}. Give '
      'each its own layers.'
    )
  for half in (extractor, head):
    for layer in half._flatten_layers():  # pylint: disable=protected-access
      if layer.compute_dtype in ('float16', 'bfloat16'):
        raise errors.UserError(
          f'expected float32 layers, found {layer.name!r} computing in '
          f'{layer.compute_dtype}. Mixed precision is not supported; use the '
          "policy 'float32'."
        )
    for variable in half.trainable_weights:
      if getattr(variable, 'constraint', None) is not None:
        raise errors.UserError(
          f'the weight {variable.name!r} has a constraint, which local '
          'optimizers do not apply. Remove it, or use a regularizer.'
        )


def check_dtypes(variables: Sequence[tf.Variable]) -> None:
  """Raises a ValueError if a weight is not float32."""
  for variable in variables:
    if variable.dtype != tf.float32:
      raise errors.UserError(
        f'expected float32 weights, found {variable.name!r} of '
        f"{variable.dtype.name}. Build the layer with dtype='float32'."
      )


def check_logits(logits: tf.Tensor, head: tf.keras.Model) -> None:
  """Raises a ValueError if the head ends with a softmax or sigmoid.

  Args:
    logits: Result of the head in its trace.
    head: The head, to name its layers.

  Raises:
    ValueError: If these are probabilities. Objectives apply the softmax
      themselves, so training would silently apply it twice.
  """
  operation = logits.op
  while operation.type in _PASSING:
    operation = operation.inputs[0].op
  activation = _PROBABILITIES.get(operation.type)
  if activation is not None:
    layer = layer_names.find(operation.name, [head])
    raise errors.UserError(
      f'expected a head that returns logits, but its layer {layer!r} ends with '
      f'a {activation}. Remove this activation (activation=None): the loss '
      'applies the softmax.'
    )
