"""A `tff.learning` optimizer with its state as one flat float32 vector."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import functools
from typing import Any, Optional

from etils import epy
import numpy as np

from tff_fedsa.runs import errors

with epy.lazy_imports():
  import tensorflow as tf
  import tensorflow_federated as tff

  from tff_fedsa.client import client_settings
  from tff_fedsa.client import prepared_gradients

OPTIMIZER_STATES = ('reset', 'keep')


def default_optimizer() -> LocalOptimizer:
  """Returns the optimizer of the reference: SGD with learning rate 0.01."""
  return LocalOptimizer(tff.learning.optimizers.build_sgdm(0.01))


class LocalOptimizer:
  """Trains a client's weights. Its state is a flat vector.

  The structure of optimizer states depends on the architecture, but flat
  vectors have one TFF type (see `client_state.ClientState`). Integers (step
  counters) survive the cast to float32 exactly up to 2^24.
  """

  def __init__(
    self,
    optimizer: tff.learning.optimizers.Optimizer,
    *,
    learning_rate_fn: Optional[Callable[[tf.Tensor], Any]] = None,
    state: str = 'reset',
  ):
    """Initializes `LocalOptimizer`.

    Args:
      optimizer: Any of `tff.learning.optimizers` (sgdm, adam, yogi, ...).
      learning_rate_fn: Returns the learning rate of a round, a float32 scalar
        tensor counted from 0. Schedules of `tf.keras.optimizers.schedules`
        work. Default: the optimizer's own learning rate.
      state: `reset` (reference): every round starts with a new state. `keep`:
        the state (e.g. momentum) stays over rounds.

    Raises:
      TypeError: If `optimizer` is not a `tff.learning.optimizers.Optimizer`.
      ValueError: If `state` is unknown, or a learning rate function is given
        for an optimizer without a learning rate.
    """
    if not isinstance(optimizer, tff.learning.optimizers.Optimizer):
      raise TypeError(
        'Expected an optimizer of tff.learning.optimizers (build_sgdm, '
        f'build_adam, ...), found {type(optimizer)}. Keras optimizers are not '
        'supported.'
      )
    if state not in OPTIMIZER_STATES:
      raise errors.UserError(
        f'Unknown optimizer state {state!r}; known: '
        f'{", ".join(OPTIMIZER_STATES)}.'
      )
    self._optimizer = optimizer
    self._learning_rate_fn = learning_rate_fn
    self.keeps_state = state == 'keep'
    if learning_rate_fn is not None:
      probe = optimizer.initialize([tf.TensorSpec([1])])
      if _learning_rate_key() not in optimizer.get_hparams(probe):
        raise errors.UserError(
          f'{type(optimizer).__name__} has no hyperparameter '
          f'{_learning_rate_key()!r} for `learning_rate_fn` to set.'
        )

  @property
  def learning_rate(self) -> Optional[float]:
    """The optimizer's own learning rate, or None."""
    probe = self._optimizer.initialize([tf.TensorSpec([1])])
    return self._optimizer.get_hparams(probe).get(_learning_rate_key())

  def begin_round(
    self,
    vector: tf.Tensor,
    specs: Sequence[tf.TensorSpec],
    round_num: tf.Tensor,
    learning_rate: Optional[tf.Tensor] = None,
    client_id: Optional[tf.Tensor] = None,
  ) -> Any:
    """Returns the optimizer's state at the beginning of a client's round.

    Args:
      vector: float32[?], result of `to_vector`. Ignored if the state is reset.
      specs: Specifications of the trainable weights.
      round_num: int32 scalar, counted from 0.
      learning_rate: float32 scalar, the client's own in place of the
        optimizer's; NaN if it has none. A `learning_rate_fn` changes both by
        the same factor.
      client_id: int32 scalar. Only a `ChosenOptimizer` needs it.

    Raises:
      ValueError: If clients have learning rates, but not the optimizer, or it
        is 0.
    """
    del client_id  # All clients have the same optimizer.
    state = self._initial_state(specs)
    if self.keeps_state:
      leaves = tf.nest.flatten(state)
      sizes = [leaf.shape.num_elements() for leaf in leaves]
      parts = tf.split(tf.ensure_shape(vector, [sum(sizes)]), sizes)
      state = tf.nest.pack_sequence_as(
        state,
        [
          tf.cast(tf.reshape(part, leaf.shape), leaf.dtype)
          for part, leaf in zip(parts, leaves)
        ],
      )
    if self._learning_rate_fn is not None:
      hparams = self._optimizer.get_hparams(state)
      # A float, because `0.1 / (1 + round_num)` fails for integers.
      rate = self._learning_rate_fn(tf.cast(round_num, tf.float32))
      hparams[_learning_rate_key()] = tf.reshape(tf.cast(rate, tf.float32), [])
      state = self._optimizer.set_hparams(state, hparams)
    if learning_rate is not None:
      if not self.learning_rate:
        raise errors.UserError(
          'Learning rates of single clients need an optimizer with a learning '
          f'rate above 0, found {self.learning_rate}.'
        )
      factor = learning_rate / tf.constant(self.learning_rate, tf.float32)
      factor = tf.where(tf.math.is_nan(factor), 1.0, factor)
      hparams = self._optimizer.get_hparams(state)
      rate = tf.cast(hparams[_learning_rate_key()], tf.float32)
      hparams[_learning_rate_key()] = factor * rate
      state = self._optimizer.set_hparams(state, hparams)
    return state

  def next(
    self, state: Any, weights: list[tf.Tensor], gradients: list[tf.Tensor]
  ) -> tuple[Any, list[tf.Tensor]]:
    """Returns the state and the weights after one step."""
    return self._optimizer.next(state, weights, gradients)

  def to_vector(self, state: Any) -> tf.Tensor:
    """Returns the kept part of a state: float32[?], empty if it is reset."""
    if not self.keeps_state:
      return tf.zeros([0], tf.float32)
    return tf.concat(
      [
        tf.reshape(tf.cast(leaf, tf.float32), [-1])
        for leaf in tf.nest.flatten(state)
      ],
      axis=0,
    )

  def initial_vector(self, specs: Sequence[tf.TensorSpec]) -> np.ndarray:
    """Returns the vector of a client that has not trained yet."""
    return self.to_vector(self._initial_state(specs)).numpy()

  def vector_size(self, specs: Sequence[tf.TensorSpec]) -> int:
    """Returns the number of values in a vector."""
    if not self.keeps_state:
      return 0
    leaves = tf.nest.flatten(self._initial_state(specs))
    return sum(leaf.shape.num_elements() for leaf in leaves)

  def restarted(self, learning_rate: Optional[float] = None) -> LocalOptimizer:
    """Returns a copy of the optimizer that is reset in every round.

    Args:
      learning_rate: Learning rate of all rounds. Default: that of this
        optimizer.

    Raises:
      ValueError: If the optimizer has no learning rate.
    """
    if learning_rate is None:
      return LocalOptimizer(
        self._optimizer, learning_rate_fn=self._learning_rate_fn
      )
    return LocalOptimizer(
      self._optimizer, learning_rate_fn=lambda _: learning_rate
    )

  def clipped(self, clip_norm: Optional[float]) -> LocalOptimizer:
    """Returns a copy of the optimizer that clips gradients.

    Args:
      clip_norm: Largest norm of the gradient of a step. A larger gradient is
        scaled down to it. None returns this optimizer.
    """
    if clip_norm is None:
      return self
    return LocalOptimizer(
      prepared_gradients.PreparedGradients(
        self._optimizer, clip_norm=clip_norm
      ),
      learning_rate_fn=self._learning_rate_fn,
      state='keep' if self.keeps_state else 'reset',
    )

  def _initial_state(self, specs: Sequence[tf.TensorSpec]) -> Any:
    # Hyperparameters are Python numbers there, but loop variables here.
    return tf.nest.map_structure(
      tf.convert_to_tensor, self._optimizer.initialize(list(specs))
    )


class ChosenOptimizer:
  """Trains each client with its own optimizer, in one computation.

  It is used like a `LocalOptimizer`. Its state has the states of all of the
  optimizers; a step changes that of the client's own.
  """

  def __init__(
    self, optimizers: Sequence[LocalOptimizer], of_clients: np.ndarray
  ):
    """Initializes `ChosenOptimizer`.

    Args:
      optimizers: The optimizers. All or none keep their state.
      of_clients: int32[?], index of each client's optimizer; the last one is
        that of all other clients.
    """
    self._optimizers = list(optimizers)
    self._of_clients = of_clients

  @property
  def keeps_state(self) -> bool:
    """True if states stay over rounds."""
    return self._optimizers[0].keeps_state

  @property
  def learning_rate(self) -> Optional[float]:
    """The learning rate of clients without one of their own, or None."""
    return self._optimizers[0].learning_rate

  def begin_round(
    self,
    vector: tf.Tensor,
    specs: Sequence[tf.TensorSpec],
    round_num: tf.Tensor,
    learning_rate: Optional[tf.Tensor] = None,
    client_id: Optional[tf.Tensor] = None,
  ) -> Any:
    """See `LocalOptimizer.begin_round`."""
    parts = [vector] * len(self._optimizers)
    if self.keeps_state:
      sizes = [o.vector_size(specs) for o in self._optimizers]
      parts = tf.split(tf.ensure_shape(vector, [sum(sizes)]), sizes)
    # The server's training has no client.
    chosen = tf.constant(self._of_clients[-1])
    if client_id is not None:
      chosen = client_settings.of_client(self._of_clients, client_id)
    return chosen, [
      optimizer.begin_round(part, specs, round_num, learning_rate)
      for optimizer, part in zip(self._optimizers, parts)
    ]

  def next(
    self, state: Any, weights: list[tf.Tensor], gradients: list[tf.Tensor]
  ) -> tuple[Any, list[tf.Tensor]]:
    """Returns the state and the weights after one step."""
    chosen, states = state
    structure = states, weights

    def step(index):
      changed = list(states)
      changed[index], updated = self._optimizers[index].next(
        states[index], weights, gradients
      )
      tf.nest.assert_same_structure((changed, updated), structure)
      return tf.nest.flatten((changed, updated))

    flat = tf.switch_case(
      chosen,
      [functools.partial(step, i) for i in range(len(self._optimizers))],
    )
    states, updated = tf.nest.pack_sequence_as(structure, flat)
    return (chosen, states), updated

  def to_vector(self, state: Any) -> tf.Tensor:
    """See `LocalOptimizer.to_vector`; the states follow each other."""
    return tf.concat(
      [o.to_vector(part) for o, part in zip(self._optimizers, state[1])], axis=0
    )

  def initial_vector(self, specs: Sequence[tf.TensorSpec]) -> np.ndarray:
    """Returns the vector of a client that has not trained yet."""
    return np.concatenate([o.initial_vector(specs) for o in self._optimizers])

  def restarted(self, learning_rate: Optional[float] = None) -> ChosenOptimizer:
    """See `LocalOptimizer.restarted`."""
    return ChosenOptimizer(
      [o.restarted(learning_rate) for o in self._optimizers], self._of_clients
    )

  def clipped(self, clip_norm: Optional[float]) -> ChosenOptimizer:
    """See `LocalOptimizer.clipped`."""
    return ChosenOptimizer(
      [o.clipped(clip_norm) for o in self._optimizers], self._of_clients
    )


class GroupedOptimizer:
  """Trains groups of weights, each with its own optimizer.

  Local training uses it like a `LocalOptimizer`.
  """

  def __init__(
    self,
    optimizers: Sequence[LocalOptimizer | ChosenOptimizer],
    group_sizes: Sequence[int],
  ):
    """Initializes `GroupedOptimizer`.

    Args:
      optimizers: One optimizer per group. Only the first may keep its state.
      group_sizes: Number of weights of each group, in order.
    """
    self._optimizers = list(optimizers)
    self._sizes = list(group_sizes)

  def begin_round(
    self,
    vector: tf.Tensor,
    specs: Sequence[tf.TensorSpec],
    round_num: tf.Tensor,
    learning_rate: Optional[tf.Tensor] = None,
    client_id: Optional[tf.Tensor] = None,
  ) -> Any:
    """See `LocalOptimizer.begin_round`; `vector` is the first group's.

    A client's learning rate is that of all groups which have the first group's.
    """
    base = self._optimizers[0].learning_rate
    return tuple(
      optimizer.begin_round(
        vector,
        group,
        round_num,
        learning_rate if optimizer.learning_rate == base else None,
        client_id,
      )
      for optimizer, group in zip(self._optimizers, self._grouped(specs))
    )

  def next(
    self, state: Any, weights: list[tf.Tensor], gradients: list[tf.Tensor]
  ) -> tuple[Any, list[tf.Tensor]]:
    """Returns the state and the weights after one step."""
    states, updated = [], []
    for optimizer, part, own, group in zip(
      self._optimizers,
      state,
      self._grouped(weights),
      self._grouped(gradients),
    ):
      if group:
        part, own = optimizer.next(part, own, group)
      states.append(part)
      updated += own
    return tuple(states), updated

  def to_vector(self, state: Any) -> tf.Tensor:
    """Returns the kept state of the first group."""
    return self._optimizers[0].to_vector(state[0])

  def _grouped(self, items: Sequence[Any]) -> list[list[Any]]:
    groups, start = [], 0
    for size in self._sizes:
      groups.append(list(items[start : start + size]))
      start += size
    return groups


def _learning_rate_key() -> str:
  return tff.learning.optimizers.LEARNING_RATE_KEY
