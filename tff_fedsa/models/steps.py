"""Traces the calls of Keras models as pure functions, as `fit` does."""

from collections.abc import Callable, Sequence
import re
from typing import Any, NamedTuple

import tensorflow as tf
from tensorflow.python.autograph.core import ag_ctx

from tff_fedsa.models import checks
from tff_fedsa.models import keras_classes
from tff_fedsa.models import purity
from tff_fedsa.runs import errors

# Exceptions that Keras raises if a layer's call fails.
_LAYER_ERRORS = (
  AttributeError,
  NotImplementedError,
  RuntimeError,
  TypeError,
  ValueError,
)
_KERAS_MESSAGE = re.compile(
  r'Exception encountered when calling layer '
  r'[\'"](?P<layer>[^\'"]+)[\'"].*?\n\n'
  r'(?P<problem>.*?)(\n\nCall arguments received by .*)?',
  re.DOTALL,
)


class TrainingCall(NamedTuple):
  """A model's call on a batch in training mode, during a trace.

  Attributes:
    features: float32[batch, feature_dim].
    logits: float32[batch, num_classes].
    head_fn: The head as a function of features.
    penalties: Penalties of Keras layers, parts of the loss.
    state_fn: Returns the list of non-trainable weights after the batch.
  """

  features: tf.Tensor
  logits: tf.Tensor
  head_fn: Callable[[tf.Tensor], tf.Tensor]
  penalties: Sequence[tf.Tensor]
  state_fn: Callable[[], list[tf.Tensor]]


class StepOutput(NamedTuple):
  """Result of a training step's computation.

  Attributes:
    gradients: Gradients of the loss, one per trainable weight, with its static
      shape.
    state: List of non-trainable weights after the batch.
    features: float32[batch, feature_dim], before the update.
    logits: float32[batch, num_classes], before the update.
    losses: Dict of float32 scalars, the terms of the objective. `loss` includes
      the penalties of Keras layers.
  """

  gradients: Any
  state: Any
  features: Any
  logits: Any
  losses: Any


def objective_seed(seed: tf.Tensor) -> tf.Tensor:
  """Returns the seed of an objective's draws in a step, int32[2]."""
  # The generators of layers count from 1.
  return tf.random.experimental.stateless_fold_in(seed, 0)


def call(half: tf.keras.Model, inputs: tf.Tensor, training: bool) -> tf.Tensor:
  """Calls Keras as `fit` does: Python conditions become graph conditions.

  Raises:
    ValueError: If a layer cannot be traced. The message names it.
  """
  try:
    with ag_ctx.ControlStatusCtx(ag_ctx.Status.ENABLED):
      return half(inputs, training=training)
  except _LAYER_ERRORS as error:
    raise errors.UserError(_explain(error)) from error


def call_head(
  head: tf.keras.Model, features: tf.Tensor, training: bool
) -> tf.Tensor:
  """Returns the head's logits.

  Raises:
    ValueError: If the head returns probabilities, see `checks.check_logits`.
  """
  logits = call(head, features, training)
  checks.check_logits(logits, head)
  return logits


def trace(
  name: str,
  halves: Sequence[tf.keras.Model],
  fn: Callable[..., Any],
  *specs: Any,
) -> Callable[..., Any]:
  """Traces a function that calls Keras models, and checks that it is pure.

  Args:
    name: Name of the model, for errors.
    halves: All Keras models that `fn` calls.
    fn: Function of tensors.
    *specs: Specifications of the arguments of `fn`.

  Raises:
    ValueError: See `FunctionalModel.build_train_step`.
  """
  for half in halves:
    keras_classes.restore(half)
  with checks.naming_model(name):
    try:
      # Not inlined into the loop over batches, where TensorFlow may miss its
      # fast kernels for gradients of pooling.
      concrete = tf.function(
        fn, autograph=False, experimental_attributes={'_noinline': True}
      ).get_concrete_function(*specs)
    finally:
      # Keras keeps the symbolic losses of a call, which belong to this graph.
      for half in halves:
        half._clear_losses()  # pylint: disable=protected-access
    purity.check_pure(concrete, halves)
  return concrete


def _explain(error: Exception) -> str:
  """Returns the layer and the problem, without Keras's list of arguments."""
  found = _KERAS_MESSAGE.fullmatch(str(error).rstrip())
  layer, problem = found.group('layer', 'problem') if found else (None, error)
  # A bound weight that is trained is a tensor.
  if isinstance(error, AttributeError) and "'assign" in str(problem):
    problem = (
      'assigns to one of its trainable weights during a call, which is not '
      'supported. Make the weight `trainable=False`, or assign elsewhere.'
    )
  return f'layer {layer!r}: {problem}' if layer else str(problem)
