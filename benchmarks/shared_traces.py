"""Lets experiments that differ in seeds only share traced computations."""

from typing import Any

from tff_fedsa import experiment as experiment_lib

# Parts of a first server model that are zeros, whatever the seeds are.
_WITHOUT_SEED = ('prototypes', 'present', 'client_prototypes', 'participated')
# Seeds that no computation of a process holds. Others, such as that of noise,
# are constants in a trace.
_OUTSIDE_TRACES = {
  'anchor_seed',
  'field_seed',
  'model_seed',
  'partition_seed',
  'sampling_seed',
}


def share_traces(
  base: experiment_lib.Experiment, seeded: experiment_lib.Experiment
) -> None:
  """Gives an experiment the computations of another one.

  Models, optimizer and evaluation are shared. The process is shared where no
  seed is part of its computations and its first state is known for each seed.

  Args:
    base: The other, which differs in seeds only.
    seeded: The experiment that gets them.
  """
  base.start_runtime()
  for name in ('models', 'optimizer', 'evaluate'):
    seeded.__dict__[name] = getattr(base, name)
  flags = base.flags()
  differing = {
    name for name, value in seeded.flags().items() if value != flags.get(name)
  }
  if differing - _OUTSIDE_TRACES:
    return
  first = base.process.initialize()
  if not differing & {'anchor_seed', 'model_seed'}:
    seeded.__dict__['process'] = _Seeded(base.process, first)
    return
  model = first.model
  fields = set(getattr(model, '_fields', ()))
  if (
    fields - {'anchors', 'weights', *_WITHOUT_SEED}
    # Messages to clients are relative to the initial anchors.
    or base.compression.compress_down != 'none'
  ):
    return
  config: Any = seeded.config
  changes: dict[str, Any] = {}
  if 'anchors' in fields:
    changes['anchors'] = config.initial_anchors(*model.anchors.shape)
  if base.process.tiers is not None:
    changes['weights'] = base.process.tiers.initial_weights(
      seeded.model_config.model_seed
    )
  if changes:
    first = first._replace(model=model._replace(**changes))
  seeded.__dict__['process'] = _Seeded(base.process, first)


class _Seeded:
  """A process with another first state."""

  def __init__(self, process: Any, first: Any):
    self._process = process
    self._first = first

  def initialize(self) -> Any:
    return self._first

  def __getattr__(self, name: str) -> Any:
    return getattr(self._process, name)
