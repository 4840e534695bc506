"""Flags of a run: where, how long, how often."""

import os

from absl import flags

from tff_fedsa import settings
from tff_fedsa import simulation
from tff_fedsa.client import local_training
from tff_fedsa.client import optimizer_config
from tff_fedsa.client import store_config
from tff_fedsa.data import task_spec
from tff_fedsa.execution import runtime
from tff_fedsa.maths import prototypes
from tff_fedsa.models import model_config
from tff_fedsa.runs import directory

flags.disclaim_key_flags()

# The settings of a run, besides those of its method.
SETTINGS = (
  simulation.SimulationConfig,
  store_config.StoreConfig,
  runtime.RuntimeConfig,
  task_spec.TaskSpec,
  model_config.ModelConfig,
  optimizer_config.OptimizerConfig,
  local_training.LocalTrainingConfig,
  prototypes.ClassMeanConfig,
)

# Flags that may differ when a run is resumed: they do not change its rounds.
FREE_WHEN_RESUMING = (
  'directory_layout',
  'experiment_name',
  'progress',
  'root_output_dir',
  *(
    setting.flag
    for cls in SETTINGS
    for setting in settings.fields_of(cls)
    if setting.free and setting.flag is not None
  ),
)


class RunDirFlags:
  """Where a run is, and what it shows: `build()` returns its directory."""

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
      directory.LAYOUTS,
      'Where the parts of a run are: all in {root_output_dir}/'
      '{experiment_name}; or, as in google-research/federated, in '
      '{root_output_dir}/checkpoints, /results and /logdir, each with a '
      'directory {experiment_name}.',
    )
    self.progress = flags.DEFINE_boolean(
      'progress', True, 'Whether to show a progress bar.'
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
