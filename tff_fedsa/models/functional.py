"""Keras client models as pure functions over one flat float32 vector.

A client's weights are a value that moves between round loop, store and TFF
computations. They are not variables of a Python object. A Keras model is built
once, eagerly. While one of its functions is traced, its weights are tensors,
and its random numbers follow from a seed (see `binding`). The traced graphs
contain no variables and no captured values. So they are small, and any
`tff.tensorflow.computation` can call them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
from typing import Any, NamedTuple, Optional

import numpy as np
import tensorflow as tf

from tff_fedsa.data import input_spec as input_spec_lib
from tff_fedsa.execution import versions
from tff_fedsa.maths import gradients as gradients_lib
from tff_fedsa.models import binding
from tff_fedsa.models import building
from tff_fedsa.models import checks
from tff_fedsa.models import seeding
from tff_fedsa.models import steps
from tff_fedsa.runs import errors

# Seed of the Keras model that is traced, and the default of `model_seed`.
_TRACED_SEED = 0


class KerasClientModel(NamedTuple):
  """The two halves of a client's model.

  Attributes:
    feature_extractor: Maps inputs, float32 or int32 tokens, to features
      `[batch, feature_dim]`.
    head: Maps features to logits `[batch, num_classes]`.
  """

  feature_extractor: tf.keras.Model
  head: tf.keras.Model


class FunctionalModel:
  """A Keras client model as pure functions of its weights.

  The flat vector holds first the trainable weights (extractor, then head, each
  in Keras's order) and then the state: non-trainable weights such as BatchNorm
  statistics and weights of frozen layers. Each is flattened in row-major order.
  Values of Keras layers that are not float32 (the example count of
  `Normalization`) do not change.

  Penalties such as `kernel_regularizer` are part of the loss. Other features of
  Keras's `fit` and optimizers are refused (`kernel_constraint`, mixed
  precision).

  Attributes:
    name: Appears in error messages.
    input_shape: Shape of one input, (height, width, channels) of images; a dict
      of several inputs by name.
    feature_dim: D.
    num_classes: C.
    trainable_specs: A `tf.TensorSpec` for each trainable weight.
    state_specs: A `tf.TensorSpec` for each non-trainable weight.
    head_specs: The part of `trainable_specs` that belongs to the head.
    head_state_specs: The last of `state_specs`, those of the head.
    num_weights: Length of the flat vector.
    num_trainable: Length of its trainable part.
  """

  def __init__(
    self,
    build_fn: Callable[[], KerasClientModel],
    *,
    name: str = 'model',
    input_shape: Any = None,
  ):
    """Builds the model and checks that it can be made functional.

    Args:
      build_fn: Returns a new Keras model at each call, with new layers and
        initializers. A reused initializer would give the same weights for every
        seed.
      name: Appears in error messages.
      input_shape: Shape of one input. Needed only for models that do not
        know it: subclassed models before their first call, and Sequential
        models without an Input.

    Raises:
      TypeError: If `build_fn` does not return a pair of Keras models.
      ValueError: If the model is unsuitable. The message names the layer or
        weight, the expected value and a remedy.
      versions.VersionError: If Keras or TensorFlow have an unsupported version.
    """
    versions.require('models')
    self.name = name
    self._build_fn = build_fn
    self._declared_shape = (
      tuple(input_shape) if isinstance(input_shape, Sequence) else input_shape
    )
    self._keras_model = self._new_keras_model(_TRACED_SEED)
    with checks.naming_model(name):
      self.input_shape, self.feature_dim, self.num_classes = (
        checks.check_shapes(*self._keras_model, self._declared_shape)
      )
      checks.check_layers(*self._keras_model)
      self._trainable, self._state = _weights_of(self._keras_model)
      self._binding = binding.Binding(
        self._keras_model, self._trainable + self._state
      )
    self.trainable_specs = _specs(self._trainable)
    self.state_specs = _specs(self._state)
    self.head_specs = _specs(self._keras_model.head.trainable_weights)
    of_extractor = len(_weights_of(self._keras_model[:1])[1])
    self.head_state_specs = self.state_specs[of_extractor:]
    self._sizes = [
      spec.shape.num_elements()
      for spec in self.trainable_specs + self.state_specs
    ]
    self.num_weights = sum(self._sizes)
    self.num_trainable = sum(self._sizes[: len(self._trainable)])

  @classmethod
  def from_keras(
    cls, keras_model: KerasClientModel, *, name: str = 'model'
  ) -> 'FunctionalModel':
    """Makes a built Keras model functional, with its present weights.

    `initial_weights` of the result returns these weights for every seed. The
    given model is copied and does not change.

    Raises:
      ValueError: If the model cannot be copied (a subclassed one without
        `get_config`).
    """
    halves = KerasClientModel(*keras_model)
    weights = [half.get_weights() for half in halves]

    def build_fn() -> KerasClientModel:
      return KerasClientModel(*map(building.copy_half, halves, weights))

    return cls(build_fn, name=name)

  def copy(self) -> 'FunctionalModel':
    """Returns the same architecture with its own Keras layers."""
    return FunctionalModel(
      self._build_fn, name=self.name, input_shape=self._declared_shape
    )

  @property
  def halves(self) -> tuple[tf.keras.Model, tf.keras.Model]:
    """The traced Keras models. Their weights belong to no client."""
    return tuple(self._keras_model)

  # Weights.

  def initial_weights(self, seed: int) -> np.ndarray:
    """Returns the initial weights, float32[num_weights].

    They depend only on the architecture and the seed. The global random state
    of the caller (Python, NumPy, TensorFlow) does not change.

    Args:
      seed: Any integer.
    """
    if seed == _TRACED_SEED:
      # Its weights are never assigned, and building again takes seconds.
      return self.weights_from_keras(self._keras_model)
    return self.weights_from_keras(self._new_keras_model(seed))

  def weights_from_keras(self, keras_model: KerasClientModel) -> np.ndarray:
    """Returns the flat vector of a Keras model of this architecture.

    Raises:
      ValueError: If the model's weights are not those of this architecture.
    """
    with checks.naming_model(self.name):
      trainable, state = _weights_of(KerasClientModel(*keras_model))
    found, expected = (
      ([tuple(spec.shape) for spec in t], [tuple(spec.shape) for spec in s])
      for t, s in (
        (_specs(trainable), _specs(state)),
        (self.trainable_specs, self.state_specs),
      )
    )
    if found != expected:
      raise errors.UserError(
        f'Model {self.name!r}: expected a Keras model with trainable and other '
        f'weights of shapes {expected}, found {found}.'
      )
    return np.concatenate(
      [np.zeros([0], np.float32)]
      + [np.asarray(v).ravel() for v in trainable + state]
    )

  def to_keras(self, weights: np.ndarray) -> KerasClientModel:
    """Returns a new Keras model that holds the given weights.

    Args:
      weights: float32[num_weights].

    Raises:
      ValueError: If `weights` has another size.
    """
    weights = np.asarray(weights, np.float32)
    if weights.shape != (self.num_weights,):
      raise errors.UserError(
        f'Model {self.name!r}: expected weights of shape '
        f'({self.num_weights},), found {weights.shape}.'
      )
    keras_model = self._new_keras_model(_TRACED_SEED)
    variables = [v for group in _weights_of(keras_model) for v in group]
    parts = np.split(weights, np.cumsum(self._sizes)[:-1])
    for variable, part in zip(variables, parts):
      variable.assign(part.reshape(variable.shape))
    return keras_model

  def split(
    self, weights: tf.Tensor
  ) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """Returns the trainable and the other weights of a flat vector."""
    parts = tf.split(tf.ensure_shape(weights, [self.num_weights]), self._sizes)
    specs = self.trainable_specs + self.state_specs
    tensors = [tf.reshape(p, spec.shape) for p, spec in zip(parts, specs)]
    cut = len(self.trainable_specs)
    return tensors[:cut], tensors[cut:]

  def flatten(
    self, trainable: Sequence[tf.Tensor], state: Sequence[tf.Tensor]
  ) -> tf.Tensor:
    """Returns the flat vector of weights as `split` returns them."""
    return tf.concat(
      [tf.reshape(tensor, [-1]) for tensor in (*trainable, *state)], axis=0
    )

  def head_of(self, weights: tf.Tensor) -> list[tf.Tensor]:
    """Returns the trainable weights of the head, from a flat vector."""
    trainable, _ = self.split(weights)
    return trainable[len(trainable) - len(self.head_specs) :]

  def with_head(
    self, weights: tf.Tensor, head: Sequence[tf.Tensor]
  ) -> tf.Tensor:
    """Returns a flat vector with other trainable weights of the head.

    Args:
      weights: float32[num_weights].
      head: As `head_of` returns it.
    """
    trainable, state = self.split(weights)
    trainable[len(trainable) - len(self.head_specs) :] = head
    return self.flatten(trainable, state)

  # Traced functions.

  def build_train_step(
    self,
    objective_fn: Callable[..., Mapping[str, tf.Tensor]],
    *,
    batch_size: Optional[int],
    context_specs: Mapping[str, tf.TensorSpec],
    input_spec: input_spec_lib.InputSpec,
  ) -> Callable[..., steps.StepOutput]:
    """Traces one training step up to the gradients.

    Penalties of Keras layers (`kernel_regularizer`, `activity_regularizer`,
    `add_loss`) are part of the differentiated loss, as in Keras's `fit`.
    Penalties of the head come from its call on features.

    Args:
      objective_fn: `fn(features, logits, labels, head_fn, context)` returns a
        dict of scalars. Its entry `loss` is differentiated. `head_fn` is the
        head as a function of features. `context` also has the step's `seed`,
        int32[2], for random draws of the objective.
      batch_size: Static size of a batch, None if it varies.
      context_specs: Specs of the dict `context`.
      input_spec: Specification of the step's inputs.

    Returns:
      A pure function `step(trainable, state, inputs, labels, context, seed)`
      of lists of weights, stored inputs, int32 labels, context, and an int32[2]
      seed (e.g. for dropout). It returns a `StepOutput`.

    Raises:
      ValueError: If the inputs do not fit, the head returns probabilities, or
        the graph is not pure: a layer reads a value that is not a weight, or
        draws random numbers without the seed.
    """
    self.check_inputs(input_spec)

    def step(trainable, state, inputs, labels, context, seed):
      trainable = list(trainable)
      with tf.GradientTape() as tape:
        tape.watch(trainable)
        inputs = input_spec.preprocess(inputs, seed)
        with self.training_call(trainable, state, inputs, seed) as call:
          losses = dict(
            objective_fn(
              call.features,
              call.logits,
              labels,
              call.head_fn,
              {**context, 'seed': steps.objective_seed(seed)},
            )
          )
          for penalty in call.penalties:
            losses['loss'] += tf.reduce_sum(penalty)
          new_state = call.state_fn()
      return steps.StepOutput(
        gradients=gradients_lib.gradients(tape, losses['loss'], trainable),
        state=new_state,
        features=call.features,
        logits=call.logits,
        losses=losses,
      )

    return self._trace(
      step,
      self.trainable_specs,
      self.state_specs,
      tf.TensorSpec([batch_size, *input_spec.shape], input_spec.dtype),
      tf.TensorSpec([batch_size], tf.int32),
      dict(context_specs),
      tf.TensorSpec([2], tf.int32),
    )

  @contextlib.contextmanager
  def training_call(
    self,
    trainable: Sequence[tf.Tensor],
    state: Sequence[tf.Tensor],
    inputs: tf.Tensor,
    seed: tf.Tensor,
  ) -> Iterator[steps.TrainingCall]:
    """Calls the model in training mode, during the trace of a step.

    Args:
      trainable: Trainable weights, as in the result of `split`.
      state: Other weights, as in the result of `split`.
      inputs: Batch of inputs, preprocessed.
      seed: int32[2], e.g. for dropout.

    Yields:
      A `TrainingCall`, valid within the `with` block.
    """
    with self._bound(trainable, state, seed) as cells:
      extractor, head = self._keras_model
      features = steps.call(extractor, inputs, training=True)
      yield steps.TrainingCall(
        features,
        steps.call_head(head, features, training=True),
        lambda inputs: steps.call(head, inputs, training=True),
        # Keras forgets the penalties when the objective calls the head again.
        [*extractor.losses, *head.losses],
        lambda: [tf.convert_to_tensor(cell) for cell in cells],
      )

  def build_forward(
    self, input_spec: input_spec_lib.InputSpec
  ) -> Callable[..., tuple[tf.Tensor, tf.Tensor]]:
    """Traces the model in inference mode.

    Args:
      input_spec: Specification of the function's inputs.

    Returns:
      A pure function `forward(trainable, state, inputs) -> (features, logits)`.

    Raises:
      ValueError: As `build_train_step` does.
    """
    self.check_inputs(input_spec)

    def forward(trainable, state, inputs):
      no_seed = tf.zeros([2], tf.int32)
      with self._bound(trainable, state, no_seed):
        extractor, head = self._keras_model
        inputs = input_spec.preprocess(inputs)
        features = steps.call(extractor, inputs, training=False)
        return features, steps.call_head(head, features, training=False)

    return self._trace(
      forward,
      self.trainable_specs,
      self.state_specs,
      tf.TensorSpec([None, *input_spec.shape], input_spec.dtype),
    )

  def build_head(self) -> Callable[..., tf.Tensor]:
    """Traces the head alone, in inference mode.

    Returns:
      A pure function `head(weights, features) -> logits`, differentiable with
      respect to both arguments. `weights` is a result of `head_of`.

    Raises:
      ValueError: If the head has weights that are not trainable (e.g. of
        BatchNorm), because only the client has them.
    """
    fixed = [v.name for v in self._keras_model.head.non_trainable_weights]
    if fixed:
      raise errors.UserError(
        f'Model {self.name!r}: expected a head whose weights are all '
        f'trainable, found {fixed}. Move normalization layers to the feature '
        'extractor.'
      )
    extractor = self.trainable_specs[
      : len(self.trainable_specs) - len(self.head_specs)
    ]

    def head(weights, features):
      # The extractor's weights do not affect the result.
      unused, state = (
        [tf.zeros(spec.shape) for spec in specs]
        for specs in (extractor, self.state_specs)
      )
      no_seed = tf.zeros([2], tf.int32)
      with self._bound([*unused, *weights], state, no_seed):
        return steps.call_head(self._keras_model.head, features, training=False)

    return self._trace(
      head, self.head_specs, tf.TensorSpec([None, self.feature_dim])
    )

  def _trace(self, fn: Callable[..., Any], *specs: Any) -> Callable[..., Any]:
    return steps.trace(self.name, self.halves, fn, *specs)

  @contextlib.contextmanager
  def _bound(
    self,
    trainable: Sequence[tf.Tensor],
    state: Sequence[tf.Tensor],
    seed: tf.Tensor,
  ) -> Iterator[list[Any]]:
    """Binds layers to weights and a seed. Yields the cells of the state."""
    cells = [
      # Weights of frozen layers are never assigned.
      value if variable.trainable else binding.Cell(value, variable.name)
      for value, variable in zip(state, self._state)
    ]
    with self._binding.bind([*trainable, *cells], seed):
      yield cells

  def check_inputs(self, input_spec: input_spec_lib.InputSpec) -> None:
    """Raises a ValueError if the model does not take inputs of the spec."""
    if not checks.fits(self.input_shape, input_spec.model_shape):
      raise errors.UserError(
        f'Model {self.name!r}: expected inputs of shape {self.input_shape}, '
        f'but the input spec gives {input_spec.model_shape}. Build the model '
        'for `input_spec.model_shape` or resize in the input spec.'
      )

  def _new_keras_model(self, seed: int) -> KerasClientModel:
    """Returns a new model with all weights. The caller's seeds stay."""
    with seeding.seeded(seed), checks.naming_model(self.name):
      keras_model = self._build_fn()
      if len(keras_model) != 2 or not all(
        isinstance(half, tf.keras.Model) for half in keras_model
      ):
        raise TypeError(
          f'Model {self.name!r}: expected a `KerasClientModel` of two '
          f'tf.keras.Model, found {keras_model!r}.'
        )
      extractor, head = keras_model
      features = building.build_half(
        extractor, 'feature extractor', self._declared_shape
      )
      building.build_half(head, 'classifier head', features[1:])
    return KerasClientModel(extractor, head)


def _weights_of(
  halves: Sequence[tf.keras.Model],
) -> tuple[list[tf.Variable], list[tf.Variable]]:
  """Returns trainable weights and state, each once, extractor first."""
  trainable: dict[int, tf.Variable] = {}
  state: dict[int, tf.Variable] = {}
  for half in halves:
    trainable.update((id(v), v) for v in half.trainable_weights)
    state.update(
      (id(v), v)
      for v in half.non_trainable_weights
      if not (v.dtype.is_integer or v.dtype.is_bool or v.dtype == tf.string)
    )
  checks.check_dtypes([*trainable.values(), *state.values()])
  return list(trainable.values()), list(state.values())


def _specs(variables: Sequence[tf.Variable]) -> list[tf.TensorSpec]:
  return [tf.TensorSpec(v.shape, v.dtype) for v in variables]
