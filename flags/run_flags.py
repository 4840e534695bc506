"""Flags of a run: where, how long, how often."""

import os
import typing

from absl import flags

from flags import holders

if typing.TYPE_CHECKING:
  from tff_fedsa import simulation

flags.disclaim_key_flags()

# Flags that may differ when a run is resumed: they do not change its rounds.
FREE_WHEN_RESUMING = (
  'client_states',
  'client_states_memory_gb',
  'data_cache_dir',
  'data_dir',
  'directory_layout',
  'download',
  'experiment_name',
  'max_concurrent_clients',
  'patience',
  'progress',
  'root_output_dir',
  'rounds_per_checkpoint',
  'total_rounds',
  'workers',
)


# Where the parts of a run are. `run`: {root}/{name}/checkpoints, …;
# `by_kind`: {root}/checkpoints/{name}, {root}/results/{name},
# {root}/logdir/{name}, as in google-research/federated.
DIRECTORY_LAYOUTS = ('run', 'by_kind')


class RunDirFlags:
  """Defines the flags that name a run; `build()` returns its directory."""

  def __init__(self):
    self._experiment_name = flags.DEFINE_string(
      'experiment_name',
      None,
      'Name of the run: its directory under --root_output_dir. A run of that '
      'name is resumed. Default: the name of the algorithm.',
    )
    self._root_output_dir = flags.DEFINE_string(
      'root_output_dir', 'runs', 'Directory of all runs.'
    )
    self._directory_layout = flags.DEFINE_enum(
      'directory_layout',
      'run',
      DIRECTORY_LAYOUTS,
      'Where the parts of a run are: all in {root_output_dir}/'
      '{experiment_name}; or, as in google-research/federated, in '
      '{root_output_dir}/checkpoints, /results and /logdir, each with a '
      'directory {experiment_name}.',
    )
    flags.register_validator(
      self._experiment_name,
      lambda name: name is None
      or bool(name)
      and os.sep not in name
      and name not in '..',
      message='it must be the name of a directory, without a separator',
    )

  def build(self, algorithm: str) -> str:
    """Returns the path of the run's directory.

    Args:
      algorithm: Names the run where no flag does.
    """
    root = self._root_output_dir.value
    name = self._experiment_name.value or algorithm
    if self._directory_layout.value == 'by_kind':
      return os.path.join(root, 'results', name)
    return os.path.join(root, name)


class SimulationFlags:
  """Defines the flags of the round loop."""

  def __init__(self):
    self._protocol = flags.DEFINE_enum(
      'protocol',
      'personal',
      ['personal', 'global'],
      'personal (the paper): every client is tested on its own test examples. '
      'global: clients of one architecture, whose weights are averaged after '
      "each round, too; the averaged model is tested on the data set's own "
      'test set (--test_set=original, or per_domain). See docs/protocols.md.',
    )
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
      "Stop after so many rounds without a new best accuracy of the method's "
      'main classifier (prototype, else global_head, else head; with '
      '--protocol=global, head). Default: never.',
      lower_bound=1,
    )
    self._client_states = flags.DEFINE_enum(
      'client_states',
      'auto',
      ['auto', 'memory', 'disk'],
      'Where client states live between rounds; on disk (in the run directory) '
      'they may exceed memory. auto: in memory if those of all clients take no '
      'more than --client_states_memory_gb. Results are the same.',
    )
    self._client_states_memory_gb = flags.DEFINE_float(
      'client_states_memory_gb',
      4.0,
      'With --client_states=auto: gigabytes (10^9 bytes) that client states '
      'may take in memory.',
      lower_bound=0.0,
    )
    self.progress = flags.DEFINE_boolean(
      'progress', True, 'Whether to show a progress bar.'
    )

  @property
  def protocol(self) -> str:
    return self._protocol.value

  @property
  def sampling_seed(self) -> int:
    return self._sampling_seed.value

  @property
  def clients_per_round(self) -> 'typing.Optional[int]':
    return self._clients_per_round.value

  def keeps_on_disk(self, num_bytes: int) -> bool:
    """Returns whether client states live on disk between rounds.

    Args:
      num_bytes: Of the states of all clients.

    Raises:
      flags.IllegalFlagValueError: If the limit was set but has no effect.
    """
    where = self._client_states.value
    if where != 'auto':
      holders.refuse_vain(
        [self._client_states_memory_gb], f'--client_states={where}'
      )
      return where == 'disk'
    return num_bytes > 1e9 * self._client_states_memory_gb.value

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
      protocol=self._protocol.value,
    )


class RuntimeFlags:
  """Defines the flags of the runtime; `build()` starts it."""

  def __init__(self):
    self._runtime = flags.DEFINE_enum(
      'runtime',
      'in_process',
      ['in_process', 'native', 'remote'],
      'Where clients are computed: in this process, on its GPUs if it has any; '
      "in a child process, TFF's stock C++ runtime, on CPUs only; or on other "
      'machines, by such processes, see --workers.',
    )
    self._workers = flags.DEFINE_list(
      'workers',
      [],
      'With --runtime=remote: host:port of each worker, separated by commas. '
      '`python -m launch.worker` starts one on its host (docs/machines.md).',
    )
    self._max_concurrent_clients = flags.DEFINE_integer(
      'max_concurrent_clients',
      None,
      'Clients computed at a time (on each GPU or worker). Default: one per '
      'core, 2 on a GPU.',
      lower_bound=1,
    )
    self._intra_op_threads = flags.DEFINE_integer(
      'intra_op_threads',
      None,
      'Threads of one operation with --runtime=in_process. Default: the cores '
      'divided by the clients computed at a time. The last digits of results '
      'depend on it.',
      lower_bound=1,
    )

  def build(self, *, without_workers: bool = False) -> None:
    """Makes the runtime TFF's default.

    Args:
      without_workers: Computes in this process what `--runtime=remote` would
        send to workers: the results are the same, and they may be gone.

    Raises:
      flags.IllegalFlagValueError: If a flag was set that would be ignored, or
        `--workers` is missing.
    """
    runtime = self._runtime.value
    because = f'--runtime={runtime}'
    if runtime != 'in_process':
      holders.refuse_vain([self._intra_op_threads], because)
    if runtime != 'remote':
      holders.refuse_vain([self._workers], because)
    elif not self._workers.value:
      raise flags.IllegalFlagValueError(
        f'{because} needs --workers=host:port,…: where '
        '`python -m launch.worker` runs.'
      )
    max_concurrent_clients = self._max_concurrent_clients.value
    # Each imports TensorFlow and TFF.
    if runtime == 'native':
      from tff_fedsa.execution import native

      native.set_native_context(max_concurrent_clients=max_concurrent_clients)
    elif runtime == 'remote' and not without_workers:
      from tff_fedsa.execution.remote import contexts as remote

      remote.set_remote_context(
        self._workers.value, max_concurrent_clients=max_concurrent_clients
      )
    else:
      from tff_fedsa.execution.in_process import contexts

      contexts.set_in_process_context(
        max_concurrent_clients=max_concurrent_clients,
        intra_op_threads=self._intra_op_threads.value,
      )
