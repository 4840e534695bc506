"""The result of a run: numbers, figures, and every client's model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import functools
import html
from typing import Any, Optional, TYPE_CHECKING

import numpy as np
import pandas

from tff_fedsa.client import client_state as client_state_lib
from tff_fedsa.client import client_store
from tff_fedsa.data import packing
from tff_fedsa.evaluation import client_evaluation
from tff_fedsa.reporting import classification_figures
from tff_fedsa.reporting import feature_space
from tff_fedsa.reporting import figures as figures_lib
from tff_fedsa.reporting import summary as summary_lib
from tff_fedsa.runs import directory as directory_lib
from tff_fedsa.runs import errors
from tff_fedsa.runs import exporting

if TYPE_CHECKING:
  import matplotlib.figure
  import tensorflow as tf

  from tff_fedsa import experiment as experiment_lib
  from tff_fedsa.models import tiers as tiers_lib

_EXAMPLES_AT_A_TIME = 256


class TrainedModel:
  """The model of a client, or the averaged model, with its classifiers.

  Attributes:
    name: Name of the architecture.
    client_id: The client; None for an averaged model.
    classifiers: Names of the method's classifiers, e.g. `prototype`, `head`.
  """

  def __init__(
    self,
    experiment: experiment_lib.Experiment,
    server_model: Any,
    *,
    architecture: int,
    weights: np.ndarray,
    client_id: Optional[int] = None,
    state: Optional[client_state_lib.ClientState] = None,
  ):
    """Initializes `TrainedModel`. Users call `Result.client`."""
    self.client_id = client_id
    self._task = experiment.task
    self._state = state
    self._server_model = server_model
    self._weights = weights
    self._model = experiment.models[architecture]
    self.name = self._model.name

  @functools.cached_property
  def keras_model(self) -> tf.keras.Model:
    """The Keras model. `exporting.to_keras` describes inputs and outputs."""
    return exporting.to_keras(
      self._model,
      self._state,
      self._server_model,
      self._task.input_spec,
      weights=self._weights,
    )

  @property
  def classifiers(self) -> list[str]:
    return [n for n in client_evaluation.CLASSIFIERS if n in self._outputs]

  @property
  def anchors(self) -> Optional[np.ndarray]:
    """float32[num_classes, feature_dim]; None for methods without anchors."""
    anchors = getattr(self._server_model, 'anchors', None)
    return None if anchors is None else np.asarray(anchors)

  @property
  def prototypes(self) -> np.ndarray:
    """The client's own prototypes, float32[num_classes, feature_dim].

    Rows of classes without examples at the client (`counts`) are zero.

    Raises:
      AttributeError: For an averaged model.
    """
    return np.asarray(self._client_state.prototypes)

  @property
  def counts(self) -> np.ndarray:
    """Examples behind each of the client's prototypes, float32[num_classes].

    Raises:
      AttributeError: For an averaged model.
    """
    return np.asarray(self._client_state.counts)

  def predict(
    self, inputs: np.ndarray, classifier: Optional[str] = None
  ) -> np.ndarray:
    """Returns the class of each input, int64[num_examples].

    Args:
      inputs: Inputs in the shape and dtype of the data set: uint8 or
        float32[num_examples, …]; a dict of arrays, if they have several parts.
      classifier: One of `classifiers`. Default: the method's main classifier
        (the nearest prototype if there are prototypes).

    Raises:
      ValueError: If inputs have another shape or dtype, or the classifier is
        unknown.
    """
    if classifier is None:
      classifier = client_evaluation.main_classifier(self.classifiers)
    if classifier not in self.classifiers:
      raise errors.UserError(
        f'Expected a classifier of {", ".join(self.classifiers)}, found '
        f'{classifier!r}.'
      )
    return self._scores(inputs, classifier).argmax(axis=1)

  def features(self, inputs: np.ndarray) -> np.ndarray:
    """Returns float32[num_examples, feature_dim] for inputs as in `predict`."""
    return self._scores(inputs, 'features')

  def save(self, path: str) -> None:
    """Writes the Keras model.

    Args:
      path: A file that ends in .keras. `tf.keras.models.load_model` reads it.

    Raises:
      ValueError: If the path has another ending.
    """
    if not path.endswith('.keras'):
      raise errors.UserError(
        f'Expected a path that ends in .keras, found {path!r}.'
      )
    self.keras_model.save(path)

  def __repr__(self) -> str:
    whose = 'averaged' if self.client_id is None else f'client {self.client_id}'
    return f'<TrainedModel {self.name}, {whose}>'

  @property
  def _outputs(self) -> list[str]:
    return list(self.keras_model.output)

  @property
  def _client_state(self) -> client_state_lib.ClientState:
    if self._state is None:
      raise AttributeError('An averaged model is no client: it has no state.')
    return self._state

  def _scores(self, inputs: np.ndarray, output: str) -> np.ndarray:
    spec = self._task.input_spec
    if isinstance(spec, packing.PackedSpec):
      return self._scores_of_parts(inputs, output, spec)
    inputs = np.asarray(inputs)
    found = (inputs.shape[1:], inputs.dtype.name)
    if found != (spec.shape, spec.dtype):
      raise errors.UserError(
        f'Expected inputs as the data set {self._task.name!r} stores them, '
        f'{spec.dtype}[num_examples, {", ".join(map(str, spec.shape))}], found '
        f'{inputs.dtype}{list(inputs.shape)}.'
      )
    cuts = range(0, len(inputs), _EXAMPLES_AT_A_TIME) or [0]
    return np.concatenate(
      [
        self.keras_model(inputs[cut : cut + _EXAMPLES_AT_A_TIME])[
          output
        ].numpy()
        for cut in cuts
      ]
    )

  def _scores_of_parts(
    self, inputs: Any, output: str, spec: packing.PackedSpec
  ) -> np.ndarray:
    """As `_scores`, of a dict of parts, or of rows of bytes."""
    # Packing checks them.
    rows = spec.pack(inputs) if isinstance(inputs, Mapping) else inputs
    cuts = range(0, len(rows), _EXAMPLES_AT_A_TIME) or [0]
    return np.concatenate(
      [
        self.keras_model(spec.unpack(rows[cut : cut + _EXAMPLES_AT_A_TIME]))[
          output
        ].numpy()
        for cut in cuts
      ]
    )


class Result:
  """The result of a run, finished or not.

  Attributes:
    experiment: `Experiment` of the run.
    directory: Path of the run's directory, or None for a run in memory.
    status: `finished`, `stopped early`, `interrupted`, …
    round_num: Rounds done.
    server_state: `composer.ServerState` of the last round.
    store: The clients' states, a `client_store.ClientStateStore`.
    rows: The history, a dict for each evaluated round.
    per_client: Counts of the last evaluation, one dict per client. Empty with
      the protocol `global`.
    per_test_set: Counts of the last evaluation with the protocol `global`, by
      test set.
    statistics: Sums of the last evaluation by classifier and name, see
      `classification.zeros`. Empty without `metrics`.
  """

  def __init__(
    self,
    experiment: experiment_lib.Experiment,
    *,
    status: str,
    round_num: int,
    server_state: Any,
    store: client_store.ClientStateStore,
    rows: Sequence[Mapping[str, Any]],
    per_client: Sequence[Mapping[str, Any]] = (),
    per_test_set: Optional[Mapping[str, Mapping[str, Any]]] = None,
    statistics: Optional[Mapping[str, Mapping[str, np.ndarray]]] = None,
    directory: Optional[str] = None,
  ):
    """Initializes `Result`. Users call `Experiment.run` or `load_run`."""
    self.experiment = experiment
    self.status = status
    self.round_num = round_num
    self.server_state = server_state
    self.store = store
    self.rows = list(rows)
    self.per_client = list(per_client)
    self.per_test_set = dict(per_test_set or {})
    self.statistics = dict(statistics or {})
    self.directory = directory

  def confusion(self, classifier: Optional[str] = None) -> np.ndarray:
    """Returns the confusion matrix of the last evaluation, of all clients.

    Args:
      classifier: One of `client_evaluation.CLASSIFIERS`. Default: the method's
        main classifier.

    Returns:
      int64[num_classes, num_classes + 1]: examples by label and prediction. The
      last column is for no prediction, where no prototype is present.

    Raises:
      ValueError: If the run has no `metrics`, or no such classifier.
    """
    if not self.statistics:
      raise errors.UserError(
        'There is no confusion matrix: run with `metrics`, e.g. confusion.'
      )
    if classifier is None:
      classifier = self._main_of_statistics
    if classifier not in self.statistics:
      raise errors.UserError(
        f'Expected a classifier of {", ".join(self.statistics)}, found '
        f'{classifier!r}.'
      )
    return self.statistics[classifier]['confusion'].astype(np.int64)

  @property
  def _main_of_statistics(self) -> str:
    # Averaged models are reported by their heads.
    if self.experiment.simulation.protocol == 'global':
      return 'head'
    return client_evaluation.main_classifier(self.statistics)

  @property
  def stopped_early(self) -> bool:
    """True if patience ended the run."""
    return self.status == directory_lib.STOPPED_EARLY

  @property
  def summary(self) -> dict[str, Any]:
    """Last, best and mean accuracies; see `reporting.summary.summarize`."""
    return summary_lib.summarize(self.rows)

  @property
  def history(self) -> pandas.DataFrame:
    """One row per evaluated round. docs/metrics.md describes the columns."""
    return pandas.DataFrame(self.rows).set_index('round')

  @property
  def warnings(self) -> list[str]:
    """Problems that did not end the run, one line each."""
    lines = []
    for what, column, advice in (
      (
        "clients' training diverged",
        'clients_nonfinite',
        'try a smaller client_learning_rate',
      ),
      (
        'the server turned a client away, whose message no honest client can '
        'have sent,',
        'clients_rejected',
        'the log names the clients',
      ),
      (
        'the aggregate, or training at the server, was not finite',
        'server_nonfinite',
        'look for a broken client, or try a smaller learning rate',
      ),
    ):
      times = sum(row.get(column) or 0 for row in self.rows)
      if times:
        lines.append(
          f'{what} {times} times and was left out ({column} in metrics.csv); '
          f'{advice}'
        )
    return lines

  def client(self, client_id: int) -> TrainedModel:
    """Returns the model with which a client is tested.

    That is its own, or, with FedAvg, FedProx and the protocol `global`, the
    averaged one of its architecture.

    Args:
      client_id: In [0, num_clients).

    Raises:
      IndexError: If there is no such client.
    """
    num_clients = self.experiment.task.num_clients
    if not 0 <= client_id < num_clients:
      raise IndexError(
        f'Expected a client in [0, {num_clients}), found {client_id}.'
      )
    state = self.store.get(client_id)
    return TrainedModel(
      self.experiment,
      self.server_state.model,
      architecture=int(state.architecture),
      weights=self._tested_weights_of(state),
      client_id=client_id,
      state=state,
    )

  def tested_weights(self, client_id: int) -> np.ndarray:
    """Returns the weights of `client(client_id)`, float32[num_weights].

    Args:
      client_id: In [0, num_clients).
    """
    return self._tested_weights_of(self.store.get(client_id))

  def _tested_weights_of(
    self, state: client_state_lib.ClientState
  ) -> np.ndarray:
    if self.experiment.tests_averaged:
      return self._averaged_weights(int(state.architecture))
    return np.asarray(state.weights)

  def averaged(self, architecture: Optional[str] = None) -> TrainedModel:
    """Returns the averaged model of an architecture.

    Args:
      architecture: Its name; may be left out where there is one.

    Raises:
      ValueError: If whole models are not averaged, or there is no such
        architecture.
    """
    if not self.experiment.averages_models:
      raise errors.UserError(
        f'{self.experiment.algorithm} averages no whole models here: use '
        'client(i).'
      )
    names = self._tiers.names
    if architecture is None and len(names) == 1:
      (architecture,) = names
    if architecture not in names:
      raise errors.UserError(
        f'Expected an architecture of {", ".join(names)}, found '
        f'{architecture!r}.'
      )
    index = names.index(architecture)
    return TrainedModel(
      self.experiment,
      self.server_state.model,
      architecture=index,
      weights=self._averaged_weights(index),
    )

  def _averaged_weights(self, architecture: int) -> np.ndarray:
    weights = np.asarray(self.server_state.model.weights)
    ends = np.cumsum(self._tiers.sizes)
    return np.split(weights, ends[:-1])[architecture]

  @property
  def _tiers(self) -> tiers_lib.Tiers:
    tiers = self.experiment.process.tiers
    assert tiers is not None  # Models are averaged.
    return tiers

  def figures(self) -> dict[str, matplotlib.figure.Figure]:
    """Returns figures by name: curves, partition, clients, feature space.

    With the metric `confusion` there is its matrix, with `ece` a reliability
    diagram.
    """
    task = self.experiment.task
    architectures = [
      self.experiment.architecture_of(i) for i in range(task.num_clients)
    ]
    title = f'{self.experiment.title} on {task.name}'
    drawn = {
      'curves': figures_lib.curves(self.rows, title),
      'partition': figures_lib.partition(
        task.class_counts(), task.class_names, architectures
      ),
    }
    if self.per_client:
      drawn['per_client_accuracy'] = figures_lib.per_client_accuracy(
        self.per_client, architectures
      )
    calibrations = {
      name: sums['calibration']
      for name, sums in self.statistics.items()
      if 'calibration' in sums
    }
    if 'confusion' in self.experiment.simulation.metrics and self.statistics:
      drawn['confusion'] = classification_figures.confusion(
        self.confusion(), task.class_names, self._main_of_statistics
      )
    if calibrations:
      drawn['reliability'] = classification_figures.reliability(calibrations)
    model = self.server_state.model
    # A curve needs at least two points.
    if hasattr(model, 'prototypes') and (
      feature_space.finite_classes(model.prototypes, model.present).sum() > 1
    ):
      states = (self.store.get(i) for i in range(task.num_clients))
      anchors = getattr(model, 'anchors', None)
      name = 'prototypes' if anchors is None else 'anchors_and_prototypes'
      drawn[name] = feature_space.draw(
        anchors,
        model.prototypes,
        model.present,
        task.class_names,
        [(state.prototypes, state.counts) for state in states],
      )
    return drawn

  def __repr__(self) -> str:
    lines = [self._heading(), summary_lib.to_text(self.summary)]
    return '\n'.join([*lines, *(f'warning: {line}' for line in self.warnings)])

  def _repr_html_(self) -> str:
    table = pandas.DataFrame(
      {
        name.removeprefix(client_evaluation.GLOBAL_PREFIX): {
          key: value
          for key, value in values.items()
          if not isinstance(value, Mapping)
        }
        for name, values in self.summary.items()
        if isinstance(values, Mapping) and 'last' in values
      }
    ).T
    # A table of numbers makes whole numbers floats.
    table['best_round'] = table['best_round'].astype(int)
    return ''.join(
      [
        f'<p><b>{html.escape(self._heading())}</b></p>',
        table.to_html(float_format='{:.4f}'.format),
        *(f'<p>warning: {html.escape(line)}</p>' for line in self.warnings),
      ]
    )

  def _heading(self) -> str:
    task = self.experiment.task
    where = '' if self.directory is None else f', {self.directory}'
    return (
      f'{self.experiment.title} on {task.name}, {task.num_clients} clients: '
      f'{self.status} after round {self.round_num}{where}'
    )
