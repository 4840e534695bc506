"""Recorders that send rows and settings to MLflow or Weights & Biases.

Both libraries are optional. Their own environment variables say where rows go:
MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME; WANDB_PROJECT, WANDB_ENTITY and
WANDB_MODE (offline needs no account).
"""

import abc
from collections.abc import Mapping, Sequence
import hashlib
import importlib
import logging
import math
import os
import time
from typing import Any, Optional

from tff_fedsa.runs import errors
from tff_fedsa.runs import recorders

NAMES = ('none', 'mlflow', 'wandb')

_PROJECT = 'tff_fedsa'
# Longest value of a setting that MLflow takes.
_LONGEST_PARAM = 6000


def build(
  name: str,
  *,
  title: str,
  settings: Mapping[str, Any],
  directory: Optional[str] = None,
) -> list[recorders.Recorder]:
  """Returns the recorder of a tracker in a list, which is empty for `none`.

  Args:
    name: One of `NAMES`.
    title: Name of the run there.
    settings: Settings of the run, by the name of their flag.
    directory: Directory of the run. A resumed run goes on under the same name
      there. Without a directory each run is a new one.

  Raises:
    UserError: If the library is missing, or does not accept the run.
  """
  if name == 'none':
    return []
  library = _imported(name)
  key = None
  if directory is not None:
    key = hashlib.sha1(os.path.abspath(directory).encode()).hexdigest()[:16]
  recorder = {'mlflow': MLflowRecorder, 'wandb': WandbRecorder}[name]
  try:
    return [recorder(library, title, settings, key)]
  except Exception as error:
    raise errors.UserError(
      f'tracker={name}: the run could not be started there: {error}'
    ) from error


class _Tracker(abc.ABC):
  """A recorder whose failures end no run: metrics.csv has all rows."""

  def record(self, row: recorders.Row) -> None:
    numbers = {
      name: float(value)
      for name, value in row.items()
      if name != 'round' and math.isfinite(value)
    }
    self._guarded(f'round {row["round"]}', self._log, row['round'], numbers)

  def rewind(self, history: Sequence[recorders.Row]) -> None:
    del history  # A resumed run repeats rows with the same numbers and steps.

  def close(self) -> None:
    self._guarded('the end of the run', self._finish)

  @abc.abstractmethod
  def _log(self, step: int, numbers: Mapping[str, float]) -> None:
    """Sends the numbers of a round."""

  @abc.abstractmethod
  def _finish(self) -> None:
    """Ends the run there."""

  def _guarded(self, what: str, fn: Any, *args: Any) -> None:
    try:
      fn(*args)
    except Exception as error:
      logging.warning(
        '%s did not take %s: %s. The files of the run have it.',
        type(self).__name__.removesuffix('Recorder'),
        what,
        error,
      )


class MLflowRecorder(_Tracker):
  """Sends settings as parameters and rows as metrics to MLflow."""

  def __init__(
    self,
    mlflow: Any,
    title: str,
    settings: Mapping[str, Any],
    key: Optional[str],
  ):
    """Initializes `MLflowRecorder`. For the arguments see `build`."""
    self._entities = mlflow.entities
    self._client = mlflow.MlflowClient()
    name = os.environ.get('MLFLOW_EXPERIMENT_NAME', _PROJECT)
    experiment_id = mlflow.set_experiment(name).experiment_id
    found = []
    if key is not None:
      found = self._client.search_runs(
        [experiment_id], f"tags.`{_PROJECT}.key` = '{key}'", max_results=1
      )
    if found:
      self._run_id = found[0].info.run_id
      return
    tags = {} if key is None else {f'{_PROJECT}.key': key}
    run = self._client.create_run(experiment_id, tags=tags, run_name=title)
    self._run_id = run.info.run_id
    self._client.log_batch(
      self._run_id,
      params=[
        self._entities.Param(flag, str(value)[:_LONGEST_PARAM])
        for flag, value in settings.items()
      ],
    )

  def _log(self, step: int, numbers: Mapping[str, float]) -> None:
    now = int(time.time() * 1000)
    self._client.log_batch(
      self._run_id,
      metrics=[
        self._entities.Metric(name, value, now, step)
        for name, value in numbers.items()
      ],
    )

  def _finish(self) -> None:
    self._client.set_terminated(self._run_id)


class WandbRecorder(_Tracker):
  """Sends settings as config and rows as history to Weights & Biases."""

  def __init__(
    self,
    wandb: Any,
    title: str,
    settings: Mapping[str, Any],
    key: Optional[str],
  ):
    """Initializes `WandbRecorder`. For the arguments see `build`."""
    self._run = wandb.init(
      project=os.environ.get('WANDB_PROJECT', _PROJECT),
      name=title,
      id=key,
      config=dict(settings),
      resume='allow',
    )

  def _log(self, step: int, numbers: Mapping[str, float]) -> None:
    self._run.log(dict(numbers), step=step)

  def _finish(self) -> None:
    self._run.finish()


def _imported(name: str) -> Any:
  try:
    return importlib.import_module(name)
  except ImportError as error:
    raise errors.UserError(
      f'tracker={name} needs the package {name} (pip install {name}): {error}'
    ) from error
