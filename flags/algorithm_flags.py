"""Flags of the method: which, its own, and those that methods share."""

import dataclasses
import typing

from absl import flags

from flags import fedavg_flags
from flags import feddistill_flags
from flags import fedgen_flags
from flags import fedgh_flags
from flags import fedkd_flags
from flags import fedpcl_flags
from flags import fedproto_flags
from flags import fedprox_flags
from flags import fedsa_flags
from flags import fedtgp_flags
from flags import fml_flags
from flags import generator
from flags import holders
from flags import lg_fedavg_flags
from tff_fedsa.client import local_training
from tff_fedsa.maths import prototypes

if typing.TYPE_CHECKING:
  from tff_fedsa import composer

flags.disclaim_key_flags()

# Method -> its own flags, if it has any. Names are those of
# `tff_fedsa.algorithms.registry`, which is slow to import.
_METHODS = {
  'fedsa': fedsa_flags.FedSAFlags,
  'local': None,
  'fedproto': fedproto_flags.FedProtoFlags,
  'fedtgp': fedtgp_flags.FedTGPFlags,
  'lg_fedavg': lg_fedavg_flags.LGFedAvgFlags,
  'feddistill': feddistill_flags.FedDistillFlags,
  'fedgh': fedgh_flags.FedGHFlags,
  'fml': fml_flags.FMLFlags,
  'fedkd': fedkd_flags.FedKDFlags,
  'fedavg': fedavg_flags.FedAvgFlags,
  'fedprox': fedprox_flags.FedProxFlags,
  'fedgen': fedgen_flags.FedGenFlags,
  'fedpcl': fedpcl_flags.FedPCLFlags,
}
NAMES = tuple(_METHODS)

# Those that average weights in both protocols.
_AVERAGING_WEIGHTS = ('fedavg', 'fedprox')

# Those that average prototypes, or mean logits.
_AVERAGING = ('fedsa', 'fedproto', 'feddistill')


class AlgorithmFlags:
  """Defines the flags of all methods; `build(...)` returns the process."""

  def __init__(self):
    self._algorithm = flags.DEFINE_enum(
      'algorithm',
      'fedsa',
      NAMES,
      'Which method trains. Flags of the others are refused.',
    )
    self._local = generator.SettingsFlags(local_training.LocalTrainingConfig)
    self._prototypes = generator.SettingsFlags(prototypes.ClassMeanConfig)
    self._methods = {
      name: group() for name, group in _METHODS.items() if group is not None
    }

  @property
  def name(self) -> str:
    return self._algorithm.value

  @property
  def batch_size(self) -> int:
    return self._local.build().batch_size

  def averages_weights(self, protocol: str) -> bool:
    """Returns whether clients begin a round with averaged weights."""
    return protocol == 'global' or self.name in _AVERAGING_WEIGHTS

  def ignored(self) -> list[str]:
    """Returns the flags that have no effect with the chosen method."""
    ignored = [
      holder.name
      for name, group in self._methods.items()
      if name != self.name
      for holder in holders.of(group)
    ]
    if self.name not in _AVERAGING:
      ignored += [*self._prototypes.names, 'prototypes']
    return ignored

  def refuse_ignored(self) -> None:
    """Refuses flags that have no effect with the chosen method.

    Raises:
      flags.IllegalFlagValueError: If one was set.
    """
    generator.refuse(
      [
        n
        for n in self.ignored()
        if flags.FLAGS[n].value != flags.FLAGS[n].default
      ],
      f'--algorithm={self.name}',
    )

  def build(
    self,
    models: typing.Any,
    input_spec: typing.Any,
    optimizer: typing.Any,
    *,
    model_seed: int = 0,
    client_learning_rate: float = 0.01,
    clients_per_round: int = 20,
    protocol: str = 'personal',
  ) -> 'composer.StatefulProcess':
    """Returns the process.

    Args:
      models: One `FunctionalModel` per architecture.
      input_spec: Of the task.
      optimizer: The `LocalOptimizer`.
      model_seed: What a server trains starts from it.
      client_learning_rate: Of the optimizer; servers take the same by default.
      clients_per_round: How many take part in a round.
      protocol: See `simulation.SimulationConfig`.

    Raises:
      flags.IllegalFlagValueError: If a flag was set that would be ignored.
      ValueError: If a value does not fit; it is named.
      FileNotFoundError: If a file is missing.
    """
    # Imports TensorFlow and TFF.
    from tff_fedsa.algorithms import registry
    from tff_fedsa.server import averaging

    self.refuse_ignored()
    hyperparameters: dict[str, typing.Any] = {}
    if self.name in _AVERAGING:
      hyperparameters |= dataclasses.asdict(self._prototypes.build())
    if self.name in self._methods:
      hyperparameters |= self._methods[self.name].hyperparameters(
        models[0].num_classes, models[0].feature_dim
      )
    own = registry.hyperparameters(self.name)
    if 'model_seed' in own:
      hyperparameters['model_seed'] = model_seed
    if 'max_participants' in own:
      hyperparameters['max_participants'] = clients_per_round
    if hyperparameters.get('server_learning_rate', 0.0) is None:
      hyperparameters['server_learning_rate'] = client_learning_rate
    return registry.build(
      self.name,
      models,
      input_spec=input_spec,
      optimizer=optimizer,
      local=self._local.build(),
      averaging=averaging.build_weight_averaging(models, model_seed=model_seed)
      if protocol == 'global'
      else None,
      **hyperparameters,
    )
