"""Federations that are attacked: data, broadcasts, and what clients send.

A few background clients train by the method's own process. What the server
broadcasts to them in each round is recorded. The attacked clients receive the
same broadcasts, in the place of one client more: among many clients, one has
next to no influence on the broadcast. So many attacked clients, and the shadow
clients of an attacker, cost one federation.
"""

import collections
from collections.abc import Mapping, Sequence
import types
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from benchmarks import shared_traces
from benchmarks.giveaway_attacks import transcript
from tff_fedsa import experiment as experiment_lib
from tff_fedsa.client import client_state as client_state_lib
from tff_fedsa.data import datasets
from tff_fedsa.data import input_spec as input_spec_lib
from tff_fedsa.data import sources
from tff_fedsa.data import tasks
from tff_fedsa.execution import current
from tff_fedsa.execution import runtime
from tff_fedsa.privacy import private_process

# Images of a class: candidates are for attacked clients; the rest is public.
CANDIDATES = 100
_BACKGROUND = 10
_BACKGROUND_CLIENTS = 4
_PUBLIC = 70

_RUNTIME: Mapping[str, Any] = types.MappingProxyType(
  {'max_concurrent_clients': 1, 'intra_op_threads': 1}
)


class Options(NamedTuple):
  """What all federations of a run of the benchmark share.

  Attributes:
    family: Architecture of all clients.
    feature_dim: D.
    rounds: Rounds of the attacked clients.
    epochs: Epochs of a round.
    learning_rates: Clients' learning rates by method. With these, models of
      both methods are about equally right about images that clients do not
      have.
  """

  family: str = 'digits_cnn'
  feature_dim: int = 64
  rounds: int = 5
  epochs: int = 2
  learning_rates: Mapping[str, float] = types.MappingProxyType(
    {'fedsa': 0.05, 'fedavg': 0.2}
  )


class Protection(NamedTuple):
  """Differential privacy of a federation.

  Attributes:
    dp: `none`, `central` or `local`.
    epsilon: Epsilon of all rounds together; None without `dp`.
  """

  dp: str = 'none'
  epsilon: float | None = None


class Data(NamedTuple):
  """Images of a seed.

  Attributes:
    images: uint8[n, height, width, channels].
    labels: int32[n].
    input_spec: How models see them.
    class_names: One per class.
    candidates: int[classes, CANDIDATES], indices of images from which attacked
      clients draw theirs.
    public: int[classes, …], indices of images of the same kind that the
      attacker has. Background clients have some of them.
  """

  images: np.ndarray
  labels: np.ndarray
  input_spec: input_spec_lib.InputSpec
  class_names: tuple[str, ...]
  candidates: np.ndarray
  public: np.ndarray

  def examples(self, indices: np.ndarray) -> Any:
    """Returns the arrays of a client."""
    return collections.OrderedDict(
      x=self.images[indices], y=self.labels[indices]
    )

  def seen(self, indices: np.ndarray) -> np.ndarray:
    """Returns images as models see them, float32."""
    return (
      self.images[indices].astype(np.float32) * self.input_spec.scale
      + self.input_spec.offset
    )


class Sent(NamedTuple):
  """What clients sent, in all rounds.

  Attributes:
    vectors: float32[rounds, clients, C, D], prototypes as the server can read
      them; None if none are sent.
    presence: float32[rounds, clients, C], about 1 for classes of the client, 0
      for others, or numbers of examples; noisy with local noise. None if
      there are no prototypes.
    weights: float32[rounds, clients, num_weights]; None if none are sent.
    num_examples: float32[rounds, clients], NaN if it is not sent.
    own_weights: float32[rounds, clients, num_weights], the client's model after
      the round. FedAvg sends it. No client of FedSA does.
  """

  vectors: Any
  presence: Any
  weights: Any
  num_examples: np.ndarray
  own_weights: np.ndarray


def read(dataset: str, data_dir: str | None) -> sources.Source:
  """Returns all images of a data set.

  Args:
    dataset: `digits`, `fashion_mnist` or another one of images.
    data_dir: See `TaskSpec.data_dir`.
  """
  # TFDS computes, so the runtime is first.
  current.start(runtime.RuntimeConfig(**_RUNTIME))
  return datasets.load(dataset, data_dir=data_dir)


def divide(source: sources.Source, seed: int) -> Data:
  """Returns a seed's division of the images into candidates and public ones."""
  generator = np.random.default_rng(seed)
  by_class = [
    generator.permutation(np.flatnonzero(source.labels == label))
    for label in range(source.num_classes)
  ]
  least = min(CANDIDATES + _PUBLIC, *map(len, by_class))
  indices = np.stack([own[:least] for own in by_class])
  input_spec = source.input_spec
  assert isinstance(input_spec, input_spec_lib.InputSpec)
  return Data(
    source.images,
    source.labels,
    input_spec,
    source.class_names,
    indices[:, :CANDIDATES],
    indices[:, CANDIDATES:],
  )


class Federation:
  """The process of a method, its broadcasts, and a transcript of messages.

  Attributes:
    options: Model and training.
    model: The architecture of all clients.
    initial_weights: float32[num_weights] of the latest seed, with which all
      clients begin. The server knows them.
    broadcasts: Server's states before each round, of the latest seed.
  """

  def __init__(
    self,
    method: str,
    data: Data,
    *,
    options: Options | None = None,
    protection: Protection | None = None,
    seed: int = 0,
    **settings: Any,
  ):
    """Initializes `Federation`.

    Args:
      method: `fedsa` or `fedavg`.
      data: Images of the first seed.
      options: Model and training.
      protection: Differential privacy, of `fedsa` only.
      seed: The first seed, see `begin`.
      **settings: More arguments of `Experiment`.
    """
    options = options or Options()
    protection = protection or Protection()
    if protection.dp != 'none':
      settings |= {'dp': protection.dp, 'dp_epsilon': protection.epsilon}
    rate = options.learning_rates[method]
    self.options = options
    self._base = experiment_lib.Experiment(
      task=_background(data),
      algorithm=method,
      family=options.family,
      feature_dim=options.feature_dim,
      client_epochs_per_round=options.epochs,
      client_learning_rate=rate,
      total_rounds=options.rounds,
      **_RUNTIME,
      **settings,
    )
    current.start(self._base.runtime)
    (self.model,) = self._base.models
    self._mechanism = None
    if self._base.account is not None:
      self._mechanism = self._base.dp.mechanism(
        self._base.account, self._base.task.num_clients
      )
    self._transcript = transcript.build_transcript(
      self._base.process, self._mechanism
    )
    self.begin(seed, data)

  @property
  def batch_size(self) -> int:
    """Examples of a step."""
    return self._base.local.batch_size

  def begin(self, seed: int, data: Data) -> None:
    """Trains the background clients of a seed, and records the broadcasts."""
    of_seed = {'model_seed', 'sampling_seed', 'anchor_seed'}
    seeded = self._base.replace(
      task=_background(data),
      **dict.fromkeys(of_seed - set(self._base.ignored_flags()), seed),
    )
    shared_traces.share_traces(self._base, seeded)
    self._initial_state_fn = client_state_lib.build_initial_state_fn(
      [self.model], model_seed=seed, sampling_seed=seed
    )
    self.initial_weights = self._initial_state_fn(0).weights
    clients = list(map(self._initial_state_fn, range(_BACKGROUND_CLIENTS)))
    examples = [client.train for client in seeded.task.clients]
    state = seeded.process.initialize()
    self.broadcasts = []
    for _ in range(self.options.rounds):
      self.broadcasts.append(state)
      output = seeded.process.next(state, clients, examples)
      state, clients = output.state, output.result

  def attend(self, examples: Sequence[Any], *, first_id: int) -> Sent:
    """Returns what further clients send that receive the same broadcasts.

    Args:
      examples: Examples of each client.
      first_id: Number of the first one; batch order and noise depend on it.
    """
    ids = range(first_id, first_id + len(examples))
    clients = list(map(self._initial_state_fn, ids))
    found: list[list[tuple[Any, ...]]] = []
    for state in self.broadcasts:
      clients, messages = self._transcript(state, clients, list(examples))
      found.append(
        [
          (*self._read(state, message), client.weights)
          for message, client in zip(messages, clients)
        ]
      )
    fields: list[Any] = []
    for field in range(len(Sent._fields)):
      values = [[client[field] for client in of_round] for of_round in found]
      fields.append(None if values[0][0] is None else np.array(values))
    return Sent(*fields)

  def _read(self, state: Any, message: Any) -> tuple[Any, ...]:
    """Returns what a curious server reads in a message."""
    update: Any = message.update
    if self._mechanism is None:
      weights = message.weights if self._base.averages_weights else None
      if not hasattr(update, 'vectors'):
        return None, None, weights, message.num_examples
      return update.vectors, update.weights, weights, message.num_examples
    reference = np.asarray(state.model.anchors)
    unit = private_process.presence_unit(
      transcript.clip_norm_of(self._mechanism, *reference.shape),
      len(reference),
    )
    vectors, presence = np.array(update.vectors), update.presence / unit
    if self._mechanism.kind == 'central':
      # Clipping shrinks both parts of the record by the same factor.
      vectors, presence = vectors / presence.max(), presence / presence.max()
    return reference + vectors, presence, None, np.nan


def _background(data: Data) -> tasks.FederatedTask:
  """Returns the clients whose training makes the broadcasts."""
  clients = []
  for client in range(_BACKGROUND_CLIENTS):
    start = client * _BACKGROUND
    own = data.public[:, start : start + _BACKGROUND].ravel()
    clients.append(
      tasks.ClientExamples(data.examples(own), data.examples(own[:1]))
    )
  return tasks.task_from_clients(clients, data.input_spec, data.class_names)


def forward_fn(model: Any, input_spec: input_spec_lib.InputSpec) -> Any:
  """Returns `fn(weights, seen) -> (features, logits)`, differentiable.

  Args:
    model: A `FunctionalModel`.
    input_spec: Specification of stored images. The function takes images as
      models see them.
  """
  forward = model.build_forward(
    input_spec_lib.InputSpec(input_spec.shape, 'float32')
  )

  @tf.function(
    autograph=False,
    input_signature=[
      tf.TensorSpec([model.num_weights]),
      tf.TensorSpec([None, *input_spec.shape]),
    ],
  )
  def call(weights, seen):
    trainable, state = model.split(weights)
    return forward(trainable, state, seen)

  return call


def gradients_fn(model: Any, input_spec: input_spec_lib.InputSpec) -> Any:
  """Returns `fn(weights, seen, labels) -> float32[images, num_trainable]`.

  It returns the gradients of the cross-entropy of single images, in inference
  mode.

  Args:
    model: A `FunctionalModel`.
    input_spec: Specification of stored images; see `forward_fn`.
  """
  forward = forward_fn(model, input_spec)

  @tf.function(autograph=False)
  def call(weights, seen, labels):
    def of_image(image_and_label):
      image, label = image_and_label
      with tf.GradientTape() as tape:
        tape.watch(weights)
        _, logits = forward(weights, image[tf.newaxis])
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(
          label[tf.newaxis], logits
        )
      return tape.gradient(loss, weights)[: model.num_trainable]

    return tf.map_fn(of_image, (seen, labels), fn_output_signature=tf.float32)

  return lambda weights, seen, labels: np.asarray(
    call(tf.constant(weights), tf.constant(seen), tf.constant(labels))
  )
