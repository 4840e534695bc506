"""A `tff.simulation.baselines` task for stateful and other methods.

A task is made from any `ClientData`. FedSA, other methods of this package and
algorithms of `tff.learning` train on it with the same code.
"""

import collections
from collections.abc import Callable, Sequence
from typing import Any, Optional

import attrs
import tensorflow as tf
import tensorflow_federated as tff

from tff_fedsa import composer
from tff_fedsa.client import client_state
from tff_fedsa.client import client_store
from tff_fedsa.client import local_optimizer
from tff_fedsa.client import local_training
from tff_fedsa.data import elements
from tff_fedsa.data import input_spec as input_spec_lib
from tff_fedsa.data import packing
from tff_fedsa.evaluation import client_evaluation
from tff_fedsa.models import families
from tff_fedsa.models import functional
from tff_fedsa.pipelines import dataset_computations
from tff_fedsa.pipelines import population as population_lib
from tff_fedsa.pipelines import training_process as training_process_lib
from tff_fedsa.runs import errors

_SHUFFLE_BUFFER_SIZE = 1000


@attrs.define(frozen=True)
class ClientTask(tff.simulation.baselines.BaselineTask):
  """A baseline task with clients that may have models and states.

  Attributes:
    datasets: The clients' data. Preprocessing turns them into batches for
      models.
    model_fn: Returns TFF's model of the family's first architecture.
    models: One `FunctionalModel` per architecture.
    input_spec: How models read the inputs; a `PackedSpec` of several.
    local: Batches and epochs, equal to those of the preprocessed data sets.
    model_seed: Initial weights follow from it.
  """

  datasets: tff.simulation.baselines.BaselineTaskDatasets = attrs.field()
  model_fn: Callable[[], tff.learning.models.VariableModel] = attrs.field()
  models: Sequence[functional.FunctionalModel] = attrs.field()
  input_spec: Any = attrs.field()
  local: local_training.LocalTrainingConfig = attrs.field()
  model_seed: int = attrs.field()

  @property
  def client_ids(self) -> list[str]:
    """Clients with data for training and testing, sorted."""
    train_ids = self.datasets.train_data.client_ids
    return sorted(set(train_ids) & set(self.datasets.test_data.client_ids))

  def population(
    self,
    store: Optional[client_store.ClientStateStore] = None,
    *,
    optimizer: Optional[local_optimizer.LocalOptimizer] = None,
  ) -> population_lib.Population:
    """Returns the clients, for a process that takes their ids.

    Args:
      store: Store of the clients' states. Default: a new store in memory.
      optimizer: The local optimizer, if its state is kept between rounds.
    """
    if store is None:
      store = client_store.MemoryStore(
        client_state.build_initial_state_fn(
          self.models, model_seed=self.model_seed, optimizer=optimizer
        )
      )
    return population_lib.Population(self.client_ids, store)

  def training_process(
    self,
    process: composer.StatefulProcess | tff.learning.templates.LearningProcess,
    population: Optional[population_lib.Population] = None,
  ) -> Any:
    """Returns a process with client ids for TFF's `run_training_process`.

    Clients build their data sets. A learning process starts from the initial
    weights of the first architecture.

    Args:
      process: A process for `models` and `input_spec`, or for `model_fn`.
      population: The clients of a stateful process. Default: new clients.

    Raises:
      TypeError: If the process is of another kind, or does not fit the data.
    """
    if isinstance(process, composer.StatefulProcess):
      composed = (
        dataset_computations.compose_dataset_computation_with_stateful_process(
          self.datasets.train_data.dataset_computation, process
        )
      )
      return training_process_lib.TrainingProcess(
        composed, population or self.population()
      )
    _check_learning_process(process)
    return _LearningProcessById(
      tff.simulation.compose_dataset_computation_with_learning_process(
        self.datasets.train_data.preprocess(
          self.datasets.train_preprocess_fn
        ).dataset_computation,
        process,
      ),
      self._initial_model_weights(),
    )

  def evaluation_fn(
    self,
    process: composer.StatefulProcess | tff.learning.templates.LearningProcess,
    population: Optional[population_lib.Population] = None,
  ) -> Callable[[Any, Sequence[str]], Any]:
    """Returns the `evaluation_fn` for `training_process`.

    Args:
      process: See `training_process`.
      population: The population given to `training_process`.

    Raises:
      TypeError: If the process is of another kind.
      ValueError: If a stateful process has no population.
    """
    if isinstance(process, composer.StatefulProcess):
      if population is None:
        raise errors.UserError(
          'Expected the population that `training_process` got: evaluation is '
          "of its clients' own models. Make one by `task.population()`."
        )
      evaluate = client_evaluation.build_evaluation(
        self.models, self.input_spec, process.server_model_type
      )
      return training_process_lib.build_evaluation_fn(
        dataset_computations.compose_dataset_computation_with_computation(
          self.datasets.test_data.dataset_computation, evaluate
        ),
        population,
      )
    _check_learning_process(process)
    evaluation_process = (
      tff.simulation.compose_dataset_computation_with_learning_process(
        self.datasets.test_data.preprocess(
          self.datasets.eval_preprocess_fn
        ).dataset_computation,
        tff.learning.algorithms.build_fed_eval(self.model_fn),
      )
    )

    def evaluation_fn(state: Any, client_ids: Sequence[str]) -> Any:
      evaluation_state = evaluation_process.set_model_weights(
        evaluation_process.initialize(), process.get_model_weights(state)
      )
      output = evaluation_process.next(evaluation_state, client_ids)
      return output.metrics['client_work']['eval']['current_round_metrics']

    return evaluation_fn

  def _initial_model_weights(self) -> tff.learning.models.ModelWeights:
    model = self.models[0]
    weights = model.initial_weights(self.model_seed)
    trainable, other = model.split(tf.constant(weights))
    return tff.learning.models.ModelWeights(
      [part.numpy() for part in trainable], [part.numpy() for part in other]
    )


def create_task(
  train_data: tff.simulation.datasets.ClientData,
  test_data: tff.simulation.datasets.ClientData,
  *,
  num_classes: int,
  family: str | Sequence[str],
  feature_dim: int,
  client_spec: Optional[tff.simulation.baselines.ClientSpec] = None,
  model_seed: int = 0,
  **input_options: Any,
) -> ClientTask:
  """Makes a task from any `ClientData`.

  Args:
    train_data: Clients' train data. `elements.stack` describes legal elements.
    test_data: The same clients' held-out examples.
    num_classes: C.
    family: Family of models, see `families.members`. `model_fn` has its first
      architecture.
    feature_dim: D.
    client_spec: Batch size and epochs of local training. Default: batches of
      10, one epoch. `max_elements` is not supported.
    model_seed: Initial weights follow from it.
    **input_options: `scale`, `offset`, `image_size`, `channels`,
      `vocabulary_size`, see `elements.input_spec_of`.

  Raises:
    ValueError: For unsuitable elements, or if models do not fit.
  """
  if client_spec is None:
    client_spec = tff.simulation.baselines.ClientSpec(
      num_epochs=1, batch_size=10
    )
  if client_spec.max_elements is not None:
    raise errors.UserError(
      'Expected a client_spec without max_elements, found '
      f'{client_spec.max_elements}. Take that many of each client by '
      '`train_data.preprocess(lambda dataset: dataset.take(n))`.'
    )
  spec = elements.input_spec_of(
    train_data.element_type_structure, **input_options
  )
  models = families.build_family(
    family,
    spec.model_shape,
    num_classes,
    feature_dim,
    vocabulary_size=spec.vocabulary_size,
  )
  seen_type = _seen_type(spec)
  template = models[0].to_keras(models[0].initial_weights(model_seed))
  batch_size = client_spec.batch_size

  def batches(dataset: tf.data.Dataset) -> tf.data.Dataset:
    def seen_by_model(batch):
      inputs, labels = elements.of_batch(batch)
      return _ordered(spec.preprocess(inputs)), labels

    return dataset.batch(batch_size).map(seen_by_model)

  def training_batches(dataset: tf.data.Dataset) -> tf.data.Dataset:
    shuffled = dataset.shuffle(
      client_spec.shuffle_buffer_size or _SHUFFLE_BUFFER_SIZE, seed=0
    )
    return batches(shuffled.repeat(client_spec.num_epochs))

  def model_fn() -> tff.learning.models.VariableModel:
    # TFF calls this within its own graph.
    extractor, head = map(tf.keras.models.clone_model, template)
    given = tf.nest.map_structure(
      lambda seen: tf.keras.Input(seen.shape[1:], dtype=seen.dtype), seen_type
    )
    return tff.learning.models.from_keras_model(
      tf.keras.Model(given, head(extractor(given))),
      loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
      input_spec=(
        seen_type,
        tf.TensorSpec((None,), tf.int32),
      ),
      metrics=[tf.keras.metrics.SparseCategoricalAccuracy(name='accuracy')],
    )

  return ClientTask(
    datasets=tff.simulation.baselines.BaselineTaskDatasets(
      train_data=train_data,
      test_data=test_data,
      train_preprocess_fn=training_batches,
      eval_preprocess_fn=batches,
    ),
    model_fn=model_fn,
    models=models,
    input_spec=spec,
    local=local_training.LocalTrainingConfig(
      batch_size=batch_size, num_epochs=client_spec.num_epochs
    ),
    model_seed=model_seed,
  )


def _seen_type(spec: input_spec_lib.InputSpec | packing.PackedSpec) -> Any:
  """Returns the type of a batch of inputs as a model gets it."""
  if isinstance(spec, packing.PackedSpec):
    return _ordered({name: _seen_type(part) for name, part in spec.parts})
  return tf.TensorSpec((None, *spec.model_shape), spec.model_dtype)


def _ordered(inputs: Any) -> Any:
  """Returns several inputs in the one order that TFF's types keep."""
  if isinstance(inputs, dict):
    return collections.OrderedDict(sorted(inputs.items()))
  return inputs


class _LearningProcessById:
  """A learning process with given initial weights."""

  def __init__(
    self,
    process: tff.learning.templates.LearningProcess,
    model_weights: tff.learning.models.ModelWeights,
  ):
    self.next = process.next
    self._process = process
    self._model_weights = model_weights

  def initialize(self) -> tff.learning.templates.LearningAlgorithmState:
    return self._process.set_model_weights(
      self._process.initialize(), self._model_weights
    )


def _check_learning_process(process: Any) -> None:
  if not isinstance(process, tff.learning.templates.LearningProcess):
    raise TypeError(
      'Expected a process of `composer.compose_process` or a '
      f'tff.learning.templates.LearningProcess, found {type(process)}.'
    )
