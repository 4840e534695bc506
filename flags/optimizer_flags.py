"""Flags of an optimizer, with a prefix; refuses those of unchosen ones."""

import math
import typing

from absl import flags

from flags import holders

if typing.TYPE_CHECKING:
  from tff_fedsa.client import local_optimizer

flags.disclaim_key_flags()

# Optimizer -> its own hyperparameters besides the learning rate.
_HYPERPARAMETERS = {
  'sgd': {},
  'momentum': {'momentum': 0.9},
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
_SCHEDULES = ('constant', 'step', 'exponential', 'cosine')


class OptimizerFlags:
  """Defines the flags of an optimizer of `tff.learning.optimizers`."""

  def __init__(self, prefix: str):
    """Defines `--{prefix}_optimizer`, `--{prefix}_learning_rate` and so on.

    Args:
      prefix: E.g. 'client'.
    """
    self._prefix = prefix
    self._optimizer = flags.DEFINE_enum(
      f'{prefix}_optimizer',
      'sgd',
      list(_HYPERPARAMETERS),
      f'Optimizer of the {prefix}; momentum is sgd with --{prefix}_momentum.',
    )
    self._learning_rate = flags.DEFINE_float(
      f'{prefix}_learning_rate',
      0.01,
      f'Learning rate of the {prefix}.',
      lower_bound=0.0,
    )
    self._hyperparameters = {}
    for name in sorted({n for h in _HYPERPARAMETERS.values() for n in h}):
      users = [o for o, values in _HYPERPARAMETERS.items() if name in values]
      defaults = ', '.join(f'{o}: {_HYPERPARAMETERS[o][name]}' for o in users)
      self._hyperparameters[name] = flags.DEFINE_float(
        f'{prefix}_{name}',
        None,
        f'{name} of the optimizers that have one (default for {defaults}).',
        lower_bound=0.0,
      )
    self._state = flags.DEFINE_enum(
      f'{prefix}_optimizer_state',
      'reset',
      ['reset', 'keep'],
      'Whether the optimizer starts anew in every round (the reference) or '
      'momentum and the like last over rounds.',
    )
    self._schedule = flags.DEFINE_enum(
      f'{prefix}_learning_rate_schedule',
      'constant',
      list(_SCHEDULES),
      'How the learning rate changes from round to round: step multiplies it '
      'by the decay factor every so many rounds, exponential does so smoothly, '
      'cosine falls to 0 over so many rounds.',
    )
    self._schedule_rounds = flags.DEFINE_integer(
      f'{prefix}_learning_rate_schedule_rounds',
      None,
      'Rounds of a step, of an exponential decay by the factor, or of the '
      'whole cosine.',
      lower_bound=1,
    )
    self._schedule_factor = flags.DEFINE_float(
      f'{prefix}_learning_rate_decay_factor',
      0.1,
      'Factor of the schedules step and exponential.',
      lower_bound=0.0,
      upper_bound=1.0,
    )

  @property
  def learning_rate(self) -> float:
    return self._learning_rate.value

  def build(self) -> 'local_optimizer.LocalOptimizer':
    """Returns the `local_optimizer.LocalOptimizer`.

    Raises:
      flags.IllegalFlagValueError: If a flag was set that would be ignored, or
        one is missing.
    """
    import tensorflow_federated as tff  # Slow to import.

    from tff_fedsa.client import local_optimizer

    name = self._optimizer.value
    own = _HYPERPARAMETERS[name]
    holders.refuse_vain(
      [h for n, h in self._hyperparameters.items() if n not in own],
      f'--{self._prefix}_optimizer={name}',
    )
    values = {}
    for hyperparameter, default in own.items():
      value = self._hyperparameters[hyperparameter].value
      values[hyperparameter] = default if value is None else value
    optimizers = tff.learning.optimizers
    build_fn = {
      'sgd': optimizers.build_sgdm,
      'momentum': optimizers.build_sgdm,
      'adagrad': optimizers.build_adagrad,
      'rmsprop': optimizers.build_rmsprop,
      'adam': optimizers.build_adam,
      'adamw': optimizers.build_adamw,
      'yogi': optimizers.build_yogi,
    }[name]
    return local_optimizer.LocalOptimizer(
      build_fn(self._learning_rate.value, **values),
      learning_rate_fn=self._learning_rate_fn(),
      state=self._state.value,
    )

  def _learning_rate_fn(self):
    kind = self._schedule.value
    if kind == 'constant':
      holders.refuse_vain(
        [self._schedule_rounds, self._schedule_factor], 'the rate is constant'
      )
      return None
    if kind == 'cosine':
      holders.refuse_vain([self._schedule_factor], 'cosine falls to 0')
    rounds = self._schedule_rounds.value
    if rounds is None:
      raise flags.IllegalFlagValueError(
        f'--{self._schedule.name}={kind} needs --{self._schedule_rounds.name}.'
      )
    import tensorflow as tf

    rate, factor = self._learning_rate.value, self._schedule_factor.value

    def learning_rate_fn(round_num):
      progress = round_num / rounds
      if kind == 'cosine':
        return rate * 0.5 * (1 + tf.cos(math.pi * tf.minimum(progress, 1.0)))
      if kind == 'step':
        progress = tf.floor(progress)
      return rate * tf.pow(factor, progress)

    return learning_rate_fn
