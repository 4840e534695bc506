"""A `tff.learning` optimizer with its state as one flat float32 vector."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Optional

from etils import epy
import numpy as np

from tff_fedsa.runs import errors

with epy.lazy_imports():
  import tensorflow as tf
  import tensorflow_federated as tff

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
  ) -> Any:
    """Returns the optimizer's state at the beginning of a client's round.

    Args:
      vector: float32[?], result of `to_vector`. Ignored if the state is reset.
      specs: Specifications of the trainable weights.
      round_num: int32 scalar, counted from 0.
    """
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


class GroupedOptimizer:
  """Trains groups of weights, each with its own optimizer.

  Local training uses it like a `LocalOptimizer`.
  """

  def __init__(
    self, optimizers: Sequence[LocalOptimizer], group_sizes: Sequence[int]
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
  ) -> Any:
    """See `LocalOptimizer.begin_round`; `vector` is the first group's."""
    return tuple(
      optimizer.begin_round(vector, group, round_num)
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
