"""Binds a Keras model's weights to tensors while one of its calls is traced.

Keras layers read their weights from attributes. During a trace these attributes
hold tensors instead of variables. For state that layers assign (BatchNorm
statistics) they hold cells, and random generators draw from a seed tensor.
Afterwards everything is restored, also after an error.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import functools
from typing import Any, NamedTuple

from keras.src import backend as keras_backend
import tensorflow as tf

from tff_fedsa.runs import errors

# Keras's lists of all weights. Calls do not read them.
_KERAS_BOOKKEEPING = frozenset(
  (
    '_non_trainable_weights',
    '_obj_reference_counts_dict',
    '_self_tracked_trackables',
    '_self_unconditional_checkpoint_dependencies',
    '_self_unconditional_dependency_names',
    '_trainable_weights',
    '_undeduplicated_weights',
  )
)


# AutoGraph rewrites the calls of own layers, and everything that they call.
_as_written = tf.autograph.experimental.do_not_convert


class _Slot(NamedTuple):
  """An attribute with a value to bind.

  Attributes:
    holder: A layer, model, tf.Module or node of a functional model.
    name: Name of the attribute.
    value: Value of the attribute outside of traces.
  """

  holder: Any
  name: str
  value: Any


class Cell:
  """Replaces a variable that a layer assigns, during a trace.

  It converts to the last assigned tensor, its `value()`.
  """

  trainable = False

  def __init__(self, value: tf.Tensor, name: str):
    self._value = value
    self._graph = tf.compat.v1.get_default_graph()
    self.name = name

  def value(self) -> tf.Tensor:
    return self._value

  read_value = value

  def __tf_tensor__(self, dtype=None, name=None):
    return tf.convert_to_tensor(self._value, dtype, name=name)

  def __getattr__(self, name: str) -> Any:
    if name.startswith('__'):
      raise AttributeError(name)
    return getattr(self._value, name)

  @_as_written
  def assign(self, value: Any, **unused_options: Any) -> tf.Tensor:
    if tf.compat.v1.get_default_graph() is not self._graph:
      # Not a UserError, which AutoGraph would replace by its own error.
      raise ValueError(
        f'The weight {self.name!r} is assigned inside of a loop, a condition '
        'or a tf.function of its layer, which is not supported. Assign it in '
        'the body of `call`.'
      )
    value = tf.convert_to_tensor(value, self._value.dtype)
    # No gradient flows through an assignment.
    value = tf.stop_gradient(value)
    self._value = tf.ensure_shape(value, self._value.shape)
    return self._value

  @_as_written
  def assign_add(self, delta: Any, **unused_options: Any) -> tf.Tensor:
    return self.assign(self._value + delta)

  @_as_written
  def assign_sub(self, delta: Any, **unused_options: Any) -> tf.Tensor:
    return self.assign(self._value - delta)


def _add_operator(name: str) -> None:
  def operator(self, *args):
    return getattr(self.value(), name)(*args)

  setattr(Cell, name, operator)


for _name in tf.Tensor.OVERLOADABLE_OPERATORS - {'__eq__', '__ne__'}:
  _add_operator(_name)


class StatelessGenerator:
  """The methods of `tf.random.Generator` that layers use, without state.

  Every call has its own seed: a function of the given seed, the index of the
  generator and the number of traced calls. (So all iterations of a loop in one
  layer draw the same numbers.)
  """

  def __init__(self, seed: tf.Tensor, index: int):
    self._seed = _fold_in(seed, index)
    self._num_calls = 0

  def _next_seed(self) -> tf.Tensor:
    self._num_calls += 1
    return _fold_in(self._seed, self._num_calls)

  @_as_written
  def make_seeds(self, count: int = 1) -> tf.Tensor:
    """Returns int32[2, count]."""
    return tf.stack([self._next_seed() for _ in range(count)], axis=1)

  @_as_written
  def uniform(
    self,
    shape: Any,
    minval: Any = 0,
    maxval: Any = None,
    dtype: Any = tf.float32,
    name: Any = None,
  ) -> tf.Tensor:
    return tf.random.stateless_uniform(
      shape, self._next_seed(), minval, maxval, dtype, name=name
    )

  @_as_written
  def normal(
    self,
    shape: Any,
    mean: Any = 0.0,
    stddev: Any = 1.0,
    dtype: Any = tf.float32,
    name: Any = None,
  ) -> tf.Tensor:
    return tf.random.stateless_normal(
      shape, self._next_seed(), mean, stddev, dtype, name=name
    )

  @_as_written
  def truncated_normal(
    self,
    shape: Any,
    mean: Any = 0.0,
    stddev: Any = 1.0,
    dtype: Any = tf.float32,
    name: Any = None,
  ) -> tf.Tensor:
    return tf.random.stateless_truncated_normal(
      shape, self._next_seed(), mean, stddev, dtype, name=name
    )

  @_as_written
  def binomial(
    self,
    shape: Any,
    counts: Any,
    probs: Any,
    dtype: Any = tf.int32,
    name: Any = None,
  ) -> tf.Tensor:
    return tf.random.stateless_binomial(
      shape, self._next_seed(), counts, probs, dtype, name=name
    )


class Binding:
  """The attributes of Keras models with weights and random generators."""

  def __init__(
    self,
    keras_models: Sequence[tf.keras.Model],
    variables: Sequence[tf.Variable],
  ):
    """Finds the attributes.

    Args:
      keras_models: Built models.
      variables: The weights of the models.

    Raises:
      ValueError: If no attribute holds one of the variables.
    """
    self._variables = list(variables)
    self._variable_ids = {id(v) for v in self._variables}
    self._slots = []
    self._functions = []
    self._keras_generators = {}
    for node in _nodes(keras_models):
      # Operations of a functional model (`x + 3.0`) have constants and weights
      # as arguments. These are not attributes of a layer.
      if self._is_bindable(node._flat_arguments):
        self._slots.append(_Slot(node, '_flat_arguments', node._flat_arguments))
    for holder in _holders(keras_models):
      for name, value in list(vars(holder).items()):
        if isinstance(value, keras_backend.RandomGenerator):
          self._keras_generators[id(value)] = value
        elif name not in _KERAS_BOOKKEEPING and self._is_bindable(value):
          self._slots.append(_Slot(holder, name, value))
      # A tf.function keeps its traces, with the bound values.
      call = getattr(type(holder), 'call', None)
      if isinstance(call, tf.types.experimental.GenericFunction):
        self._functions.append((holder, call.python_function))
    self._check_found()

  @contextlib.contextmanager
  def bind(self, values: Sequence[Any], seed: tf.Tensor) -> Iterator[None]:
    """Binds weights and random generators within a `with` block.

    Args:
      values: A tensor or `Cell` for each variable.
      seed: int32[2], seed of all random numbers.
    """
    by_id = {id(v): value for v, value in zip(self._variables, values)}
    num_generators = 0

    def next_generator():
      nonlocal num_generators
      num_generators += 1
      return StatelessGenerator(seed, num_generators)

    def replacement(leaf):
      if isinstance(leaf, tf.Variable):
        return by_id.get(id(leaf), leaf)
      if isinstance(leaf, tf.random.Generator):
        return next_generator()
      if _is_constant(leaf):
        return tf.constant(leaf.numpy())
      return leaf

    with contextlib.ExitStack() as stack:
      for holder, name, value in self._slots:
        stack.callback(vars(holder).__setitem__, name, value)
        # Bypasses Keras's `__setattr__`, which would track or refuse the value.
        vars(holder)[name] = _map_leaves(replacement, value)
      for generator in self._keras_generators.values():
        stack.callback(_restore, vars(generator), dict(vars(generator)))
        vars(generator).update(
          # The class whose objects draw from `_generator`.
          _rng_type=generator.RNG_STATEFUL,
          _built=True,
          _generator=next_generator(),
        )
      for holder, python_function in self._functions:
        stack.callback(vars(holder).pop, 'call')
        vars(holder)['call'] = tf.function(
          functools.partial(python_function, holder)
        )
      yield

  def _is_bindable(self, value: Any) -> bool:
    """Returns whether an attribute has a value that `bind` replaces."""
    found = []

    def look(leaf):
      if id(leaf) in self._variable_ids or _is_constant(leaf):
        found.append(leaf)
      elif isinstance(leaf, tf.random.Generator):
        found.append(leaf)
      return leaf

    _map_leaves(look, value)
    return bool(found)

  def _check_found(self) -> None:
    found = set()
    for slot in self._slots:
      _map_leaves(lambda leaf: found.add(id(leaf)), slot.value)
    missing = [v.name for v in self._variables if id(v) not in found]
    if missing:
      raise errors.UserError(
        f'No layer attribute holds the weights {missing}. Keep each weight in '
        'an attribute of its layer, directly or in a list, tuple or dict.'
      )


def _holders(keras_models: Sequence[tf.keras.Model]) -> list[Any]:
  """Returns models, layers and tf.Modules in a reproducible order."""
  holders = {}
  for model in keras_models:
    for holder in model._flatten_modules():  # pylint: disable=protected-access
      holders[id(holder)] = holder
      if not isinstance(holder, tf.keras.layers.Layer):
        # Keras searches only its layers.
        holders.update((id(inner), inner) for inner in holder.submodules)
  return list(holders.values())


def _nodes(keras_models: Sequence[tf.keras.Model]) -> list[Any]:
  """Returns the layer calls of functional models, and of inner models."""
  return [
    node
    for model in keras_models
    for holder in model._flatten_modules()  # pylint: disable=protected-access
    for nodes in getattr(holder, '_nodes_by_depth', {}).values()
    for node in nodes
  ]


def _is_constant(value: Any) -> bool:
  """Returns whether `value` is an eager tensor of numbers.

  A trace would capture a large one as an outside value.
  """
  return isinstance(value, tf.__internal__.EagerTensor) and value.dtype not in (
    tf.resource,
    tf.variant,
  )


def _map_leaves(fn: Callable[[Any], Any], value: Any) -> Any:
  """Maps the leaves of an attribute's value, in containers and partials."""
  map_fn = functools.partial(_map_leaves, fn)
  if isinstance(value, functools.partial):
    # `kernel_regularizer` and similar attributes are partials of a variable.
    return functools.partial(
      value.func,
      *map(map_fn, value.args),
      **{key: map_fn(item) for key, item in value.keywords.items()},
    )
  if isinstance(value, dict):
    return {key: map_fn(item) for key, item in value.items()}
  if isinstance(value, tuple):
    items = tuple(map(map_fn, value))
    # Not `type(value)`, which is a wrapper if Keras tracks the tuple.
    return value.__class__(*items) if hasattr(value, '_fields') else items
  if isinstance(value, list):
    return list(map(map_fn, value))
  return fn(value)


def _restore(attributes: dict[str, Any], previous: dict[str, Any]) -> None:
  attributes.clear()
  attributes.update(previous)


def _fold_in(seed: tf.Tensor, data: int) -> tf.Tensor:
  return tf.random.experimental.stateless_fold_in(seed, data)
