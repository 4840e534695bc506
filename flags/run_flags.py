"""Flags of a run: where, how long, how often."""

import os
import typing

from absl import flags

if typing.TYPE_CHECKING:
  from tff_fedsa import simulation

flags.disclaim_key_flags()

# Flags that may differ when a run is resumed: they do not change its rounds.
FREE_WHEN_RESUMING = (
  'data_dir',
  'download',
  'experiment_name',
  'max_concurrent_clients',
  'patience',
  'progress',
  'root_output_dir',
  'rounds_per_checkpoint',
  'total_rounds',
)


class RunDirFlags:
  """Defines the flags that name a run; `build()` returns its directory."""

  def __init__(self):
    self._experiment_name = flags.DEFINE_string(
      'experiment_name',
      'fedsa',
      'Name of the run: its directory under --root_output_dir. A run of that '
      'name is resumed.',
    )
    self._root_output_dir = flags.DEFINE_string(
      'root_output_dir', 'runs', 'Directory of all runs.'
    )
    flags.register_validator(
      self._experiment_name,
      lambda name: bool(name) and os.sep not in name and name not in '..',
      message='it must be the name of a directory, without a separator',
    )

  def build(self) -> str:
    """Returns the path of the run's directory."""
    return os.path.join(
      self._root_output_dir.value, self._experiment_name.value
    )


class SimulationFlags:
  """Defines the flags of the round loop."""

  def __init__(self):
    self._total_rounds = flags.DEFINE_integer(
      'total_rounds', 100, 'Communication rounds.', lower_bound=1
    )
    self._clients_per_round = flags.DEFINE_integer(
      'clients_per_round',
      None,
      'Clients drawn for each round. Default: all.',
      lower_bound=1,
    )
    self._sampling_seed = flags.DEFINE_integer(
      'sampling_seed',
      0,
      'Which clients take part, their order of examples and their dropout '
      'follow from it.',
    )
    self._rounds_per_evaluation = flags.DEFINE_integer(
      'rounds_per_evaluation',
      1,
      'All clients are evaluated every so many rounds, and at the end.',
      lower_bound=1,
    )
    self._rounds_per_checkpoint = flags.DEFINE_integer(
      'rounds_per_checkpoint',
      10,
      'A checkpoint every so many rounds, and at the end.',
      lower_bound=1,
    )
    self._patience = flags.DEFINE_integer(
      'patience',
      None,
      'Stop after so many rounds without a new best prototype accuracy. '
      'Default: never.',
      lower_bound=1,
    )
    self.client_states = flags.DEFINE_enum(
      'client_states',
      'memory',
      ['memory', 'disk'],
      'Where client states live between rounds; on disk they may exceed '
      'memory.',
    )
    self.progress = flags.DEFINE_boolean(
      'progress', True, 'Whether to show a progress bar.'
    )

  @property
  def sampling_seed(self) -> int:
    return self._sampling_seed.value

  def build(self) -> 'simulation.SimulationConfig':
    """Returns the `simulation.SimulationConfig`."""
    from tff_fedsa import simulation  # Imports TensorFlow and TFF.

    return simulation.SimulationConfig(
      total_rounds=self._total_rounds.value,
      clients_per_round=self._clients_per_round.value,
      sampling_seed=self._sampling_seed.value,
      rounds_per_evaluation=self._rounds_per_evaluation.value,
      rounds_per_checkpoint=self._rounds_per_checkpoint.value,
      patience=self._patience.value,
    )


class RuntimeFlags:
  """Defines the flags of the runtime; `build()` starts it."""

  def __init__(self):
    self._max_concurrent_clients = flags.DEFINE_integer(
      'max_concurrent_clients',
      None,
      'Clients computed at a time. Default: one per core.',
      lower_bound=1,
    )

  def build(self) -> None:
    """Makes TFF's runtime the default."""
    from tff_fedsa.execution import native  # Imports TensorFlow and TFF.

    native.set_native_context(
      max_concurrent_clients=self._max_concurrent_clients.value
    )
