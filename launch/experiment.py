"""Builds an experiment from flags."""

from typing import Any

from absl import flags

from flags import generator
from launch import errors
from tff_fedsa import experiment
from tff_fedsa import settings
from tff_fedsa.algorithms import registry
from tff_fedsa.data import task_spec

flags.disclaim_key_flags()


class ExperimentFlags:
  """The method.

  This defines `--algorithm` and the flags of all settings of an experiment.
  `build()` returns the `Experiment`.
  """

  def __init__(self):
    self._algorithm = flags.DEFINE_enum(
      'algorithm',
      'fedsa',
      registry.names(),
      'The method. Flags of other methods are refused.',
    )
    self._groups = {
      cls.__name__: generator.SettingsFlags(cls)
      for cls in experiment.setting_classes()
    }

  def values(self) -> dict[str, Any]:
    """Returns the values of all flags of an experiment, by name."""
    names = [self._algorithm.name]
    for group in self._groups.values():
      names += group.names
    return {name: flags.FLAGS[name].value for name in sorted(names)}

  def task_spec(self) -> task_spec.TaskSpec:
    """Returns the settings of the data. Other flags have no effect.

    Raises:
      flags.IllegalFlagValueError: If a value does not fit.
    """
    return self._groups[task_spec.TaskSpec.__name__].build()

  def build(self) -> experiment.Experiment:
    """Returns the experiment that the flags describe.

    Raises:
      flags.IllegalFlagValueError: If a value does not fit, or a flag is set but
        has no effect.
    """
    try:
      built = experiment.Experiment.from_flags(self.values())
      built.check()
    except settings.SettingsError as error:
      raise flags.IllegalFlagValueError(errors.in_flags(error)) from error
    return built
