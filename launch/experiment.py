"""An experiment from flags: everything that a launcher needs, in one place."""

import functools
import typing

from absl import flags

from flags import algorithm_flags
from flags import generator
from flags import run_flags
from tff_fedsa import simulation
from tff_fedsa.client import optimizer_config
from tff_fedsa.client import store_config
from tff_fedsa.data import task_spec
from tff_fedsa.execution import runtime
from tff_fedsa.models import model_config

if typing.TYPE_CHECKING:
  from collections.abc import Callable

  import tensorflow_federated as tff

  from tff_fedsa import composer
  from tff_fedsa.client import client_state
  from tff_fedsa.client import local_optimizer
  from tff_fedsa.data import tasks
  from tff_fedsa.models import functional

flags.disclaim_key_flags()


class ExperimentFlags:
  """Defines the flags of an experiment; its properties are built on demand."""

  def __init__(self):
    others = set(flags.FLAGS)
    self.run_dir_flags = run_flags.RunDirFlags()
    self.simulation_flags = generator.SettingsFlags(simulation.SimulationConfig)
    self.store_flags = generator.SettingsFlags(store_config.StoreConfig)
    self.runtime_flags = generator.SettingsFlags(runtime.RuntimeConfig)
    self._task_flags = generator.SettingsFlags(task_spec.TaskSpec)
    self._model_flags = generator.SettingsFlags(model_config.ModelConfig)
    self._optimizer_flags = generator.SettingsFlags(
      optimizer_config.OptimizerConfig
    )
    self.algorithm_flags = algorithm_flags.AlgorithmFlags()
    self._names = sorted(set(flags.FLAGS) - others)

  def values(self) -> dict[str, typing.Any]:
    """Returns the values of all flags of an experiment, by name."""
    return {name: flags.FLAGS[name].value for name in self._names}

  def check(self) -> None:
    """Checks flags as far as that takes no data.

    Raises:
      flags.IllegalFlagValueError: If one was set that would be ignored.
      ValueError: If a value is unknown or out of range.
    """
    self._task_flags.build()
    with generator.naming_flags(model_config.ModelConfig):
      self.model_config.members()
    self._optimizer_flags.build()
    self.algorithm_flags.refuse_ignored()
    self._check_protocol()

  @property
  def task_spec(self) -> task_spec.TaskSpec:
    """The `TaskSpec` of `task`."""
    return self._task_flags.build()

  @property
  def protocol(self) -> str:
    """What is tested, on what: see `simulation.SimulationConfig`."""
    return self.simulation_flags.build().protocol

  @property
  def model_config(self) -> model_config.ModelConfig:
    """The `ModelConfig` of `models`."""
    return self._model_flags.build()

  def _check_protocol(self) -> None:
    if self.protocol == 'global':
      with generator.naming_flags(task_spec.TaskSpec):
        self.task_spec.check_global_test()
    if self.algorithm_flags.averages_weights(self.protocol):
      generator.refuse(
        [name for name in self._model_flags.given() if name == 'client_init'],
        'all clients begin with the averaged model',
      )

  @functools.cached_property
  def task(self) -> 'tasks.FederatedTask':
    """The `FederatedTask`."""
    from tff_fedsa.data import tasks

    self._check_protocol()
    return tasks.load_task(self.task_spec)

  @functools.cached_property
  def models(self) -> 'list[functional.FunctionalModel]':
    """One `FunctionalModel` per architecture."""
    with generator.naming_flags(model_config.ModelConfig):
      return self.model_config.build(
        self.task.input_spec.model_shape, self.task.num_classes
      )

  @functools.cached_property
  def optimizer(self) -> 'local_optimizer.LocalOptimizer':
    """The `LocalOptimizer`."""
    return self._optimizer_flags.build().build()

  @functools.cached_property
  def process(self) -> 'composer.StatefulProcess':
    """The process of the method."""
    return self.algorithm_flags.build(
      self.models,
      self.task.input_spec,
      self.optimizer,
      model_seed=self.model_config.model_seed,
      clients_per_round=(
        self.simulation_flags.build().clients_per_round or self.task.num_clients
      ),
      protocol=self.protocol,
    )

  @functools.cached_property
  def evaluate(self) -> 'tff.Computation':
    """What tests clients, or in protocol `global` the averaged model."""
    from tff_fedsa.evaluation import client_evaluation
    from tff_fedsa.evaluation import global_evaluation

    arguments = (
      self.models,
      self.task.input_spec,
      self.process.server_model_type,
    )
    if self.protocol == 'global':
      return global_evaluation.build_global_evaluation(*arguments)
    return client_evaluation.build_evaluation(*arguments)

  @functools.cached_property
  def initial_state_fn(self) -> 'Callable[[int], client_state.ClientState]':
    """`fn(client_id) -> ClientState`, before the first round."""
    from tff_fedsa.client import client_state

    return client_state.build_initial_state_fn(
      self.models,
      model_seed=self.model_config.model_seed,
      sampling_seed=self.simulation_flags.build().sampling_seed,
      client_init=self.model_config.client_init,
      optimizer=self.optimizer if self.optimizer.keeps_state else None,
    )

  def architecture_of(self, client_id: int) -> str:
    """Returns the name of a client's architecture."""
    return self.models[client_id % len(self.models)].name


def comparison() -> dict[str, typing.Any]:
  """Returns what `directory.differing` needs to know about flags."""
  return {
    'defaults': {name: flags.FLAGS[name].default for name in flags.FLAGS},
    'free': run_flags.FREE_WHEN_RESUMING,
  }
