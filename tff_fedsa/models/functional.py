"""Keras client models as pure functions over one flat float32 vector.

A client's weights are a value that travels between server loop, store and
TFF computations, not variables of a Python object. Here a Keras model is built
once, eagerly; while one of its functions is traced, the attributes of its
layers that hold variables are bound to tensors instead, and its random
generators to stateless ones. The traced graphs hold no variable, no captured
value and no Keras, so they are small and can be called inside any
`tff.tensorflow.computation`.
"""

import collections
from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import random
from typing import Any, NamedTuple, Optional

from keras.src import backend as keras_backend
import numpy as np
import tensorflow as tf
from tensorflow.python.eager import context as eager_context

from tff_fedsa.data import input_spec as input_spec_lib


class KerasClientModel(NamedTuple):
  """The two halves of a client's model.

  Attributes:
    feature_extractor: Maps float32 images to features
      `[batch, feature_dim]`.
    head: Maps features to logits `[batch, num_classes]`.
  """

  feature_extractor: tf.keras.Model
  head: tf.keras.Model


class Outputs(NamedTuple):
  """What a model computes from a batch.

  Attributes:
    features: float32[batch, feature_dim].
    logits: float32[batch, num_classes].
    state: List of non-trainable weights after the batch.
  """

  features: Any
  logits: Any
  state: Any


class StepOutput(NamedTuple):
  """Result of a training step's computation.

  Attributes:
    gradients: List, of the loss with respect to each trainable weight.
    state: List of non-trainable weights after the batch.
    features: float32[batch, feature_dim], before the update.
    losses: Dict of float32 scalars, the objective's terms.
  """

  gradients: Any
  state: Any
  features: Any
  losses: Any


class FunctionalModel:
  """A Keras client model as pure functions of its weights.

  The flat vector holds the trainable weights (extractor, then head, in the
  order of Keras) and then the non-trainable ones (BatchNorm statistics and the
  like), each flattened in row-major order.
  """

  def __init__(
    self, build_fn: Callable[[], KerasClientModel], *, name: str = 'model'
  ):
    """Builds the model and checks that it can be made functional.

    Args:
      build_fn: Returns a new Keras model each time it is called.
      name: Appears in error messages.

    Raises:
      TypeError: If `build_fn` does not return a pair of Keras models.
      ValueError: If the model is unsuitable; the message names the layer or
        weight, what was expected and what to do.
    """
    self.name = name
    self._build_fn = build_fn
    keras_model = build_fn()
    if len(keras_model) != 2 or not all(
      isinstance(half, tf.keras.Model) for half in keras_model
    ):
      raise TypeError(
        f'Model {name!r}: expected a `KerasClientModel` of two tf.keras.Model, '
        f'found {keras_model!r}.'
      )
    self._keras_model = KerasClientModel(*keras_model)
    self.input_shape, self.feature_dim, self.num_classes = self._check_shapes()
    self._trainable, self._state = _weights_of(self._keras_model)
    self._check_weights()
    self._slots = self._find_slots()
    self._generators = _find_generators(self._layers())
    self.trainable_specs = _specs(self._trainable)
    self.state_specs = _specs(self._state)
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
    """Makes a built Keras model functional, keeping its present weights.

    `initial_weights` of the result returns those weights for every seed.
    """
    extractor, head = keras_model
    configs = [(type(half), half.get_config()) for half in (extractor, head)]
    weights = [half.get_weights() for half in (extractor, head)]

    def build_fn() -> KerasClientModel:
      halves = []
      for half, (half_class, config), values in zip(
        (extractor, head), configs, weights
      ):
        copy = half_class.from_config(config)
        if not copy.built:
          copy.build(half.input_shape)
        copy.set_weights(values)
        halves.append(copy)
      return KerasClientModel(*halves)

    return cls(build_fn, name=name)

  # Weights.

  def initial_weights(self, seed: int) -> np.ndarray:
    """Returns where training starts, float32[num_weights].

    A function of the architecture and the seed only; the global random state
    of the caller (Python, NumPy, TensorFlow) is left as it was.

    Args:
      seed: Any integer.
    """
    with _seeded(seed):
      return self.weights_from_keras(self._build_fn())

  def weights_from_keras(self, keras_model: KerasClientModel) -> np.ndarray:
    """Returns the flat vector of a Keras model of this architecture."""
    trainable, state = _weights_of(KerasClientModel(*keras_model))
    return np.concatenate(
      [np.zeros([0], np.float32)]
      + [np.asarray(v).ravel() for v in trainable + state]
    )

  def to_keras(self, weights: np.ndarray) -> KerasClientModel:
    """Returns a new Keras model that holds the given weights.

    Args:
      weights: float32[num_weights].

    Raises:
      ValueError: If `weights` is of another size.
    """
    weights = np.asarray(weights, np.float32)
    if weights.shape != (self.num_weights,):
      raise ValueError(
        f'Model {self.name!r}: expected weights of shape '
        f'({self.num_weights},), found {weights.shape}.'
      )
    keras_model = KerasClientModel(*self._build_fn())
    variables = [v for group in _weights_of(keras_model) for v in group]
    parts = np.split(weights, np.cumsum(self._sizes)[:-1])
    for variable, part in zip(variables, parts):
      variable.assign(part.reshape(variable.shape))
    return keras_model

  def split(self, weights: tf.Tensor) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
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

  # Traced functions.

  def build_train_step(
    self,
    objective_fn: Callable[..., Mapping[str, tf.Tensor]],
    *,
    batch_size: Optional[int],
    context_specs: Mapping[str, tf.TensorSpec],
    input_spec: input_spec_lib.InputSpec,
  ) -> Callable[..., StepOutput]:
    """Traces one training step up to the gradients.

    Penalties that Keras layers add (`kernel_regularizer` and the like) are
    part of the differentiated loss.

    Args:
      objective_fn: `fn(features, logits, labels, head_fn, context)` returns a
        dict of scalars, of which `loss` is differentiated; `head_fn` is the
        head as a function of features.
      batch_size: Static size of a batch, None if it varies.
      context_specs: Specs of the dict `context`.
      input_spec: Of the images that the step gets.

    Returns:
      A pure function `step(trainable, state, images, labels, context, seed)`
      of lists of weights, stored images, int32 labels, context, and an
      int32[2] seed (dropout and the like); it returns a `StepOutput`.

    Raises:
      ValueError: If the graph is not pure: a layer reads a value that is not
        one of the weights, or draws random numbers on its own.
    """

    def step(trainable, state, images, labels, context, seed):
      trainable = list(trainable)
      with tf.GradientTape() as tape:
        tape.watch(trainable)
        with self._bound(trainable, state, seed) as cells:
          extractor, head = self._keras_model
          features = extractor(input_spec.preprocess(images), training=True)
          logits = head(features, training=True)
          losses = dict(
            objective_fn(
              features,
              logits,
              labels,
              lambda inputs: head(inputs, training=True),
              context,
            )
          )
          penalties = [*extractor.losses, *head.losses]
          if penalties:
            losses['loss'] += tf.add_n(penalties)
          new_state = [cell.value() for cell in cells]
      return StepOutput(
        gradients=tape.gradient(
          losses['loss'], trainable, unconnected_gradients='zero'
        ),
        state=new_state,
        features=features,
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

  def build_forward(
    self, input_spec: input_spec_lib.InputSpec
  ) -> Callable[..., tuple[tf.Tensor, tf.Tensor]]:
    """Traces the model in inference mode.

    Args:
      input_spec: Of the images that the function gets.

    Returns:
      A pure function `forward(trainable, state, images) -> (features, logits)`.

    Raises:
      ValueError: If the graph is not pure, see `build_train_step`.
    """

    def forward(trainable, state, images):
      no_seed = tf.zeros([2], tf.int32)
      with self._bound(trainable, state, no_seed):
        extractor, head = self._keras_model
        features = extractor(input_spec.preprocess(images), training=False)
        return features, head(features, training=False)

    return self._trace(
      forward,
      self.trainable_specs,
      self.state_specs,
      tf.TensorSpec([None, *input_spec.shape], input_spec.dtype),
    )

  def _trace(self, fn: Callable[..., Any], *specs: Any) -> Callable[..., Any]:
    try:
      concrete = tf.function(fn, autograph=False).get_concrete_function(*specs)
    finally:
      # Keras keeps symbolic losses of the last call: they belong to the graph.
      for half in self._keras_model:
        half._clear_losses()  # pylint: disable=protected-access
    _check_pure(concrete, self.name, self._keras_model)
    return concrete

  @contextlib.contextmanager
  def _bound(
    self,
    trainable: Sequence[tf.Tensor],
    state: Sequence[tf.Tensor],
    seed: tf.Tensor,
  ) -> Iterator[list['_Cell']]:
    """Binds layers to the given weights and seed; yields the state's cells."""
    cells = [
      _Cell(value, variable.name)
      for value, variable in zip(state, self._state)
    ]
    values = {
      id(variable): value
      for variable, value in zip(
        self._trainable + self._state, [*trainable, *cells]
      )
    }
    with contextlib.ExitStack() as stack:
      for holder, name, attribute in self._slots:
        bound = _replace_variables(attribute, values)
        stack.callback(_set_attribute, holder, name, attribute)
        _set_attribute(holder, name, bound)
      for index, generator in enumerate(self._generators):
        stack.enter_context(_stateless(generator, seed, index))
      yield cells

  # Checks when a model is built.

  def _layers(self) -> list[Any]:
    layers = {
      id(layer): layer
      for half in self._keras_model
      for layer in half._flatten_layers()  # pylint: disable=protected-access
    }
    return list(layers.values())

  def _check_shapes(self) -> tuple[tuple[int, ...], int, int]:
    shapes = []
    for half, what in zip(
      self._keras_model, ('feature extractor', 'classifier head')
    ):
      try:
        inputs, outputs = half.input_shape, half.output_shape
      except (AttributeError, RuntimeError) as error:
        raise ValueError(
          f'Model {self.name!r}: the {what} has no defined input and output '
          'shape. Build it with the functional API or give a Sequential model '
          'an Input layer.'
        ) from error
      if not isinstance(inputs, tuple) or not isinstance(outputs, tuple):
        raise ValueError(
          f'Model {self.name!r}: the {what} must have one input and one output, '
          f'found input shape {inputs} and output shape {outputs}.'
        )
      shapes.append((inputs, outputs))
    (image, features), (head_input, logits) = shapes
    if len(features) != 2 or features[1] is None:
      raise ValueError(
        f'Model {self.name!r}: the feature extractor must return '
        f'[batch, feature_dim], found {list(features)}. Add a Flatten or '
        'pooling layer.'
      )
    if tuple(head_input) != tuple(features):
      raise ValueError(
        f'Model {self.name!r}: the head takes {list(head_input)}, but the '
        f'feature extractor returns {list(features)} [batch, feature_dim].'
      )
    if len(logits) != 2 or logits[1] is None:
      raise ValueError(
        f'Model {self.name!r}: the head must return [batch, num_classes], found '
        f'{list(logits)}.'
      )
    return tuple(image[1:]), features[1], logits[1]

  def _check_weights(self) -> None:
    own = [{id(v) for v in half.weights} for half in self._keras_model]
    if own[0] & own[1]:
      raise ValueError(
        f'Model {self.name!r}: feature extractor and head share weights. Give '
        'each its own layers.'
      )
    for variable in self._trainable + self._state:
      if variable.dtype != tf.float32:
        raise ValueError(
          f'Model {self.name!r}: expected float32 weights, found '
          f'{variable.name} of {variable.dtype.name}. Use the float32 policy, '
          'and layers without integer state.'
        )

  def _find_slots(self) -> list[tuple[Any, str, Any]]:
    """Returns every `(layer, attribute name, value)` that holds a weight."""
    weights = {id(v): v for v in self._trainable + self._state}
    slots, found = [], set()
    for layer in self._layers():
      for name, value in list(vars(layer).items()):
        if name in _KERAS_BOOKKEEPING:
          continue
        held = _held_variables(value) & weights.keys()
        if held:
          slots.append((layer, name, value))
          found |= held
    missing = [v.name for key, v in weights.items() if key not in found]
    if missing:
      raise ValueError(
        f'Model {self.name!r}: no layer attribute holds the weights {missing}. '
        'Keep each weight in an attribute (or a list or dict attribute) of '
        'its layer.'
      )
    return slots


# Keras's own lists of all weights; calls do not read them.
_KERAS_BOOKKEEPING = frozenset((
  '_trainable_weights',
  '_non_trainable_weights',
  '_obj_reference_counts_dict',
  '_self_unconditional_checkpoint_dependencies',
  '_self_unconditional_dependency_names',
  '_self_tracked_trackables',
  '_undeduplicated_weights',
))


class _Cell:
  """Stands in for a variable that a layer assigns to, while tracing."""

  trainable = False

  def __init__(self, value: tf.Tensor, name: str):
    self._value = value
    self.name = name

  dtype = property(lambda self: self._value.dtype)
  shape = property(lambda self: self._value.shape)

  def value(self) -> tf.Tensor:
    return self._value

  read_value = value

  def assign(self, value: Any, **unused_options: Any) -> tf.Tensor:
    value = tf.convert_to_tensor(value, self.dtype)
    self._value = tf.ensure_shape(value, self.shape)
    return self._value

  def assign_add(self, delta: Any, **unused_options: Any) -> tf.Tensor:
    return self.assign(self._value + delta)

  def assign_sub(self, delta: Any, **unused_options: Any) -> tf.Tensor:
    return self.assign(self._value - delta)


def _add_operator(name: str) -> None:
  def operator(self, *args):
    return getattr(self.value(), name)(*args)

  setattr(_Cell, name, operator)


for _name in (
  'add', 'radd', 'sub', 'rsub', 'mul', 'rmul', 'truediv', 'rtruediv',
  'neg', 'pow', 'matmul', 'rmatmul', 'getitem',
):
  _add_operator(f'__{_name}__')

tf.register_tensor_conversion_function(
  _Cell,
  lambda cell, dtype=None, name=None, as_ref=False: tf.convert_to_tensor(
    cell.value(), dtype, name=name
  ),
)


class _StatelessGenerator:
  """Gives a Keras random generator its seeds from a seed tensor."""

  def __init__(self, seed: tf.Tensor, index: int):
    self._seed = tf.random.experimental.stateless_fold_in(seed, index)
    self._num_calls = 0

  def make_seeds(self, count: int = 1) -> tf.Tensor:
    """Returns int32[2, count], as `tf.random.Generator.make_seeds` does."""
    seeds = []
    for _ in range(count):
      self._num_calls += 1
      seeds.append(
        tf.random.experimental.stateless_fold_in(self._seed, self._num_calls)
      )
    return tf.stack(seeds, axis=1)


@contextlib.contextmanager
def _stateless(generator: Any, seed: tf.Tensor, index: int) -> Iterator[None]:
  """Makes a `keras.backend.RandomGenerator` draw from `seed` for a while."""
  previous = dict(vars(generator))
  vars(generator).update(
    # The kind that asks `_generator` for the seeds of stateless operations.
    _rng_type=generator.RNG_STATEFUL,
    _built=True,
    _generator=_StatelessGenerator(seed, index),
  )
  try:
    yield
  finally:
    vars(generator).clear()
    vars(generator).update(previous)


def _find_generators(layers: Sequence[Any]) -> list[Any]:
  generators = {}
  for layer in layers:
    generator = getattr(layer, '_random_generator', None)
    if generator is not None:
      generators[id(generator)] = generator
  return list(generators.values())


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
  """Seeds all random state for a while, then puts back the caller's."""
  eager = eager_context.context()
  missing = object()
  python_state, numpy_state = random.getstate(), np.random.get_state()
  tf_state = getattr(eager, '_seed', None), getattr(eager, '_rng', None)
  keras_seeds = keras_backend._SEED_GENERATOR
  keras_state = getattr(keras_seeds, 'generator', missing)
  try:
    tf.keras.utils.set_random_seed(seed % 2**32)
    yield
  finally:
    random.setstate(python_state)
    np.random.set_state(numpy_state)
    eager._seed, eager._rng = tf_state
    if keras_state is missing:
      del keras_seeds.generator
    else:
      keras_seeds.generator = keras_state


def _weights_of(
  keras_model: KerasClientModel,
) -> tuple[list[tf.Variable], list[tf.Variable]]:
  """Returns trainable and other weights, each once, extractor first."""
  trainable, state = {}, {}
  for half in keras_model:
    trainable.update((id(v), v) for v in half.trainable_weights)
    state.update((id(v), v) for v in half.non_trainable_weights)
  return list(trainable.values()), list(state.values())


def _specs(variables: Sequence[tf.Variable]) -> list[tf.TensorSpec]:
  return [tf.TensorSpec(v.shape, v.dtype) for v in variables]


def _held_variables(value: Any) -> set[int]:
  """Returns ids of the variables in an attribute: itself or in containers."""
  if isinstance(value, tf.Variable):
    return {id(value)}
  if isinstance(value, collections.abc.Mapping):
    value = list(value.values())
  if isinstance(value, (list, tuple)):
    return set().union(*(_held_variables(item) for item in value))
  return set()


def _replace_variables(value: Any, values: Mapping[int, Any]) -> Any:
  if isinstance(value, tf.Variable):
    return values.get(id(value), value)
  if isinstance(value, collections.abc.Mapping):
    return {k: _replace_variables(v, values) for k, v in value.items()}
  if isinstance(value, tuple) and hasattr(value, '_fields'):
    return type(value)(*(_replace_variables(v, values) for v in value))
  if isinstance(value, (list, tuple)):
    items = [_replace_variables(item, values) for item in value]
    return tuple(items) if isinstance(value, tuple) else items
  return value


def _set_attribute(layer: Any, name: str, value: Any) -> None:
  # Past Keras's `__setattr__`, which would track or refuse the value.
  vars(layer)[name] = value


_STATEFUL_RANDOM_OPS = frozenset((
  'RandomUniform', 'RandomUniformInt', 'RandomStandardNormal',
  'ParameterizedTruncatedNormal', 'TruncatedNormal', 'RandomGamma',
  'RandomPoisson', 'RandomPoissonV2', 'Multinomial', 'RandomShuffle',
  'StatefulUniform', 'StatefulStandardNormalV2', 'RngReadAndSkip',
))


def _check_pure(
  concrete: Any, name: str, keras_model: KerasClientModel
) -> None:
  """Raises `ValueError` if a traced function is more than its arguments."""
  captured = concrete.captured_inputs
  if captured:
    known = {
      id(getattr(v, 'handle', None)): v.name
      for half in keras_model
      for v in half.weights
    }
    found = [known.get(id(c), f'{c.dtype.name}{c.shape}') for c in captured]
    raise ValueError(
      f'Model {name!r} reads values that are not among its weights: {found}. '
      'Lookup tables, precomputed tensors and untracked variables are not '
      'supported; make them weights of a layer or tf.constant calls in it.'
    )
  graph_def = concrete.graph.as_graph_def()
  nodes = list(graph_def.node)
  for function in graph_def.library.function:
    nodes.extend(function.node_def)
  random_ops = [n.name for n in nodes if n.op in _STATEFUL_RANDOM_OPS]
  if random_ops:
    raise ValueError(
      f'Model {name!r} draws random numbers that no seed controls: '
      f'{random_ops[:3]}. Use layers of Keras with a random generator '
      '(Dropout, GaussianNoise, ...) or stateless random operations.'
    )
