"""Settings of a client's optimizer."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import math
from typing import Annotated, ClassVar, Optional

from etils import epy

from tff_fedsa import settings
from tff_fedsa.client import local_optimizer

with epy.lazy_imports():
  import tensorflow as tf
  import tensorflow_federated as tff

  from tff_fedsa.client import client_settings
  from tff_fedsa.client import prepared_gradients

SCHEDULES = ('constant', 'step', 'exponential', 'cosine')

# Optimizer -> its hyper-parameters except the learning rate.
_HYPERPARAMETERS: dict[str, dict[str, float]] = {
  'sgd': {'weight_decay': 0.0},
  'momentum': {'momentum': 0.9, 'weight_decay': 0.0},
  'adagrad': {'initial_preconditioner_value': 0.0, 'epsilon': 1e-7},
  'rmsprop': {'decay': 0.9, 'epsilon': 1e-7},
  'adam': {'beta_1': 0.9, 'beta_2': 0.999, 'epsilon': 1e-7},
  'adamw': {
    'beta_1': 0.9,
    'beta_2': 0.999,
    'epsilon': 1e-7,
    'weight_decay': 0.004,
  },
  'yogi': {'beta_1': 0.9, 'beta_2': 0.999, 'epsilon': 1e-3},
}

_NonNegative = Annotated[Optional[float], settings.AtLeast(0.0)]


@dataclasses.dataclass(frozen=True)
class OptimizerConfig(settings.Settings):
  """The clients' optimizer, one of `tff.learning.optimizers`.

  The defaults of hyper-parameters are those of TFF. The default of the weight
  decay is that of Keras.

  Attributes:
    optimizer: Optimizer of the clients; momentum is sgd with `momentum`.
    learning_rate: Learning rate of the clients, >= 0.
    beta_1: Decay of the first moment (default for adam, adamw, yogi: 0.9).
    beta_2: Decay of the second moment (default for adam, adamw, yogi: 0.999).
    decay: Decay of the mean of squared gradients (default for rmsprop: 0.9).
    epsilon: Added to the divisor (default for adagrad, rmsprop, adam, adamw:
      1e-07; yogi: 0.001).
    initial_preconditioner_value: Initial sum of squared gradients (default for
      adagrad: 0.0).
    momentum: Momentum coefficient (default for momentum: 0.9).
    weight_decay: Weight decay (default for adamw, where it is decoupled: 0.004;
      sgd and momentum, where it is added to gradients as in PyTorch: 0.0).
    clip_norm: Largest norm of the gradient of a step, > 0. A larger gradient is
      scaled down to it. Default: gradients are not clipped.
    optimizer_state: State of the optimizer between rounds. reset: each round
      starts with a new state (the reference). keep: the state, e.g. momentum,
      stays.
    learning_rate_schedule: Change of the learning rate over rounds. step
      multiplies it by `learning_rate_decay_factor` every
      `learning_rate_schedule_rounds` rounds. exponential does so smoothly.
      cosine lowers it to 0 within this many rounds.
    learning_rate_schedule_rounds: Rounds of one step, of an exponential decay
      by the factor, or of the whole cosine, >= 1.
    learning_rate_decay_factor: Factor of the schedules step and exponential,
      in [0, 1].
  """

  flag_prefix: ClassVar[str] = 'client_'

  optimizer: Annotated[str, settings.OneOf(tuple(_HYPERPARAMETERS))] = 'sgd'
  learning_rate: Annotated[float, settings.AtLeast(0.0)] = 0.01
  beta_1: _NonNegative = None
  beta_2: _NonNegative = None
  decay: _NonNegative = None
  epsilon: _NonNegative = None
  initial_preconditioner_value: _NonNegative = None
  momentum: _NonNegative = None
  weight_decay: _NonNegative = None
  clip_norm: Annotated[Optional[float], settings.Above(0.0)] = None
  optimizer_state: Annotated[
    str, settings.OneOf(local_optimizer.OPTIMIZER_STATES)
  ] = 'reset'
  learning_rate_schedule: Annotated[str, settings.OneOf(SCHEDULES)] = 'constant'
  learning_rate_schedule_rounds: Annotated[
    Optional[int], settings.AtLeast(1)
  ] = None
  learning_rate_decay_factor: Annotated[
    float, settings.AtLeast(0.0), settings.AtMost(1.0)
  ] = 0.1

  def __post_init__(self):
    super().__post_init__()
    if (
      self.learning_rate_schedule != 'constant'
      and self.learning_rate_schedule_rounds is None
    ):
      raise settings.SettingsError(
        f'`learning_rate_schedule`={self.learning_rate_schedule} needs '
        '`learning_rate_schedule_rounds`.'
      )

  def without_effect(self) -> Mapping[str, str]:
    """Returns the fields that the other fields make pointless."""
    own = _HYPERPARAMETERS[self.optimizer]
    pointless = {
      name: f'`optimizer`={self.optimizer}'
      for values in _HYPERPARAMETERS.values()
      for name in values
      if name not in own
    }
    if self.learning_rate_schedule == 'constant':
      pointless |= {
        'learning_rate_schedule_rounds': 'the rate is constant',
        'learning_rate_decay_factor': 'the rate is constant',
      }
    if self.learning_rate_schedule == 'cosine':
      pointless['learning_rate_decay_factor'] = 'cosine falls to 0'
    return pointless

  def build_of_clients(
    self, own: client_settings.ClientSettings
  ) -> local_optimizer.LocalOptimizer | local_optimizer.ChosenOptimizer:
    """Returns the optimizer of clients that may have optimizers of their own.

    Args:
      own: Settings of single clients.

    Raises:
      SettingsError: If the optimizer of a client is unknown.
    """
    if own.optimizer is None:
      return self.build()
    return local_optimizer.ChosenOptimizer(
      [
        dataclasses.replace(self, optimizer=name).build()
        for name in own.optimizers
      ],
      own.optimizer,
    )

  def build(self) -> local_optimizer.LocalOptimizer:
    """Returns the `local_optimizer.LocalOptimizer`."""
    values = {}
    for name, default in _HYPERPARAMETERS[self.optimizer].items():
      value = getattr(self, name)
      values[name] = default if value is None else value
    optimizers = tff.learning.optimizers
    build_fn = {
      'sgd': optimizers.build_sgdm,
      'momentum': optimizers.build_sgdm,
      'adagrad': optimizers.build_adagrad,
      'rmsprop': optimizers.build_rmsprop,
      'adam': optimizers.build_adam,
      'adamw': optimizers.build_adamw,
      'yogi': optimizers.build_yogi,
    }[self.optimizer]
    # Other optimizers have none, or their own.
    added = (
      0.0 if self.optimizer == 'adamw' else values.pop('weight_decay', 0.0)
    )
    optimizer = build_fn(self.learning_rate, **values)
    if added or self.clip_norm is not None:
      optimizer = prepared_gradients.PreparedGradients(
        optimizer, weight_decay=added, clip_norm=self.clip_norm
      )
    constant = self.learning_rate_schedule == 'constant'
    return local_optimizer.LocalOptimizer(
      optimizer,
      learning_rate_fn=None if constant else self.learning_rate_at,
      state=self.optimizer_state,
    )

  def learning_rate_at(self, round_num: tf.Tensor) -> tf.Tensor:
    """Returns the learning rate of a round.

    Args:
      round_num: float32 scalar, counted from 0.
    """
    rate = self.learning_rate
    if self.learning_rate_schedule_rounds is None:
      return tf.constant(rate)
    progress = round_num / self.learning_rate_schedule_rounds
    if self.learning_rate_schedule == 'cosine':
      return rate * 0.5 * (1 + tf.cos(math.pi * tf.minimum(progress, 1.0)))
    if self.learning_rate_schedule == 'step':
      progress = tf.floor(progress)
    return rate * tf.pow(self.learning_rate_decay_factor, progress)
