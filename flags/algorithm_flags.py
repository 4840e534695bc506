"""Flags of the method: which, its own, and those that methods share."""

from __future__ import annotations

from typing import Any

from absl import flags
from etils import epy

from flags import generator
from tff_fedsa import settings
from tff_fedsa.algorithms import method as method_lib
from tff_fedsa.algorithms import registry
from tff_fedsa.client import local_training
from tff_fedsa.maths import prototypes

with epy.lazy_imports():
  from tff_fedsa import composer
  from tff_fedsa.server import averaging

flags.disclaim_key_flags()


class AlgorithmFlags:
  """The method."""

  def __init__(self):
    self._algorithm = flags.DEFINE_enum(
      'algorithm',
      'fedsa',
      registry.names(),
      'Which method trains. Flags of the others are refused.',
    )
    self._local = generator.SettingsFlags(local_training.LocalTrainingConfig)
    self._class_means = generator.SettingsFlags(prototypes.ClassMeanConfig)
    self._configs = {
      method.name: generator.SettingsFlags(method.config)
      for method in registry.methods()
    }

  @property
  def name(self) -> str:
    """The name of the chosen method."""
    return self._algorithm.value

  @property
  def method(self) -> method_lib.Method:
    """The chosen method."""
    return registry.get(self.name)

  @property
  def config(self) -> settings.Settings:
    """The hyper-parameters of the chosen method."""
    return self._configs[self.name].build()

  @property
  def batch_size(self) -> int:
    """Examples of one step."""
    return self._local.build().batch_size

  def averages_weights(self, protocol: str) -> bool:
    """Returns whether clients begin a round with averaged weights."""
    return protocol == 'global' or self.method.averages_weights

  def ignored(self) -> list[str]:
    """Returns the flags that have no effect with the chosen method."""
    ignored = [
      flag
      for name, group in self._configs.items()
      if name != self.name
      for flag in group.names
    ]
    if not self.method.averages_classes:
      ignored += [*self._class_means.names, 'prototypes']
    return ignored

  def refuse_ignored(self) -> None:
    """Refuses flags that have no effect with the chosen method.

    Raises:
      flags.IllegalFlagValueError: If one was set.
    """
    groups = (self._local, self._class_means, *self._configs.values())
    given = [flag for group in groups for flag in group.given()]
    ignored = self.ignored()
    generator.refuse(
      [flag for flag in given if flag in ignored], f'--algorithm={self.name}'
    )

  def build(
    self,
    models: Any,
    input_spec: Any,
    optimizer: Any,
    *,
    model_seed: int = 0,
    clients_per_round: int = 20,
    protocol: str = 'personal',
  ) -> composer.StatefulProcess:
    """Returns the process.

    Args:
      models: One `FunctionalModel` per architecture.
      input_spec: Of the task.
      optimizer: The `LocalOptimizer`.
      model_seed: What a server trains starts from it.
      clients_per_round: How many take part in a round.
      protocol: See `simulation.SimulationConfig`.

    Raises:
      flags.IllegalFlagValueError: If a flag was set that would be ignored.
      ValueError: If a value does not fit; it is named.
      FileNotFoundError: If a file is missing.
    """
    self.refuse_ignored()
    with generator.naming_flags(self.method.config):
      return registry.build(
        self.name,
        models,
        self.config,
        input_spec=input_spec,
        optimizer=optimizer,
        local=self._local.build(),
        class_means=self._class_means.build(),
        model_seed=model_seed,
        max_participants=clients_per_round,
        averaging=averaging.build_weight_averaging(
          models, model_seed=model_seed
        )
        if protocol == 'global'
        else None,
      )
