"""An experiment from flags: everything that a launcher needs, in one place."""

import functools
import typing

from absl import flags

from flags import algorithm_flags
from flags import model_flags
from flags import optimizer_flags
from flags import run_flags
from flags import task_flags

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
    self.simulation_flags = run_flags.SimulationFlags()
    self.runtime_flags = run_flags.RuntimeFlags()
    self._task_flags = task_flags.TaskFlags()
    self._model_flags = model_flags.ModelFlags()
    self._optimizer_flags = optimizer_flags.OptimizerFlags('client')
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
    self._model_flags.check()
    self._optimizer_flags.build()
    self.algorithm_flags.refuse_ignored()
    self._check_protocol()

  @property
  def task_spec(self) -> 'tasks.TaskSpec':
    """The `TaskSpec` of `task`."""
    return self._task_flags.build()

  @property
  def protocol(self) -> str:
    """What is tested, on what: see `simulation.SimulationConfig`."""
    return self.simulation_flags.protocol

  def _check_protocol(self) -> None:
    if self.protocol == 'global':
      self._task_flags.check_global_test()
    if self.algorithm_flags.averages_weights(self.protocol):
      self._model_flags.refuse_client_init()

  @functools.cached_property
  def task(self) -> 'tasks.FederatedTask':
    """The `FederatedTask`."""
    from tff_fedsa.data import tasks

    self._check_protocol()
    return tasks.load_task(self.task_spec)

  @functools.cached_property
  def models(self) -> 'list[functional.FunctionalModel]':
    """One `FunctionalModel` per architecture."""
    return self._model_flags.build(self.task)

  @functools.cached_property
  def optimizer(self) -> 'local_optimizer.LocalOptimizer':
    """The `LocalOptimizer`."""
    return self._optimizer_flags.build()

  @functools.cached_property
  def process(self) -> 'composer.StatefulProcess':
    """The process of the method."""
    return self.algorithm_flags.build(
      self.models,
      self.task.input_spec,
      self.optimizer,
      model_seed=self._model_flags.model_seed,
      client_learning_rate=self._optimizer_flags.learning_rate,
      clients_per_round=(
        self.simulation_flags.clients_per_round or self.task.num_clients
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
      model_seed=self._model_flags.model_seed,
      sampling_seed=self.simulation_flags.sampling_seed,
      client_init=self._model_flags.client_init,
      optimizer=self.optimizer if self.optimizer.keeps_state else None,
    )

  def check_states(self, store: typing.Any) -> None:
    """Checks that client states of a checkpoint are those of these models.

    Args:
      store: The restored `ClientStateStore`.

    Raises:
      ValueError: If they are not: an own architecture was edited.
    """
    one_of_each = {i % len(self.models): i for i in store.client_ids()}
    for client_id in one_of_each.values():
      before = store.get(client_id).weights.size
      now = self.initial_state_fn(client_id).weights.size
      if before != now:
        raise ValueError(
          f'Client {client_id} has {before:,} weights in the checkpoint, '
          f'{self.architecture_of(client_id)!r} has {now:,}: the architecture '
          'has changed since. Restore it, or use another --experiment_name.'
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
