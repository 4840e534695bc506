"""Lets experiments that differ in seeds only share traced computations."""

from typing import Any

from tff_fedsa import experiment as experiment_lib
from tff_fedsa.runs import errors

# Parts of a first server model that are zeros, whatever the seeds are.
_WITHOUT_SEED = ('prototypes', 'present', 'client_prototypes', 'participated')


def share_traces(
  base: experiment_lib.Experiment, seeded: experiment_lib.Experiment
) -> None:
  """Gives an experiment the computations of another one.

  Args:
    base: The other, which differs in seeds only.
    seeded: The experiment that gets them.

  Raises:
    UserError: If the method's first server model has more than anchors,
      prototypes and weights.
  """
  from tff_fedsa.execution import current

  current.start(base.runtime)
  for name in ('models', 'optimizer', 'evaluate'):
    seeded.__dict__[name] = getattr(base, name)
  first = base.process.initialize()
  model = first.model
  fields = set(getattr(model, '_fields', ()))
  if fields - {'anchors', 'weights', *_WITHOUT_SEED}:
    raise errors.UserError(
      f'The first server model of {base.algorithm} has {sorted(fields)}: use '
      'tff-fedsa sweep.'
    )
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
