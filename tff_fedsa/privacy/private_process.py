"""Client-level differential privacy for methods that average by class.

A round is one Gaussian mechanism. The record of a client is one vector of two
parts:

- for each class that the client has, its prototype minus a *reference* that
  everybody knows: the anchors that were broadcast (FedSA), or else the global
  prototypes or mean logits of the round before, 0 where a class has none;
- for each class that the client has, a constant, the *presence unit*.

Both are 0 for classes that the client lacks. The vector as a whole is clipped
to one L2 norm. So the sum of the records has one sensitivity, and one Gaussian
of one standard deviation covers vectors and presence together. (Two sums with
their own noise would be two mechanisms, and the account would have to add
them.)

The mean of a class is the quotient of two noisy sums, which costs no privacy.
Clipping shrinks both parts of a record by the same factor. So a client with a
long record counts less, but the mean is not drawn to the reference. Each client
counts the same otherwise: weights by examples would need a sensitivity of their
own. A class with a noisy count below a threshold counts as sent by nobody.

With `central`, the server adds the noise to the sum, and clients trust it. With
`local`, each client adds noise to its own record before it leaves.

All metrics of the client work are withheld. `tests/privacy` compare what
crosses from clients to the server with the table in docs/privacy.md.

The noise comes from TensorFlow's seeded generator, so simulations repeat. Who
knows the seed can subtract the noise: a deployment needs a secure source of
randomness, and arithmetic without the known weaknesses of floating point
(Mironov 2012).
"""

from __future__ import annotations

import collections
import dataclasses
import math
from typing import Any, NamedTuple

import dp_accounting
import numpy as np
import tensorflow as tf
import tensorflow_federated as tff
import tensorflow_privacy as tfp

from tff_fedsa import composer
from tff_fedsa.aggregation import screening
from tff_fedsa.client import client_work as client_work_lib
from tff_fedsa.maths import prototypes
from tff_fedsa.runs import errors
from tff_fedsa.server import server_model

# Norm of the presence of all classes, as a share of the clipping norm. The
# noise on a count matters less than that on vectors, so the share is small.
PRESENCE_SHARE = 0.25
# Smallest noisy count of a class, in standard deviations of its noise. The
# quotient of the two noisy sums is then off by half at most, nearly always.
THRESHOLD = 2.0
# The same without noise, in clients.
_LEAST_COUNT = 1e-3


class Record(NamedTuple):
  """What a client contributes to a round.

  Attributes:
    vectors: float32[num_classes, dim], relative to the reference, 0 for classes
      that the client lacks.
    presence: float32[num_classes], the presence unit for classes that the
      client has, else 0.
  """

  vectors: Any
  presence: Any


@dataclasses.dataclass(frozen=True)
class Mechanism:
  """The Gaussian mechanism of a round.

  Attributes:
    kind: `central` or `local`.
    clip_norm: L2 norm to which records are clipped, > 0. None: see
      `default_clip_norm`.
    noise_multiplier: Standard deviation of the noise as a multiple of the
      clipping norm, >= 0: of the noise on the sum (central) or on each record
      (local).
    participants: Clients drawn for a round.
    seed: Seed of the noise.
  """

  kind: str
  clip_norm: float | None
  noise_multiplier: float
  participants: int
  seed: int = 0


def default_clip_norm(num_classes: int, dim: int) -> float:
  """Returns the norm of a record that is 0.5 off in each coordinate.

  It depends on shapes only, so it tells nothing of the data.
  """
  return 0.5 * math.sqrt(num_classes * dim)


def presence_unit(clip_norm: float, num_classes: int) -> float:
  """Returns what stands for a class that a client has, > 0."""
  return PRESENCE_SHARE * clip_norm / math.sqrt(num_classes)


def to_record(
  update: prototypes.ClassPrototypes, reference: tf.Tensor, unit: float
) -> Record:
  """Returns a client's record, not clipped.

  Args:
    update: What the client would send without privacy.
    reference: float32[num_classes, dim].
    unit: Presence unit.
  """
  present = update.weights > 0
  relative = update.vectors - reference
  return Record(
    tf.where(present[:, tf.newaxis], relative, tf.zeros_like(relative)),
    unit * tf.cast(present, tf.float32),
  )


def clip(record: Record, clip_norm: float) -> Record:
  """Returns a record whose two parts together have at most this L2 norm."""
  return Record(*tf.clip_by_global_norm(list(record), clip_norm)[0])


def to_means(
  sums: Record, unit: float, threshold: float
) -> prototypes.ClassPrototypes:
  """Returns the means of classes, relative to the reference.

  Args:
    sums: Noisy sums of records.
    unit: Presence unit.
    threshold: Least noisy count of a class, in clients, > 0.

  Returns:
    The means, and as weights the noisy counts; both 0 for classes below the
    threshold.
  """
  counts = sums.presence / unit
  counts = tf.where(counts >= threshold, counts, tf.zeros_like(counts))
  return prototypes.ClassPrototypes(
    prototypes.class_means(sums.vectors, counts), counts
  )


class SeededGaussianSumQuery(tfp.GaussianSumQuery):
  """A `GaussianSumQuery` whose noise is a function of a seed and the round.

  The original's noise differs in two equal runs.
  """

  class _State(NamedTuple):
    """The state at the server.

    Attributes:
      l2_norm_clip: float32 scalar.
      stddev: float32 scalar.
      round_num: int32 scalar, sums noised so far.
    """

    l2_norm_clip: Any
    stddev: Any
    round_num: Any

  def __init__(self, l2_norm_clip: float, stddev: float, seed: int):
    """Initializes `SeededGaussianSumQuery`.

    Args:
      l2_norm_clip: L2 norm to which a record is clipped, all its tensors
        together.
      stddev: Standard deviation of the noise on the sum.
      seed: Seed of the noise.
    """
    super().__init__(l2_norm_clip, stddev)
    self._seed = seed

  def initial_global_state(self) -> Any:
    """Returns the state before the first sum."""
    initial = super().initial_global_state()
    return self._State(initial.l2_norm_clip, initial.stddev, tf.constant(0))

  def get_noised_result(
    self, sample_state: Any, global_state: Any
  ) -> tuple[Any, Any, dp_accounting.DpEvent]:
    """Returns the sum with noise, the next state, and the event."""
    noisy = _with_noise(
      sample_state, global_state.stddev, [self._seed, global_state.round_num]
    )
    event = dp_accounting.GaussianDpEvent(
      global_state.stddev / global_state.l2_norm_clip
    )
    state = global_state._replace(round_num=global_state.round_num + 1)
    return noisy, state, event


def build_aggregator(
  num_classes: int, dim: int, mechanism: Mechanism
) -> tff.templates.AggregationProcess:
  """Returns the process from records to relative means.

  Its type is `(<S@SERVER, {Record}@CLIENTS> -> <state=S,
  result=ClassPrototypes, measurements=M>@SERVER)`. With `central` it clips the
  records and adds noise to their sum (`DifferentiallyPrivateFactory`). With
  `local` it sums records that are noisy already.

  Args:
    num_classes: C.
    dim: Size of a vector.
    mechanism: The mechanism.
  """
  clip_norm, unit = _norms(num_classes, dim, mechanism)
  stddev = clip_norm * mechanism.noise_multiplier
  record_type = tff.types.to_type(
    Record(
      vectors=tff.TensorType(np.float32, (num_classes, dim)),
      presence=tff.TensorType(np.float32, (num_classes,)),
    )
  )
  factory: tff.aggregators.UnweightedAggregationFactory
  if mechanism.kind == 'central':
    factory = tff.aggregators.DifferentiallyPrivateFactory(
      SeededGaussianSumQuery(clip_norm, stddev, mechanism.seed)
    )
    stddev_of_sum = stddev
  else:
    factory = tff.aggregators.SumFactory()
    stddev_of_sum = stddev * math.sqrt(mechanism.participants)
  threshold = max(THRESHOLD * stddev_of_sum / unit, _LEAST_COUNT)
  inner = factory.create(record_type)

  @tff.tensorflow.computation(inner.next.type_signature.result.result.member)
  def divide(sums):
    return to_means(sums, unit, threshold)

  @tff.federated_computation(
    inner.initialize.type_signature.result,
    tff.FederatedType(record_type, tff.CLIENTS),
  )
  def next_fn(state, records):
    output = inner.next(state, records)
    return tff.templates.MeasuredProcessOutput(
      output.state,
      tff.federated_map(divide, output.result),
      tff.federated_value((), tff.SERVER),
    )

  return tff.templates.AggregationProcess(inner.initialize, next_fn)


def build_client_work(
  client_work: tff.Computation, mechanism: Mechanism
) -> tff.Computation:
  """Returns the client work that sends a `Record` and no metrics.

  Args:
    client_work: Sends `ClassPrototypes` (see `client_work.build_client_work`).
    mechanism: With `local`, records are clipped and noisy.
  """
  work_type = client_work.type_signature.parameter
  update_type = client_work.type_signature.result.update
  num_classes, dim = update_type.vectors.shape
  clip_norm, unit = _norms(num_classes, dim, mechanism)

  @tff.tensorflow.computation(work_type)
  def private_work(arguments):
    round_num, broadcast, client_state, examples = (
      arguments[name] for name in client_work_lib.ARGUMENTS
    )
    output = client_work(round_num, broadcast, client_state, examples)
    record = to_record(
      output.update, server_model.reference_of(broadcast), unit
    )
    if mechanism.kind == 'local':
      client_id = client_state.seed[1]
      record = _with_noise(
        clip(record, clip_norm),
        clip_norm * mechanism.noise_multiplier,
        [mechanism.seed, round_num, client_id],
      )
    nothing = client_work_lib.ClientMetrics(
      *(collections.OrderedDict() for _ in range(3))
    )
    return client_work_lib.ClientOutput(
      output.client_state, record, output.num_examples, nothing
    )

  return private_work


def build_finalizer(
  finalizer: tff.learning.templates.FinalizerProcess,
) -> tff.learning.templates.FinalizerProcess:
  """Returns the finalizer that adds the reference to relative means first."""
  parameter = finalizer.next.type_signature.parameter

  @tff.tensorflow.computation(parameter[1].member, parameter[2].member)
  def add_reference(model, update):
    sent = (update.weights > 0)[:, tf.newaxis]
    vectors = update.vectors + server_model.reference_of(model)
    return update._replace(
      vectors=tf.where(sent, vectors, tf.zeros_like(vectors))
    )

  @tff.federated_computation(*parameter)
  def next_fn(state, model, update):
    return finalizer.next(
      state, model, tff.federated_map(add_reference, (model, update))
    )

  return tff.learning.templates.FinalizerProcess(finalizer.initialize, next_fn)


def protect(
  process: composer.StatefulProcess, mechanism: Mechanism
) -> composer.StatefulProcess:
  """Returns a process of the same method with differential privacy.

  Args:
    process: Process of a method that averages prototypes or mean logits, made
      by `composer.compose_process`.
    mechanism: The mechanism.

  Raises:
    UserError: If clients of the process send anything else than
      `ClassPrototypes`, or if it averages weights.
  """
  parts = process.parts
  if parts is None or parts.averaging is not None or parts.attack is not None:
    raise errors.UserError(
      'Expected a process of `compose_process` without averaged weights and '
      'without attackers.'
    )
  update_type = parts.client_work.type_signature.result.update
  if not prototypes.is_prototypes_type(update_type):
    raise errors.UserError(
      'Differential privacy needs clients that send class means, found '
      f'{update_type}.'
    )
  num_classes, dim = update_type.vectors.shape
  return composer.with_parts(
    process,
    client_work=build_client_work(parts.client_work, mechanism),
    aggregator=build_aggregator(num_classes, dim, mechanism),
    finalizer=build_finalizer(parts.finalizer),
    # Noisy records have no weights that could be checked.
    limits=screening.UNKNOWN,
  )


def _norms(
  num_classes: int, dim: int, mechanism: Mechanism
) -> tuple[float, float]:
  clip_norm = mechanism.clip_norm or default_clip_norm(num_classes, dim)
  return clip_norm, presence_unit(clip_norm, num_classes)


def _with_noise(structure: Any, stddev: Any, numbers: Any) -> Any:
  """Adds Gaussian noise that is a function of a seed and of more numbers."""
  seed = tf.constant([0, 0])
  for number in numbers:
    seed = tf.random.experimental.stateless_fold_in(seed, number)
  leaves = tf.nest.flatten(structure)
  noisy = [
    leaf
    + stddev
    * tf.random.stateless_normal(
      leaf.shape, tf.random.experimental.stateless_fold_in(seed, index)
    )
    for index, leaf in enumerate(leaves)
  ]
  return tf.nest.pack_sequence_as(structure, noisy)
