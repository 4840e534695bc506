"""Turns away contributions that no honest client can have sent.

Data flow: client_work.py -> [this module] -> the factories of this package.

The check sits where TFF's own `tff.aggregators.zeroing_factory` has its check:
at `CLIENTS`, after the client work and before the sums. `compose_process` makes
it part of the client's one computation of a round, because another call would
cost more than the check. In the simulation nothing reaches an aggregate by
another way. In a deployment the receiving side has to run it on what arrives,
as a client can skip what it computes itself.
"""

import collections
from collections.abc import Callable
import dataclasses
import functools
from typing import Any, NamedTuple, Optional

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_fedsa.aggregation import tier_mean
from tff_fedsa.aggregation import weighted_mean
from tff_fedsa.maths import finite as finite_lib
from tff_fedsa.maths import prototypes

# Why a contribution is turned away: reason -> what it means. The place in this
# list, counted from 1, stands for the reason in a `Screened.rejected`.
REASONS = {
  'nonfinite': 'sent NaN or infinity',
  'large': f'sent a value beyond {finite_lib.LARGEST:.0e}',
  'weight': 'sent a weight or a count that no client can have',
  'metrics': 'sent losses or counts of examples that no client can have',
}
# No mean of losses or of bytes comes near it, and float32 sums stay finite.
_LARGEST_METRIC = 1e15


@dataclasses.dataclass(frozen=True)
class Limits:
  """Largest weights and counts that a client can have.

  Attributes:
    weighting: What a client counts by: `clients`, 0 or 1; `examples`, its
      examples. None leaves the size of weights open. See
      `prototypes.upload_weights`.
    counts: Name of an update's field that holds examples per class, for updates
      that are neither `ClassPrototypes` nor `WeightedValue`.
    max_examples: Examples that a client visits in an epoch at most, >= 0; None
      where nobody knows.
    num_epochs: Epochs of a round; None where nobody knows. Counts per class are
      means over epochs.
  """

  weighting: Optional[str] = None
  counts: Optional[str] = None
  max_examples: Optional[int] = None
  num_epochs: Optional[int] = None


UNKNOWN = Limits()


class Screened(NamedTuple):
  """A contribution after the check.

  Attributes:
    value: The contribution; zeros throughout if it is turned away.
    reason: int32 scalar, 0 if it is kept, else the place of the reason in
      `REASONS`, counted from 1.
  """

  value: Any
  reason: Any


def clean(update: Any, limits: Limits) -> Any:
  """Returns an update with zeros in place of all that is not to count.

  These are rows of `ClassPrototypes` of weight 0, and the whole value where the
  weight, or all counts, are 0. They may hold anything, NaN included, and
  servers that collect updates would multiply it by 0.

  Args:
    update: What a client sends, in TensorFlow.
    limits: Names the counts, see `Limits`.
  """
  if isinstance(update, prototypes.ClassPrototypes):
    held = (update.weights > 0)[:, tf.newaxis]
    return update._replace(
      vectors=tf.where(held, update.vectors, tf.zeros_like(update.vectors))
    )
  name = _weight_field(update, limits)
  if name is None:
    return update
  counts = tf.reduce_any(getattr(update, name) > 0)
  # The server knows the tier of a client.
  values = {
    field: value
    for field, value in update._asdict().items()
    if field not in (name, 'tier')
  }
  return update._replace(**finite_lib.choose(counts, values))


def fault(update: Any, limits: Limits) -> tf.Tensor:
  """Returns why an update is to be turned away, int32 scalar, 0 for none.

  Args:
    update: What a client sends, in TensorFlow, after `clean`.
    limits: Bounds of its weights.
  """
  name = _weight_field(update, limits)
  plausible = tf.constant(True)
  if name is not None:
    plausible = _is_plausible(getattr(update, name), limits)
  usable = finite_lib.all_usable(update)

  def diagnose():
    return tf.where(
      usable,
      _code('weight'),
      tf.where(
        finite_lib.all_finite(update), _code('large'), _code('nonfinite')
      ),
    )

  return tf.cond(usable & plausible, lambda: tf.constant(0), diagnose)


def metrics_fault(metrics: Any, limits: Limits) -> tf.Tensor:
  """Returns why a client's metrics are to be turned away, 0 for none.

  Args:
    metrics: `client_work.ClientMetrics`, in TensorFlow.
    limits: Bounds of the examples that it says it trained on.
  """
  most = most_examples(limits)
  checks = []
  if metrics.sums:
    weights = tf.stack([metrics.weights[name] for name in metrics.sums])
    sums = tf.abs(tf.stack(list(metrics.sums.values())))
    checks.append(sums <= _LARGEST_METRIC)
    checks.append((weights >= 0) & (weights <= most))
  if metrics.totals:
    totals = tf.stack(list(metrics.totals.values()))
    # A client is one client.
    bounds = [
      1.0 if name.startswith('clients_') else most for name in metrics.totals
    ]
    checks.append((totals >= 0) & (tf.cast(totals, tf.float32) <= bounds))
  if not checks:
    return tf.constant(0)
  plausible = tf.reduce_all(tf.concat(checks, axis=0))
  return tf.where(plausible, 0, _code('metrics'))


def most_examples(limits: Limits) -> float:
  """Returns how many examples a client visits in a round at most."""
  if limits.max_examples is None or limits.num_epochs is None:
    return finite_lib.LARGEST
  return float(limits.max_examples * limits.num_epochs)


def screen(value: Any, fault_fn: Callable[[Any], tf.Tensor]) -> Screened:
  """Returns a contribution, or zeros in its place.

  Args:
    value: Structure of tensors.
    fault_fn: `fn(value) -> int32`, 0 for a contribution that is kept.
  """
  reason = fault_fn(value)
  return Screened(finite_lib.choose(reason <= 0, value), reason)


def verdict_type() -> tff.Type:
  """Returns the unplaced type of what the check says of one client."""
  return tff.types.to_type(
    collections.OrderedDict(
      id=tff.TensorType(np.int32), reason=tff.TensorType(np.int32)
    )
  )


@functools.cache
def build_count() -> tff.templates.AggregationProcess:
  """Returns the process that counts what was turned away, and names it.

  Its type is `(<<>@SERVER, {<id=int32,reason=int32>}@CLIENTS> -> <state=<>,
  result=R, measurements=<>>@SERVER)`. R has int32 scalars `clients_rejected`
  and, for each of `REASONS`, `clients_rejected_<reason>`, and `rejected`
  int32[?, 2]: id and reason of each contribution that was turned away.
  """
  pair_type = verdict_type()
  rows_type = tff.TensorType(np.int32, (None, 2))

  @tff.tensorflow.computation
  def no_rows():
    return tf.zeros([0, 2], tf.int32)

  @tff.tensorflow.computation(rows_type, pair_type)
  def accumulate(rows, pair):
    row = tf.stack([pair['id'], pair['reason']])[tf.newaxis]
    return tf.concat([rows, row[: tf.minimum(pair['reason'], 1)]], axis=0)

  @tff.tensorflow.computation(rows_type, rows_type)
  def merge(first, second):
    return tf.concat([first, second], axis=0)

  @tff.tensorflow.computation(rows_type)
  def report(rows):
    reasons = rows[:, 1:]
    # In the first place all reasons.
    found = [reasons > 0, tf.equal(reasons, 1 + np.arange(len(REASONS)))]
    totals = tf.unstack(
      tf.reduce_sum(tf.cast(tf.concat(found, axis=1), tf.int32), axis=0)
    )
    counts = collections.OrderedDict(clients_rejected=totals[0])
    for name, total in zip(REASONS, totals[1:]):
      counts[f'clients_rejected_{name}'] = total
    return collections.OrderedDict(counts, rejected=rows)

  @tff.federated_computation
  def initialize_fn():
    return tff.federated_value((), tff.SERVER)

  @tff.federated_computation(
    initialize_fn.type_signature.result,
    tff.FederatedType(pair_type, tff.CLIENTS),
  )
  def next_fn(state, pairs):
    return tff.templates.MeasuredProcessOutput(
      state,
      tff.federated_aggregate(pairs, no_rows(), accumulate, merge, report),
      tff.federated_value((), tff.SERVER),
    )

  return tff.templates.AggregationProcess(initialize_fn, next_fn)


class ScreeningFactory(tff.aggregators.UnweightedAggregationFactory):
  """Checks values before another factory's process aggregates them.

  For processes of your own: `composer.compose_process` checks all that a client
  sends, whatever its aggregator is. The created process has the state, the
  result and, beside `clients_rejected` (see `build_count`), the measurements of
  the inner one, under `inner`. A value that is turned away takes part as zeros.
  """

  def __init__(
    self,
    inner_factory: tff.aggregators.UnweightedAggregationFactory,
    limits: Limits = UNKNOWN,
  ):
    """Initializes `ScreeningFactory`.

    Args:
      inner_factory: Aggregates what is kept.
      limits: Bounds of weights.
    """
    self._inner_factory = inner_factory
    self._limits = limits

  def create(self, value_type: tff.Type) -> tff.templates.AggregationProcess:
    """Returns the process for values of a type."""
    inner = self._inner_factory.create(value_type)
    count, limits = build_count(), self._limits

    @tff.tensorflow.computation(value_type)
    def check(value):
      return screen(clean(value, limits), lambda value: fault(value, limits))

    @tff.tensorflow.computation(np.int32)
    def name(reason):
      return collections.OrderedDict(id=tf.constant(-1), reason=reason)

    @tff.federated_computation(
      inner.initialize.type_signature.result,
      tff.FederatedType(value_type, tff.CLIENTS),
    )
    def next_fn(state, value):
      screened = tff.federated_map(check, value)
      output = inner.next(state, screened.value)
      counted = count.next(
        count.initialize(), tff.federated_map(name, screened.reason)
      )
      return tff.templates.MeasuredProcessOutput(
        output.state,
        output.result,
        tff.federated_zip(
          collections.OrderedDict(
            screening=counted.result, inner=output.measurements
          )
        ),
      )

    return tff.templates.AggregationProcess(inner.initialize, next_fn)


def _code(name: str) -> tf.Tensor:
  return tf.constant(1 + list(REASONS).index(name))


def _weight_field(update: Any, limits: Limits) -> Optional[str]:
  """Returns the name of an update's field of weights, None if it has none."""
  if isinstance(update, prototypes.ClassPrototypes):
    return 'weights'
  if isinstance(update, weighted_mean.WeightedValue | tier_mean.TierValue):
    return 'weight'
  return limits.counts


def _is_plausible(weight: tf.Tensor, limits: Limits) -> tf.Tensor:
  """Returns whether a client can have this weight, or weights by class."""
  if limits.weighting == 'clients':
    return tf.reduce_all(tf.equal(weight * (1.0 - weight), 0.0))
  plausible = tf.reduce_all(weight >= 0)
  if limits.weighting is None:
    return plausible
  by_class = weight.shape.rank > 0
  most, scale = most_examples(limits), 1.0
  if by_class and limits.num_epochs is not None:
    scale = float(limits.num_epochs)
  # All epochs together are whole examples; a quotient of floats nearly so.
  visits = scale * weight
  slack = 1e-3 + 1e-6 * visits
  if not by_class or limits.num_epochs is not None:
    whole = tf.abs(visits - tf.round(visits)) <= slack
    plausible &= tf.reduce_all(whole)
  return plausible & (tf.reduce_sum(visits) <= most * (1.0 + 1e-6))
