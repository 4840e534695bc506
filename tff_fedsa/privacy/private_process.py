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
`local`, each client adds noise to its own record before it leaves. With
`distributed`, each client adds a share of the noise to its record in whole
numbers, and the server learns their modular sum only (`discrete_gaussian`).

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

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_fedsa import composer
from tff_fedsa.aggregation import mapped
from tff_fedsa.aggregation import screening
from tff_fedsa.aggregation import secure_sums
from tff_fedsa.client import client_work as client_work_lib
from tff_fedsa.maths import prototypes
from tff_fedsa.privacy import discrete_gaussian
from tff_fedsa.privacy import seeded_noise
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
# Standard deviations that noise of one coordinate exceeds once in 10^15.
_LARGEST_NOISE = 8.0
# How much larger than at first an adaptive clipping norm may become where sums
# are secure.
_LARGEST_GROWTH = 100.0


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
    kind: `central`, `distributed` or `local`.
    clip_norm: L2 norm to which records are clipped, > 0. None: see
      `default_clip_norm`.
    noise_multiplier: Standard deviation of the noise as a multiple of the
      clipping norm, >= 0: of the noise on the sum (central, distributed) or on
      each record (local).
    participants: Clients drawn for a round; with `distributed` all of them
      return.
    seed: Seed of the noise.
    secure: Whether records are summed by secure sums.
    bits: Bits of a coordinate of the modular sum (distributed).
    clip_quantile: Quantile of the norms to which the clipping norm adapts from
      round to round, beginning with `clip_norm` (central); None if it is fixed.
  """

  kind: str
  clip_norm: float | None
  noise_multiplier: float
  participants: int
  seed: int = 0
  secure: bool = False
  bits: int = 24
  clip_quantile: float | None = None


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


def build_aggregator(
  num_classes: int, dim: int, mechanism: Mechanism
) -> tff.templates.AggregationProcess:
  """Returns the process from records to relative means.

  Its type is `(<S@SERVER, {Record}@CLIENTS> -> <state=S,
  result=ClassPrototypes, measurements=M>@SERVER)`. With `central` it clips the
  records and adds noise to their sum (`DifferentiallyPrivateFactory`). With
  `local` it sums records that are noisy already. With `distributed` these are
  whole numbers, int32, and their sum is modular.

  Args:
    num_classes: C.
    dim: Size of a vector.
    mechanism: The mechanism.
  """
  clip_norm, unit = _norms(num_classes, dim, mechanism)
  stddev = clip_norm * mechanism.noise_multiplier
  distributed = mechanism.kind == 'distributed'
  dtype = np.int32 if distributed else np.float32
  record_type = tff.types.to_type(
    Record(
      vectors=tff.TensorType(dtype, (num_classes, dim)),
      presence=tff.TensorType(dtype, (num_classes,)),
    )
  )
  factory: tff.aggregators.UnweightedAggregationFactory
  factory = tff.aggregators.SumFactory()
  if mechanism.secure:
    # No coordinate is larger than the norm, and noise is rarely as large.
    rarely = _LARGEST_NOISE * stddev if mechanism.kind == 'local' else 0.0
    factory = secure_sums.vector_sum(clip_norm + rarely)
  if mechanism.clip_quantile is not None:
    return _build_adaptive(record_type, clip_norm, unit, mechanism)
  if mechanism.kind == 'central':
    factory = tff.aggregators.DifferentiallyPrivateFactory(
      seeded_noise.GaussianSumQuery(clip_norm, stddev, mechanism.seed), factory
    )
    stddev_of_sum = stddev
  elif distributed:
    factory = _ModularSumFactory(_grid(num_classes, dim, mechanism))
    stddev_of_sum = stddev
  else:
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


def _build_adaptive(
  record_type: tff.Type, clip_norm: float, unit: float, mechanism: Mechanism
) -> tff.templates.AggregationProcess:
  """Returns the process of `build_aggregator` whose clipping norm adapts.

  It measures `clip_norm`, the clipping norm of the next round.
  """
  assert mechanism.clip_quantile is not None
  factory: Any = tff.aggregators.SumFactory()
  if mechanism.secure:
    # The norm may grow. What it grows beyond is clipped once more.
    factory = secure_sums.vector_sum(_LARGEST_GROWTH * clip_norm)
  inner = tff.aggregators.DifferentiallyPrivateFactory(
    seeded_noise.AdaptiveClipSumQuery(
      clip_norm,
      mechanism.noise_multiplier,
      mechanism.clip_quantile,
      mechanism.participants,
      mechanism.seed,
    ),
    factory,
  ).create(record_type)
  sums_type = inner.next.type_signature.result.result.member

  @tff.tensorflow.computation(sums_type, np.float32)
  def divide(sums, stddev):
    return to_means(
      sums, unit, tf.maximum(THRESHOLD * stddev / unit, _LEAST_COUNT)
    )

  @tff.federated_computation(
    inner.initialize.type_signature.result,
    tff.FederatedType(record_type, tff.CLIENTS),
  )
  def next_fn(state, records):
    output = inner.next(state, records)
    stddev = state.query_state.sum_state.stddev
    return tff.templates.MeasuredProcessOutput(
      output.state,
      tff.federated_map(divide, (output.result, stddev)),
      tff.federated_zip(
        collections.OrderedDict(
          clip_norm=output.measurements['dp_query_metrics']['clip']
        )
      ),
    )

  return tff.templates.AggregationProcess(inner.initialize, next_fn)


def build_client_work(
  client_work: tff.Computation, mechanism: Mechanism
) -> tff.Computation:
  """Returns the client work that sends a `Record` and no metrics.

  Args:
    client_work: Sends `ClassPrototypes` (see `client_work.build_client_work`).
    mechanism: With `local` and `distributed`, records are clipped and noisy.
  """
  update_type = client_work.type_signature.result.update
  num_classes, dim = update_type.vectors.shape
  clip_norm, unit = _norms(num_classes, dim, mechanism)

  def private(work, arguments):
    output = work(arguments)
    reference = _reference(arguments.broadcast, output.update.vectors)
    record = to_record(output.update, reference, unit)
    client_id = arguments.client_state.seed[1]
    numbers = [mechanism.seed, arguments.round_num, client_id]
    if mechanism.kind == 'local':
      record = seeded_noise.with_noise(
        clip(record, clip_norm),
        clip_norm * mechanism.noise_multiplier,
        numbers,
      )
    if mechanism.kind == 'distributed':
      grid = _grid(num_classes, dim, mechanism)
      seed = seeded_noise.folded(numbers)
      record = Record(
        *(
          discrete_gaussian.to_steps(
            part, grid, tf.random.experimental.stateless_fold_in(seed, index)
          )
          for index, part in enumerate(clip(record, grid.norm))
        )
      )
    nothing = client_work_lib.ClientMetrics(
      *(collections.OrderedDict() for _ in range(3))
    )
    return client_work_lib.ClientOutput(
      output.client_state, record, output.num_examples, nothing
    )

  return client_work_lib.wrap(client_work, private)


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
    process: Process of a method that averages prototypes or mean logits, or,
      with `local`, collects prototypes; made by `composer.compose_process`.
    mechanism: The mechanism.

  Raises:
    UserError: If clients of the process send anything else than
      `ClassPrototypes` of weights 0 and 1, or if it averages weights, or if its
      server needs what each client sends and the noise is not local.
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
  if parts.limits.weighting == 'examples':
    raise errors.UserError(
      'Weights by examples would need a sensitivity of their own: give '
      'weighting=clients.'
    )
  num_classes, dim = update_type.vectors.shape
  changes: dict[str, Any] = {
    'client_work': build_client_work(parts.client_work, mechanism),
    # Noisy records have no weights that could be checked.
    'limits': screening.UNKNOWN,
  }
  result_type = parts.aggregator.next.type_signature.result.result.member
  if result_type == update_type:
    changes['aggregator'] = build_aggregator(num_classes, dim, mechanism)
    changes['finalizer'] = build_finalizer(parts.finalizer)
  elif mechanism.kind == 'local':
    changes['aggregator'] = _build_reader(parts, mechanism)
  else:
    raise errors.UserError(
      f'Differential privacy of the kind {mechanism.kind} hides single clients '
      'in a sum. The server of this process needs what each client sends, so '
      'only the kind local fits.'
    )
  return composer.with_parts(process, **changes)


def to_table(
  record: Record, reference: tf.Tensor, unit: float
) -> prototypes.ClassPrototypes:
  """Returns the class means of one client, from its noisy record.

  A class is there if its noisy presence is nearer to the presence unit than to
  0. That is wrong for many classes if the noise is large.

  Args:
    record: The record of a client.
    reference: float32[num_classes, dim].
    unit: Presence unit.
  """
  present = record.presence > unit / 2
  vectors = record.vectors + reference
  return prototypes.ClassPrototypes(
    tf.where(present[:, tf.newaxis], vectors, tf.zeros_like(vectors)),
    tf.cast(present, tf.float32),
  )


def _build_reader(
  parts: composer.Parts, mechanism: Mechanism
) -> tff.templates.AggregationProcess:
  """Returns the aggregator that reads records for one that takes class means.

  Its third argument is what clients received.
  """
  aggregator = parts.aggregator
  update_type = parts.client_work.type_signature.result.update
  broadcast_type = parts.client_work.type_signature.parameter.broadcast
  num_classes, dim = update_type.vectors.shape
  _, unit = _norms(num_classes, dim, mechanism)
  record_type = tff.types.to_type(
    Record(vectors=update_type.vectors, presence=update_type.weights)
  )

  @tff.tensorflow.computation(record_type, broadcast_type)
  def read(record, broadcast):
    return to_table(record, _reference(broadcast, record.vectors), unit)

  @tff.federated_computation(
    aggregator.initialize.type_signature.result,
    tff.FederatedType(record_type, tff.CLIENTS),
    tff.FederatedType(broadcast_type, tff.CLIENTS),
  )
  def next_fn(state, records, broadcast):
    tables = tff.federated_map(read, (records, broadcast))
    return aggregator.next(state, tables)

  return tff.templates.AggregationProcess(aggregator.initialize, next_fn)


def _reference(broadcast: Any, vectors: tf.Tensor) -> tf.Tensor:
  """Returns the reference in what clients received, or else zeros."""
  reference = server_model.reference_of(broadcast)
  if reference is None or reference.shape != vectors.shape:
    return tf.zeros_like(vectors)
  return reference


def _norms(
  num_classes: int, dim: int, mechanism: Mechanism
) -> tuple[float, float]:
  clip_norm = mechanism.clip_norm or default_clip_norm(num_classes, dim)
  return clip_norm, presence_unit(clip_norm, num_classes)


def _grid(
  num_classes: int, dim: int, mechanism: Mechanism
) -> discrete_gaussian.Grid:
  """Returns the whole numbers of `distributed`."""
  clip_norm, _ = _norms(num_classes, dim, mechanism)
  return discrete_gaussian.plan(
    clip_norm,
    clip_norm * mechanism.noise_multiplier,
    num_classes * (dim + 1),
    mechanism.participants,
    mechanism.bits,
  )


class _ModularSumFactory(tff.aggregators.UnweightedAggregationFactory):
  """Sums whole numbers by a secure modular sum; the result is in units.

  Where the sum is computed in the clear, int32 may overflow. That does no harm,
  because the modulus is a power of two.
  """

  def __init__(self, grid: discrete_gaussian.Grid):
    self._grid = grid

  def create(self, value_type: tff.Type) -> tff.templates.AggregationProcess:
    """Returns the process for a structure of int32 tensors."""
    grid = self._grid

    @tff.tensorflow.computation(value_type)
    def wrap(value):
      return tf.nest.map_structure(
        lambda part: tf.math.floormod(part, grid.modulus), value
      )

    wrapped_type = wrap.type_signature.result
    inner = tff.aggregators.SecureModularSumFactory(grid.modulus).create(
      wrapped_type
    )

    @tff.tensorflow.computation(wrapped_type)
    def unwrap(total):
      return tf.nest.map_structure(
        lambda part: discrete_gaussian.from_steps(part, grid), total
      )

    return mapped.mapped(inner, of_values=wrap, of_result=unwrap)
