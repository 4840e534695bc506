"""An experiment: a frozen description of a run, and the objects it builds."""

from __future__ import annotations

from collections.abc import (
  Callable,
  Collection,
  Iterator,
  Mapping,
  Sequence,
)
import contextlib
import difflib
import functools
import itertools
import os
import re
from typing import Any, Optional, TYPE_CHECKING

from etils import epy

from tff_fedsa import settings as settings_lib
from tff_fedsa import simulation as simulation_lib
from tff_fedsa.aggregation import aggregator_config
from tff_fedsa.aggregation import compression
from tff_fedsa.aggregation import secure
from tff_fedsa.algorithms import registry
from tff_fedsa.client import attack_config
from tff_fedsa.client import local_training
from tff_fedsa.client import optimizer_config
from tff_fedsa.client import store_config
from tff_fedsa.data import task_spec
from tff_fedsa.execution import runtime as runtime_lib
from tff_fedsa.field import field_config
from tff_fedsa.maths import prototypes
from tff_fedsa.models import model_config
from tff_fedsa.privacy import dp_config
from tff_fedsa.runs import directory as directory_lib
from tff_fedsa.runs import presets
from tff_fedsa.runs import warm_start as warm_start_lib
from tff_fedsa.server import sharing_config

with epy.lazy_imports():
  from tff_fedsa.client import attacks
  from tff_fedsa.client import client_state
  from tff_fedsa.data import own_data
  from tff_fedsa.data import tasks
  from tff_fedsa.data import testing
  from tff_fedsa.evaluation import client_evaluation
  from tff_fedsa.evaluation import global_evaluation
  from tff_fedsa.execution import current
  from tff_fedsa.models import own_models
  from tff_fedsa.models import tiers
  from tff_fedsa.runs import running
  from tff_fedsa.server import averaging

if TYPE_CHECKING:
  import numpy as np
  import tensorflow_federated as tff

  from tff_fedsa import composer
  from tff_fedsa.client import local_optimizer
  from tff_fedsa.models import functional
  from tff_fedsa.privacy import accounting
  from tff_fedsa.runs import recorders
  from tff_fedsa.runs import results

# The settings of every run.
_COMMON: tuple[type[settings_lib.Settings], ...] = (
  task_spec.TaskSpec,
  model_config.ModelConfig,
  optimizer_config.OptimizerConfig,
  local_training.LocalTrainingConfig,
  prototypes.ClassMeanConfig,
  sharing_config.SharingConfig,
  aggregator_config.AggregatorConfig,
  attack_config.AttackConfig,
  dp_config.DpConfig,
  compression.CompressionConfig,
  secure.SecureConfig,
  simulation_lib.SimulationConfig,
  field_config.FieldConfig,
  store_config.StoreConfig,
  runtime_lib.RuntimeConfig,
  warm_start_lib.WarmStartConfig,
  directory_lib.RunConfig,
)

# Attributes that are built on demand.
_BUILT = (
  'task',
  'models',
  'optimizer',
  'process',
  'evaluate',
  'initial_state_fn',
)

# The settings of a task that still apply to data that the user passes.
_OF_OWN_TASK = (
  'partition_seed',
  'train_fraction',
  'validation_fraction',
  'test_classes',
  'normalization',
  'image_size',
  'channels',
  'augment_crop_padding',
  'augment_flip',
  'augment_jitter',
  'augment_scaling',
  'augment_token_dropout',
)
_OF_OWN_MODELS = ('model_seed', 'client_init')


class Experiment:
  """Description of a run: data, models, method and length.

  Every setting is an argument with the name of its flag (docs/flags.md). Other
  settings have their defaults:

    Experiment(algorithm='fedsa', num_clients=20, alpha=0.1, total_rounds=20)

  An experiment is frozen. It reads and builds nothing before the first use.
  `task`, `models`, `process`, `evaluate` and `initial_state_fn` are the
  arguments of `simulation.run`. `run` calls it with them.

  Attributes:
    algorithm: Name of the method.
  """

  algorithm: str
  # Objects of settings by class.
  _groups: dict[Any, Any]
  _own_task: Any
  _own_models: Optional[tuple[Any, ...]]

  def __init__(
    self,
    task: Any = None,
    algorithm: str = 'fedsa',
    config: Optional[settings_lib.Settings] = None,
    models: Optional[Sequence[Any]] = None,
    **settings: Any,
  ):
    """Initializes `Experiment`.

    Args:
      task: A `TaskSpec`; or own data: a `FederatedTask`, a `ClientData` of
        `tff.simulation.datasets`, or for each client a pair of arrays (inputs,
        labels), a pair of such pairs (train, test), or a `ClientExamples`.
        Default: the data set of the settings.
      algorithm: Name of the method (`registry.names()`).
      config: The method's own settings, e.g. a `FedSAConfig`.
      models: Own models, Keras models or `FunctionalModel`s. Client i gets
        models[i % len(models)]. Default: the `family` of the settings.
      **settings: Values by the name of their flag. They override values of
        `task` and `config`.

    Raises:
      settings.SettingsError: If a name or a value is unknown, or if a value is
        out of range or has no effect.
    """
    known = registry.names()
    if algorithm not in known:
      raise settings_lib.SettingsError(
        f'Unknown `algorithm` {algorithm!r}{_hint(algorithm, known)}; known: '
        f'{", ".join(known)}.'
      )
    self.__dict__['algorithm'] = algorithm
    groups = {cls: cls() for cls in setting_classes()}
    own_task = None
    if isinstance(task, task_spec.TaskSpec):
      groups[task_spec.TaskSpec] = task
    else:
      own_task = task
    own_class = registry.get(algorithm).config
    if config is not None:
      if not isinstance(config, own_class):
        raise settings_lib.SettingsError(
          f'Expected config of {algorithm!r} to be a {own_class.__name__}, '
          f'found {config!r}.'
        )
      groups[own_class] = config
    for cls, values in _by_class(settings).items():
      groups[cls] = _changed(groups[cls], values)
    self.__dict__['_groups'] = groups
    self.__dict__['_own_task'] = own_task
    self.__dict__['_own_models'] = None if models is None else tuple(models)
    self._refuse_ignored()

  @classmethod
  def from_preset(cls, name: str, **settings: Any) -> Experiment:
    """Returns the experiment of a preset.

    Args:
      name: Name of a preset (`tff_fedsa.presets()` lists them), e.g.
        `fedsa.digits` or `paper/cifar10_htfe8`; or the path of a file of flags,
        e.g. a run's flags.txt.
      **settings: Values by the name of their flag. They override the preset.

    Raises:
      presets.PresetError: If there is no such preset.
      settings.SettingsError: See `Experiment`.
    """
    return cls.from_flags({**_parsed(presets.read(name)), **settings})

  @classmethod
  def from_flags(cls, values: Mapping[str, Any]) -> Experiment:
    """Returns the experiment that flags describe.

    Args:
      values: Values by the name of their flag, `algorithm` included.

    Raises:
      settings.SettingsError: See `Experiment`.
    """
    return cls(**values)

  @classmethod
  def from_arguments(cls, arguments: Sequence[str]) -> Experiment:
    """Returns the experiment that arguments of `tff-fedsa train` describe.

    Args:
      arguments: `--name=value` each; `--flagfile=PRESET` stands for its flags.

    Raises:
      presets.PresetError: If there is no such preset.
      settings.SettingsError: See `Experiment`.
    """
    return cls.from_flags(_parsed(presets.expand(arguments)))

  def replace(self, **changes: Any) -> Experiment:
    """Returns a copy of the experiment with other settings.

    Args:
      **changes: Arguments of `Experiment`. Another `algorithm` has its default
        settings, because the settings of the former method are dropped.

    Raises:
      settings.SettingsError: See `Experiment`.
    """
    arguments: dict[str, Any] = {
      'algorithm': self.algorithm,
      'models': self._own_models,
    }
    arguments['task'] = self._own_task
    if self._own_task is None:
      arguments['task'] = self.task_spec
    if changes.get('algorithm', self.algorithm) == self.algorithm:
      arguments['config'] = self.config
    # Objects come first, because named settings override their values.
    arguments.update(
      (name, changes.pop(name)) for name in tuple(arguments) if name in changes
    )
    if 'config' in changes:
      arguments['config'] = changes.pop('config')
    kept: dict[str, Any] = {}
    for group in self._groups.values():
      if type(group) in _COMMON and type(group) is not task_spec.TaskSpec:
        kept |= _given(group)
    if self._own_task is not None and arguments['task'] is self._own_task:
      kept |= _given(self.task_spec)
    return Experiment(**arguments, **{**kept, **changes})

  def flags(self) -> dict[str, Any]:
    """Returns the values of all flags by name, for all methods.

    Flags of data or models are left out if data or models are given as objects.
    """
    values: dict[str, Any] = {'algorithm': self.algorithm}
    for group in self._groups.values():
      values |= settings_lib.to_flags(group)
    for name in self._replaced_flags():
      values.pop(name, None)
    return dict(sorted(values.items()))

  @staticmethod
  def flag_defaults() -> dict[str, Any]:
    """Returns the defaults of all flags by name."""
    defaults: dict[str, Any] = {'algorithm': 'fedsa'}
    for cls in setting_classes():
      defaults |= settings_lib.to_flags(cls())
    return defaults

  @staticmethod
  def free_flags() -> list[str]:
    """Returns the flags that may change when a run is resumed."""
    return [
      setting.flag
      for cls in _COMMON
      for setting in settings_lib.fields_of(cls)
      if setting.free and setting.flag is not None
    ]

  @property
  def title(self) -> str:
    """Name of the method in papers."""
    return registry.get(self.algorithm).title

  @property
  def config(self) -> settings_lib.Settings:
    """The method's own settings."""
    return self._groups[registry.get(self.algorithm).config]

  @property
  def task_spec(self) -> task_spec.TaskSpec:
    """The settings of the data."""
    return self._groups[task_spec.TaskSpec]

  @property
  def model_config(self) -> model_config.ModelConfig:
    """The settings of the models."""
    return self._groups[model_config.ModelConfig]

  @property
  def optimizer_config(self) -> optimizer_config.OptimizerConfig:
    """The settings of the clients' optimizer."""
    return self._groups[optimizer_config.OptimizerConfig]

  @property
  def local(self) -> local_training.LocalTrainingConfig:
    """The settings of a client's training in a round."""
    return self._groups[local_training.LocalTrainingConfig]

  @property
  def aggregator(self) -> aggregator_config.AggregatorConfig:
    """The settings of the server's aggregator."""
    return self._groups[aggregator_config.AggregatorConfig]

  @property
  def attack(self) -> attack_config.AttackConfig:
    """The settings of the attack."""
    return self._groups[attack_config.AttackConfig]

  @property
  def dp(self) -> dp_config.DpConfig:
    """The settings of differential privacy."""
    return self._groups[dp_config.DpConfig]

  @property
  def compression(self) -> compression.CompressionConfig:
    """The settings of compression."""
    return self._groups[compression.CompressionConfig]

  @property
  def secure(self) -> secure.SecureConfig:
    """The settings of secure aggregation."""
    return self._groups[secure.SecureConfig]

  @property
  def simulation(self) -> simulation_lib.SimulationConfig:
    """The settings of the round loop."""
    return self._groups[simulation_lib.SimulationConfig]

  @property
  def field(self) -> field_config.FieldConfig:
    """The settings of the field."""
    return self._groups[field_config.FieldConfig]

  @property
  def store(self) -> store_config.StoreConfig:
    """The settings of the storage of client states."""
    return self._groups[store_config.StoreConfig]

  @property
  def runtime(self) -> runtime_lib.RuntimeConfig:
    """The settings of the runtime."""
    return self._groups[runtime_lib.RuntimeConfig]

  @property
  def warm_start(self) -> warm_start_lib.WarmStartConfig:
    """The settings of the state in which the run begins."""
    return self._groups[warm_start_lib.WarmStartConfig]

  @property
  def run_config(self) -> directory_lib.RunConfig:
    """The settings of directory, display and tracker."""
    return self._groups[directory_lib.RunConfig]

  @property
  def run_directory(self) -> directory_lib.RunDirectory:
    """The directory of the run, unless it is in memory."""
    return self.run_config.directory(self.algorithm)

  @property
  def sharing(self) -> sharing_config.SharingConfig:
    """The settings of what clients of one architecture share."""
    return self._groups[sharing_config.SharingConfig]

  @property
  def tests_averaged(self) -> bool:
    """True if averaged models are tested, and not the clients' own."""
    return (
      self.simulation.protocol == 'global'
      or registry.get(self.algorithm).averages_weights
    )

  @property
  def averages_models(self) -> bool:
    """True if all weights of clients are averaged."""
    sharing = self.sharing
    shares_all = sharing.share_weights == 'model' and sharing.share_statistics
    return shares_all or self.tests_averaged

  @property
  def averages_weights(self) -> bool:
    """True if clients begin a round with averaged weights, or a part."""
    return self.sharing.share_weights != 'none' or self.tests_averaged

  def check(self) -> None:
    """Checks the names of modules and architectures, without reading data.

    Raises:
      settings.SettingsError: If a module or an architecture is unknown.
    """
    if self._own_models is None:
      with _naming_flags(model_config.ModelConfig):
        self.model_config.members()

  @functools.cached_property
  def task(self) -> tasks.FederatedTask:
    """The data of all clients. Simulated attackers have no test examples.

    Raises:
      settings.SettingsError: If a round needs more clients than there are, or
        an attack more clients or classes.
    """
    if self._own_task is None:
      with _naming_flags(task_spec.TaskSpec):
        task = tasks.load_task(self.task_spec)
    else:
      task = own_data.to_task(self._own_task, self.task_spec)
    self.simulation.check_clients(task.num_clients)
    with _naming_flags(attack_config.AttackConfig):
      self.attack.check(self._num_trained(task), task.num_classes)
    # All numbers of a run are about honest clients.
    self.local.of_clients(task.num_clients)
    attackers = self.attack.attackers(self._num_trained(task))
    return testing.without_tests(task, attackers)

  @functools.cached_property
  def models(self) -> list[functional.FunctionalModel]:
    """One model per architecture."""
    spec, num_classes = self.task.input_spec, self.task.num_classes
    if self._own_models is not None:
      return own_models.to_functional(
        self._own_models, spec.model_shape, num_classes
      )
    with _naming_flags(model_config.ModelConfig):
      return self.model_config.build(
        spec, num_classes, embeddings=self.task.embeddings
      )

  @functools.cached_property
  def turns(self) -> tuple[int, ...]:
    """Positions of the clients' models: client i has turns[i % len(turns)]."""
    if self._own_models is not None:
      return tuple(range(len(self.models)))
    with _naming_flags(model_config.ModelConfig):
      return self.model_config.turns(self.task.input_spec)

  @functools.cached_property
  def optimizer(
    self,
  ) -> local_optimizer.LocalOptimizer | local_optimizer.ChosenOptimizer:
    """The clients' optimizer."""
    return self.optimizer_config.build_of_clients(
      self.local.of_clients(optimizer=self.optimizer_config.optimizer)
    )

  @functools.cached_property
  def account(self) -> Optional[accounting.Account]:
    """What the rounds cost in privacy; None without differential privacy.

    Raises:
      settings.SettingsError: If the rounds would exceed the budget.
    """
    with _naming_flags(dp_config.DpConfig):
      return self.dp.account(
        num_clients=self._num_trained(self.task),
        participants=self._participants,
        total_rounds=self.simulation.total_rounds,
        field=self.field,
      )

  @property
  def num_epochs(self) -> int | np.ndarray:
    """Epochs of a client's round, of all clients or of each that trains."""
    num_clients = self._num_trained(self.task)
    own = self.local.of_clients().epochs_of(num_clients)
    return self.local.num_epochs if own is None else own

  @property
  def _participants(self) -> int:
    return self.simulation.clients_per_round or self._num_trained(self.task)

  def _num_trained(self, task: tasks.FederatedTask) -> int:
    return task.num_clients - self.simulation.held_out_clients

  @functools.cached_property
  def process(self) -> composer.StatefulProcess:
    """The process of the method; see `composer`."""
    with _naming_flags(type(self.config)):
      return self._build_process()

  def _build_process(self) -> composer.StatefulProcess:
    attackers = self.attack.attackers(self._num_trained(self.task))
    return registry.build(
      self.algorithm,
      self.models,
      self.config,
      input_spec=self.task.input_spec,
      optimizer=self.optimizer,
      local=self.local,
      class_means=self._groups[prototypes.ClassMeanConfig],
      model_seed=self.model_config.model_seed,
      max_participants=self._participants,
      max_examples=self.task.max_train_examples,
      aggregator=self.aggregator,
      attack=attacks.Attack(self.attack, attackers, self.task.num_classes)
      if attackers
      else None,
      averaging=self._build_averaging(),
      compression=self.compression,
      secure=self.secure,
      privacy=self.dp.mechanism(
        self.account, self._participants, secure=self.secure.secure
      )
      if self.account is not None
      else None,
    )

  def _build_averaging(self) -> Optional[averaging.WeightAveraging]:
    sharing = self.sharing
    if self.simulation.protocol == 'global':
      sharing = sharing_config.SharingConfig('model')
    if sharing.share_weights == 'none':
      return None
    factory = None
    if self.aggregator.aggregator != 'anchor_screened':
      factory = self.aggregator.build()
    if factory is not None and len(self.models) > 1:
      raise settings_lib.SettingsError(
        'Averaged weights of several architectures have the `aggregator`=mean '
        f'only, found {self.aggregator.aggregator} and {len(self.models)} '
        'architectures. Take a `family` of one.'
      )
    return averaging.build_weight_averaging(
      self.models,
      tiers=tiers.Tiers(
        self.models,
        sharing.share_weights,
        statistics=sharing.share_statistics,
        mixing=sharing.share_mixing,
      ),
      model_seed=self.model_config.model_seed,
      aggregator_factory=factory,
    )

  @functools.cached_property
  def evaluate(self) -> tff.Computation:
    """Evaluation of clients, or of averaged models (protocol global)."""
    parts = self.models, self.task.input_spec, self.process.server_model_type
    metrics = self.simulation.metrics
    if self.simulation.protocol == 'global':
      return global_evaluation.build_global_evaluation(*parts, metrics=metrics)
    return client_evaluation.build_evaluation(
      *parts,
      tiers=None if self.tests_averaged else self.process.tiers,
      metrics=metrics,
    )

  @functools.cached_property
  def initial_state_fn(self) -> Callable[[int], client_state.ClientState]:
    """`fn(client_id) -> ClientState`, before the first round."""
    return client_state.build_initial_state_fn(
      self.models,
      turns=self.turns,
      model_seed=self.model_config.model_seed,
      sampling_seed=self.simulation.sampling_seed,
      client_init=self.model_config.client_init,
      optimizer=self.optimizer if self.optimizer.keeps_state else None,
    )

  def start_runtime(self) -> None:
    """Starts the runtime if none of ours is set."""
    current.start(self.runtime, secure_in_the_clear=self.secure.secure)

  def architecture_of(self, client_id: int) -> str:
    """Returns the name of a client's architecture."""
    return self.models[self.turns[client_id % len(self.turns)]].name

  def run(
    self,
    directory: Optional[str | os.PathLike[str]] = None,
    *,
    total_rounds: Optional[int] = None,
    progress: Optional[bool] = None,
    selection_fn: Optional[Callable[..., Sequence[int]]] = None,
    on_round: Callable[[int, Optional[Mapping[str, Any]]], None] = (
      lambda *_: None
    ),
    recorders: Sequence[recorders.Recorder] = (),
  ) -> results.Result:
    """Runs the experiment. Starts the runtime if none of ours is set.

    Args:
      directory: Directory for the files that `tff-fedsa train` writes. If it
        holds a run, the run resumes after its latest checkpoint. Default: the
        run is in memory and writes nothing.
      total_rounds: Communication rounds. Default: the value of the settings.
      progress: Whether to show a progress bar. Default: the value of the
        settings.
      selection_fn: Draws the clients of a round (see `field.selection.wrap`).
        Default: uniform draws. A run does not record this function, so pass it
        again to resume.
      on_round: Called as `on_round(round_num, row)` once at the beginning and
        after each round. `row` is None for rounds without evaluation.
      recorders: Your own recorders, which receive every row (see
        `runs.recorders.Recorder`).

    Raises:
      RunDirectoryError: If the directory can't be written, is owned by another
        program, or holds a run with other settings or data.
      CheckpointError: If a checkpoint can't be written, or none is whole.
      ValueError: If data, models and settings do not fit.
    """
    changes: dict[str, Any] = {}
    if total_rounds is not None:
      changes['total_rounds'] = total_rounds
    if directory is not None:
      layout = self.run_config.directory_layout
      changes |= directory_lib.names_of(os.fspath(directory), layout)
    experiment = self.replace(**changes)
    run = experiment.run_directory if directory is not None else None
    # Check now, because the preparation takes a while.
    if run is not None:
      directory_lib.refuse_owned(run)
    warm_start_lib.build_warm_start(experiment, run)
    self.start_runtime()
    if self.dp.is_used and selection_fn is not None:
      raise settings_lib.SettingsError(
        'The account of `dp` needs uniform draws: run without `selection_fn`.'
      )
    # No change affects these objects: they are built once for all runs.
    for name in _BUILT:
      # The number of rounds may decide the noise.
      if name != 'process' or experiment.account == self.account:
        experiment.__dict__[name] = getattr(self, name)
    if progress is None:
      progress = self.run_config.progress
    if directory is None:
      return running.run_in_memory(
        experiment,
        progress=progress,
        selection_fn=selection_fn,
        on_round=on_round,
        recorders=recorders,
      )
    return running.run_in_directory(
      experiment,
      progress=progress,
      selection_fn=selection_fn,
      on_round=on_round,
      recorders=recorders,
    )

  def __setattr__(self, name: str, value: Any) -> None:
    raise AttributeError(
      f'An experiment is frozen: use experiment.replace({name}=…).'
    )

  def __delattr__(self, name: str) -> None:
    raise AttributeError('An experiment is frozen.')

  def __eq__(self, other: Any) -> bool:
    if not isinstance(other, Experiment):
      return NotImplemented
    return (
      self.algorithm == other.algorithm
      and self._groups == other._groups
      and self._own_task is other._own_task
      and _same(self._own_models, other._own_models)
    )

  def __hash__(self) -> int:
    return hash((self.algorithm, repr(self._groups)))

  def __repr__(self) -> str:
    parts = []
    if self._own_task is not None:
      parts.append(f'task=<{type(self._own_task).__name__}>')
    parts.append(f'algorithm={self.algorithm!r}')
    if self._own_models is not None:
      parts.append(f'models=<{len(self._own_models)} models>')
    for group in self._groups.values():
      parts += [f'{name}={value!r}' for name, value in _given(group).items()]
    return f'Experiment({", ".join(parts)})'

  def ignored_flags(self) -> dict[str, str]:
    """Returns flags that have no effect with this method, data and models.

    Returns:
      Flag -> reason, which completes the sentence "would be ignored: …".
    """
    method = registry.get(self.algorithm)
    because = f'`algorithm`={self.algorithm}'
    found = self._replaced_flags()
    for cls in setting_classes():
      if cls not in (*_COMMON, method.config):
        found |= dict.fromkeys(_flags_of(cls), because)
    if not method.averages_classes:
      of_means = (*_flags_of(prototypes.ClassMeanConfig), 'prototypes')
      found |= dict.fromkeys(of_means, because)
    if not method.takes_aggregator:
      found |= dict.fromkeys(
        _flags_of(aggregator_config.AggregatorConfig),
        f'{method.title} has no other aggregator than its own',
      )
    if self.simulation.clients_per_round is None:
      found['over_selection'] = (
        'all clients take part, as there is no `clients_per_round`'
      )
    if self.runtime.runtime != 'in_process':
      found['batch_clients'] = f'`runtime`={self.runtime.runtime}'
    if self.averages_models:
      found['client_init'] = 'all clients begin with the averaged model'
    if method.averages_weights:
      of_sharing = _flags_of(sharing_config.SharingConfig)
      found |= dict.fromkeys(
        of_sharing, f'{method.title} averages whole models'
      )
    return found

  def _replaced_flags(self) -> dict[str, str]:
    """Returns flags that objects replace, and the reasons."""
    found: dict[str, str] = {}
    if self._own_task is not None:
      # A `FederatedTask` is complete; arrays still need some settings.
      is_ready = hasattr(self._own_task, 'input_spec')
      for name in _flags_of(task_spec.TaskSpec):
        if is_ready or name not in _OF_OWN_TASK:
          found[name] = 'the task is given'
    if self._own_models is not None:
      for name in _flags_of(model_config.ModelConfig):
        if name not in _OF_OWN_MODELS:
          found[name] = 'the models are given'
    return found

  def _refuse_ignored(self) -> None:
    """Refuses settings that have no effect, and impossible combinations."""
    ignored = self.ignored_flags()
    by_reason: dict[str, list[str]] = {}
    for group in self._groups.values():
      for name in _given(group):
        if name in ignored:
          by_reason.setdefault(ignored[name], []).append(f'`{name}`')
    if not by_reason:
      for group in self._groups.values():
        with _naming_flags(type(group)):
          group.refuse_ignored()
    if by_reason:
      raise settings_lib.SettingsError(
        ' '.join(
          f'{", ".join(names)} would be ignored: {reason}.'
          for reason, names in by_reason.items()
        )
      )
    self._refuse_unaccounted()
    self._refuse_insecure()
    if self.compression.compress != 'none' and self.attack.attack is not None:
      raise settings_lib.SettingsError(
        '`compress` and `attack` do not go together: attackers send float32.'
      )
    if self.simulation.protocol == 'global' and (
      self.sharing.share_weights == 'extractor'
      or not self.sharing.share_statistics
      or self.sharing.share_mixing != 1.0
    ):
      raise settings_lib.SettingsError(
        '`protocol`=global tests whole averaged models: it needs '
        '`share_weights`=model, statistics included, and `share_mixing`=1. '
        '`protocol`=personal tests clients that have a part of their own.'
      )
    method = registry.get(self.algorithm)
    if (
      self.aggregator.aggregator == 'anchor_screened'
      and not method.broadcasts_anchors
    ):
      raise settings_lib.SettingsError(
        '`aggregator`=anchor_screened needs a method with anchors (fedsa), '
        f'found `algorithm`={self.algorithm}.'
      )
    if self.attack.attack == 'targeted' and (
      self.simulation.protocol == 'global' or not method.averages_classes
    ):
      raise settings_lib.SettingsError(
        '`attack`=targeted moves the prototypes of a class: it needs a method '
        'with prototypes, tested at clients (`protocol`=personal).'
      )
    if self.simulation.protocol == 'global' and self._own_task is None:
      with _naming_flags(task_spec.TaskSpec):
        self.task_spec.check_global_test()

  def _refuse_unaccounted(self) -> None:
    """Refuses what the account of differential privacy does not cover."""
    if not self.dp.is_used:
      return
    method = registry.get(self.algorithm)
    is_local = self.dp.dp == 'local'
    possible = [
      m.name
      for m in registry.methods()
      if m.averages_classes or (is_local and m.collects_prototypes)
    ]
    why = f' {method.sees_clients}' if method.collects_prototypes else ''
    class_means = self._groups[prototypes.ClassMeanConfig]
    refused = {
      f'another `algorithm` than {self.algorithm} (it needs means by class: '
      f'{", ".join(possible)}).{why}': self.algorithm not in possible,
      '`share_weights`=none and `protocol`=personal': self.averages_weights,
      '`prototype_weighting`=clients': class_means.weighting != 'clients',
      '`aggregator`=mean': self.aggregator.aggregator != 'mean',
      'a run without `attack`': self.attack.attack is not None,
      '`compress`=none and `compress_down`=none': self.compression.is_used,
      '`over_selection`=1': self.field.over_selection > 1,
      'new models, without `init_from`': self.warm_start.init_from is not None,
    }
    if self.dp.dp == 'distributed':
      refused |= {
        '`secure`': not self.secure.secure,
        'all drawn clients to return, as each adds a share of the noise: no '
        '`availability`, `dropout` or `round_deadline`': bool(
          self.field.availability
          or self.field.dropout
          or self.field.round_deadline
        ),
      }
    for wanted, is_refused in refused.items():
      if is_refused:
        raise settings_lib.SettingsError(
          f'`dp`={self.dp.dp} needs {wanted.rstrip(".")}. docs/privacy.md says '
          'why.'
        )

  def _refuse_insecure(self) -> None:
    """Refuses what secure sums exclude."""
    if not self.secure.secure:
      return
    method = registry.get(self.algorithm)
    refused = {
      f'another `algorithm` than {self.algorithm}. {method.sees_clients}': (
        bool(method.sees_clients)
      ),
      '`aggregator`=mean. Other aggregators look at single clients.': (
        self.aggregator.aggregator != 'mean'
      ),
      'a run without `attack`. Simulated attackers know what the honest '
      'clients send.': self.attack.attack is not None,
      '`compress`=none. The server decodes the message of each client.': (
        self.compression.compress != 'none'
      ),
      "another `runtime` than native. TFF's stock runtime has no secure "
      'sums.': self.runtime.runtime == 'native',
    }
    for wanted, is_refused in refused.items():
      if is_refused:
        raise settings_lib.SettingsError(
          f'`secure` needs {wanted} docs/secure.md says more.'
        )


def load_run(
  directory: str | os.PathLike[str],
  *,
  round_num: Optional[int] = None,
  task: Any = None,
  models: Optional[Sequence[Any]] = None,
) -> results.Result:
  """Loads a run of `Experiment.run` or `tff-fedsa train`, finished or not.

  Args:
    directory: The run's directory.
    round_num: Round of the checkpoint. Default: the latest.
    task: The own data of the run; see `Experiment`.
    models: The own models of the run.

  Raises:
    RunDirectoryError: If there is no run, or it has no checkpoint.
    CheckpointError: If the checkpoint is damaged.
    ValueError: If the checkpoint belongs to other models.
  """
  run = directory_lib.open_existing(os.fspath(directory))
  recorded = directory_lib.read_flags(run)
  needed = [
    (what, name)
    for what, given, name, flag in (
      ('data', task, 'task', 'dataset'),
      ('models', models, 'models', 'family'),
    )
    if given is None and flag not in recorded
  ]
  if needed:
    raise directory_lib.RunDirectoryError(
      f'The run at {run.path!r} was given its '
      f'{" and ".join(what for what, _ in needed)} as objects: give them again '
      f'in Python, load_run(…, {", ".join(f"{name}=…" for _, name in needed)}).'
    )
  values = _parsed([f'--{name}={text}' for name, text in recorded.items()])
  # The user may have moved the directory.
  layout = values.get('directory_layout', 'run')
  values |= directory_lib.names_of(run.path, layout)
  experiment = Experiment(task=task, models=models, **values)
  current.start(experiment.runtime, without_workers=True)
  return running.load(experiment, round_num)


def setting_classes() -> tuple[type[settings_lib.Settings], ...]:
  """Returns all classes of settings: of every run, then of methods."""
  own = (method.config for method in registry.methods())
  return tuple(dict.fromkeys((*_COMMON, *own)))


def _by_flag() -> (
  dict[str, tuple[type[settings_lib.Settings], settings_lib.Setting]]
):
  return {
    setting.flag: (cls, setting)
    for cls in setting_classes()
    for setting in settings_lib.fields_of(cls)
    if setting.flag is not None
  }


def _by_class(
  values: Mapping[str, Any],
) -> dict[type[settings_lib.Settings], dict[str, Any]]:
  """Groups values by name of a flag.

  Raises:
    settings.SettingsError: If a name is no flag.
  """
  grouped: dict[type[settings_lib.Settings], dict[str, Any]] = {}
  known = _by_flag()
  for name, value in values.items():
    if name not in known:
      raise settings_lib.SettingsError(
        f'There is no setting {name!r}{_hint(name, known)}. docs/flags.md '
        'lists all.'
      )
    grouped.setdefault(known[name][0], {})[name] = value
  return grouped


def _changed(
  group: settings_lib.Settings, values: Mapping[str, Any]
) -> settings_lib.Settings:
  """Returns settings with some values changed, by the names of their flags."""
  cls = type(group)
  with _naming_flags(cls):
    return settings_lib.with_flags(group, values)


def _given(group: settings_lib.Settings) -> dict[str, Any]:
  """Returns the values that differ from the default, by name of their flags."""
  return {
    setting.flag: value
    for setting in settings_lib.fields_of(type(group))
    if setting.flag is not None
    and (value := getattr(group, setting.name)) != setting.default
  }


def _flags_of(cls: type[settings_lib.Settings]) -> tuple[str, ...]:
  return tuple(
    setting.flag
    for setting in settings_lib.fields_of(cls)
    if setting.flag is not None
  )


def _parsed(arguments: Sequence[str]) -> dict[str, Any]:
  """Returns values by the name of their flag, from arguments of a command.

  Raises:
    settings.SettingsError: If an argument is no flag, or its value is
      malformed.
  """
  known = _by_flag()
  values: dict[str, Any] = {}
  for argument in arguments:
    match = re.fullmatch(r'--?(\w+)(?:=(.*))?', argument, re.DOTALL)
    if match is None:
      raise settings_lib.SettingsError(
        f'Expected a flag, --name=value, found {argument!r}.'
      )
    name, text = match[1], match[2]
    if text is None and name not in known and name.startswith('no'):
      name, text = name.removeprefix('no'), 'false'
    if name == 'algorithm':
      values[name] = text
    elif name in known:
      value = settings_lib.parse(
        known[name][1], 'true' if text is None else text
      )
      values[name] = value
    else:
      raise settings_lib.SettingsError(
        f'There is no flag --{name}{_hint(name, known)}.'
      )
  return values


def _hint(name: str, known: Collection[str]) -> str:
  close = difflib.get_close_matches(name, known, 1)
  return f' (did you mean {close[0]!r}?)' if close else ''


def _same(one: Optional[Sequence[Any]], other: Optional[Sequence[Any]]) -> bool:
  """Returns whether two sequences hold the same objects."""
  missing = object()
  pairs = itertools.zip_longest(one or (), other or (), fillvalue=missing)
  return all(a is b for a, b in pairs)


@contextlib.contextmanager
def _naming_flags(cls: type[settings_lib.Settings]) -> Iterator[None]:
  """Replaces fields by flags in errors, because arguments have flags' names."""
  flags = {s.name: s.flag for s in settings_lib.fields_of(cls)}
  try:
    yield
  except settings_lib.SettingsError as error:
    raise settings_lib.SettingsError(
      re.sub(
        r'`(\w+)`',
        lambda match: f'`{flags.get(match[1]) or match[1]}`',
        error.text,
      )
    ) from error
