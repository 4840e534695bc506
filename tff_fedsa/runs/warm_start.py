"""Warm start: a run begins with models of another run, or exported ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses
import glob
import os
import re
import tempfile
from typing import Any, Optional, TYPE_CHECKING

from etils import epy

from tff_fedsa import settings
from tff_fedsa.models import model_config
from tff_fedsa.runs import directory as directory_lib
from tff_fedsa.runs import errors

with epy.lazy_imports():
  import numpy as np

  from tff_fedsa.client import client_store
  from tff_fedsa.runs import checkpoints
  from tff_fedsa.runs import exporting

if TYPE_CHECKING:
  from tff_fedsa import experiment as experiment_lib

# Of exported models.
_SUFFIX = '.keras'

WarmStartFn = Callable[[Any, 'client_store.ClientStateStore'], Any]

# Settings of models that only matter to models that begin anew.
_OF_NEW_MODELS = (
  'model_seed',
  'client_init',
  'pretrained_weights',
  'architecture_modules',
)


@dataclasses.dataclass(frozen=True)
class WarmStartConfig(settings.Settings):
  """The state in which a run begins.

  Attributes:
    init_from: Directory of another run. The new run begins with the clients'
      states and the server's model of its latest checkpoint, in round 0. Data,
      rates, rounds, seeds and the number of clients may differ; clients that
      the other run lacks begin anew. Of a run of another method only the
      clients' models are taken. Or a model that `tff-fedsa export` wrote, with
      which all clients of its architecture begin, or a folder of them:
      client_3.keras is for client 3 alone. Default: all models are new.
  """

  init_from: Optional[str] = None


def build_warm_start(
  experiment: experiment_lib.Experiment,
  own: Optional[directory_lib.RunDirectory] = None,
  say: Callable[[str], None] = lambda _: None,
) -> Optional[WarmStartFn]:
  """Returns the function that gives a run the state of another run.

  Args:
    experiment: The new run.
    own: Its directory. Default: the run is in memory.
    say: Called with a line of text about what is taken.

  Returns:
    `fn(server_state, store) -> server_state`, which also fills the store; or
    None if the run begins anew or resumes, which does not need the other run.

  Raises:
    directory_lib.RunDirectoryError: If there is no such run, it has no
      checkpoint, or its models are others.
    UserError: If clients begin with averaged weights, which are not taken from
      exported models and runs of other methods; raised by the function, too,
      if models do not fit.
    checkpoints.CheckpointError: Raised by the function, if no checkpoint is
      whole or fits the new run.
  """
  path = experiment.warm_start.init_from
  if path is None or (own is not None and _rounds(own)):
    return None
  files = _exported(path)
  if files:
    _refuse_averaged(experiment, 'Exported models')
    return _build_from_files(experiment, files, say)
  other = directory_lib.open_existing(path)
  recorded = directory_lib.read_flags(other)
  different = _different_models(experiment, recorded)
  if different:
    raise directory_lib.RunDirectoryError(
      f'The models of the run at {path!r} are others: '
      f'{"; ".join(different)}. A run begins with models of its own '
      'architectures only.'
    )
  if not _rounds(other):
    raise directory_lib.RunDirectoryError(
      f'The run at {path!r} has no checkpoint yet.'
    )
  method = recorded.get('algorithm', 'fedsa')
  same_method = method == experiment.algorithm
  if not same_method:
    _refuse_averaged(experiment, f'The clients of {path!r} ({method})')

  def warm_start(server_state, store):
    manager = checkpoints.CheckpointManager(other.checkpoints)
    with tempfile.TemporaryDirectory() as scratch:
      # One client's state at a time: all may not fit in memory.
      source = client_store.DiskStore(experiment.initial_state_fn, scratch)
      restored = manager.restore(server_state if same_method else None, source)
      assert restored is not None  # It has a checkpoint.
      taken = [
        client_id
        for client_id in source.client_ids()
        if client_id < experiment.task.num_clients
      ]
      for client_id in taken:
        new, old = experiment.initial_state_fn(client_id), source.get(client_id)
        kept = {'weights': old.weights}
        if same_method:
          kept |= {
            name: getattr(old, name)
            for name in ('prototypes', 'counts', 'private')
          }
        store.put(client_id, new._replace(**kept))
    say(
      f'models of {len(taken)} clients'
      f'{" and of the server" if same_method else ""} after round '
      f'{restored.round_num} of {other.path}'
      f'{"" if same_method else f" ({method}): the server begins anew"}'
    )
    if not same_method:
      return server_state
    return restored.server_state._replace(
      round_num=np.zeros_like(restored.server_state.round_num)
    )

  return warm_start


def _exported(path: str) -> list[str]:
  """Returns the files of exported models; none if the path is a run's."""
  if path.endswith(_SUFFIX):
    return [path]
  if os.path.isdir(path) and not os.path.exists(
    directory_lib.RunDirectory(path).flags_file
  ):
    return sorted(glob.glob(os.path.join(glob.escape(path), f'*{_SUFFIX}')))
  return []


def _build_from_files(
  experiment: experiment_lib.Experiment,
  paths: Sequence[str],
  say: Callable[[str], None],
) -> WarmStartFn:
  """Returns the function that gives clients exported models."""

  def warm_start(server_state, store):
    models = experiment.models
    names = [model.name for model in models]
    of_architectures: dict[int, Any] = {}
    of_clients: dict[int, Any] = {}
    for path in paths:
      name, halves = exporting.read(path)
      if name not in names:
        raise errors.UserError(
          f'{path!r} has the architecture {name!r}; those of the run: '
          f'{", ".join(names)}.'
        )
      architecture = names.index(name)
      weights = models[architecture].weights_from_keras(halves)
      match = re.fullmatch(r'client_(\d+)\.keras', os.path.basename(path))
      if match and len(paths) > 1:
        of_clients[int(match[1])] = architecture, weights
      elif architecture in of_architectures:
        raise errors.UserError(
          f'{os.path.dirname(path)!r} has two models of the architecture '
          f'{name!r}. Name them client_<number>.keras, or leave one.'
        )
      else:
        of_architectures[architecture] = weights
    taken = 0
    for client_id in range(experiment.task.num_clients):
      new = experiment.initial_state_fn(client_id)
      own = int(new.architecture)
      architecture, weights = of_clients.get(
        client_id, (own, of_architectures.get(own))
      )
      if architecture != own:
        raise errors.UserError(
          f'client_{client_id}.keras has the architecture '
          f'{models[architecture].name!r}, but client {client_id} has '
          f'{models[own].name!r}.'
        )
      if weights is not None:
        store.put(client_id, new._replace(weights=weights))
        taken += 1
    say(
      f'models of {taken} of {experiment.task.num_clients} clients from '
      f'{len(paths)} exported: the server begins anew'
    )
    return server_state

  return warm_start


def _refuse_averaged(experiment: experiment_lib.Experiment, whose: str) -> None:
  """Refuses models of clients that would be overwritten in the first round."""
  if experiment.averages_weights:
    raise errors.UserError(
      f'{whose} have no averaged weights, with which clients begin here. Begin '
      'with a run of the same method that averages the same weights '
      '(--protocol, --share_weights), or without --init_from.'
    )


def _rounds(run: directory_lib.RunDirectory) -> list[int]:
  """Returns the rounds of a run's checkpoints. Creates no directory."""
  if not os.path.isdir(run.checkpoints):
    return []
  return checkpoints.CheckpointManager(run.checkpoints).rounds()


def _different_models(
  experiment: experiment_lib.Experiment, recorded: dict[str, str]
) -> list[str]:
  """Returns settings of models in which two runs differ."""
  values = settings.to_flags(experiment.model_config)
  compared = {
    name: value
    for name, value in values.items()
    if name in recorded and name not in _OF_NEW_MODELS
  }
  return directory_lib.differing(
    {name: recorded[name] for name in compared},
    compared,
    defaults=settings.to_flags(model_config.ModelConfig()),
    free=(),
  )
