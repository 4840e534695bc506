"""Secure aggregation of all that clients send in a round of training.

`protect` puts secure sums (`secure_sums`) in the place of all sums of a
process, and then checks the result: TFF's static analysis of the computation
must find no aggregation that is not secure.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Annotated, Any

from etils import epy

from tff_fedsa import settings
from tff_fedsa.runs import errors

with epy.lazy_imports():
  import tensorflow_federated as tff

  from tff_fedsa import composer
  from tff_fedsa.aggregation import class_mean
  from tff_fedsa.aggregation import screening
  from tff_fedsa.aggregation import secure_sums
  from tff_fedsa.aggregation import tier_mean
  from tff_fedsa.aggregation import weighted_mean
  from tff_fedsa.maths import prototypes
  from tff_fedsa.server import averaging as averaging_lib


@dataclasses.dataclass(frozen=True)
class SecureConfig(settings.Settings):
  """Secure aggregation: the server learns sums over clients only.

  Attributes:
    secure: Whether all that the server learns from clients in a round of
      training are secure sums: class means or averaged weights, losses, counts.
      The simulation computes these sums in the clear. See docs/secure.md.
    secure_bound: Largest absolute value of a coordinate of a class mean or of
      averaged weights, > 0. What lies beyond is clipped and counted, and a
      coordinate has 2^32 steps between the two bounds.
  """

  secure: bool = False
  secure_bound: Annotated[float, settings.Above(0.0)] = 1000.0

  def without_effect(self) -> Mapping[str, str]:
    """Returns the fields that the other fields make pointless."""
    return {} if self.secure else {'secure_bound': 'there is no `secure`'}


def protect(
  process: composer.StatefulProcess, config: SecureConfig
) -> composer.StatefulProcess:
  """Returns a process of the same method whose server learns sums only.

  Args:
    process: Process of a method whose server averages what clients send, made
      by `composer.compose_process`.
    config: Bounds of values.

  Raises:
    UserError: If the server needs to see single clients, or nobody knows the
      largest weight of a client.
  """
  parts = process.parts
  if parts is None or parts.attack is not None:
    raise errors.UserError(
      'Expected a process of `compose_process` without attackers: they learn '
      'from others outside of secure sums.'
    )
  averaging = parts.averaging
  if averaging is not None:
    averaging = _secure_averaging(averaging, parts.limits, config)
  protected = composer.with_parts(
    process,
    aggregator=_secure_aggregator(parts, config),
    averaging=averaging,
    secure=True,
  )
  check(protected.next)
  return protected


def check(computation: tff.Computation) -> None:
  """Checks that all aggregations of a computation are secure.

  Args:
    computation: Computation that is not compiled yet.

  Raises:
    UserError: If one is not. The message holds its intrinsic.
  """
  try:
    tff.test.assert_not_contains_unsecure_aggregation(computation)
  except AssertionError as error:
    raise errors.UserError(
      'A secure process must not aggregate otherwise than by secure sums. '
      f'{error}'
    ) from error


def _secure_aggregator(
  parts: composer.Parts, config: SecureConfig
) -> tff.templates.AggregationProcess:
  """Returns the mean by secure sums in place of a plain mean."""
  update_type = parts.client_work.type_signature.result.update
  container = getattr(update_type, 'python_container', None)
  factories: dict[Any, Any] = {
    prototypes.ClassPrototypes: class_mean.ClassMeanFactory,
    weighted_mean.WeightedValue: weighted_mean.WeightedMeanFactory,
  }
  if container not in factories:
    # `check` decides.
    return parts.aggregator
  factory = factories[container]
  plain = factory().create(update_type)
  if parts.aggregator.next.type_signature != plain.next.type_signature:
    raise errors.UserError(
      'Secure aggregation needs a server that averages what clients send. The '
      'aggregator of this one sees single clients.'
    )
  by_class = container is prototypes.ClassPrototypes
  return factory(*_sums(parts.limits, by_class, config)).create(update_type)


def _secure_averaging(
  averaging: averaging_lib.WeightAveraging,
  limits: screening.Limits,
  config: SecureConfig,
) -> averaging_lib.WeightAveraging:
  """Returns the same averaging of weights by secure sums."""
  value_type = averaging.aggregator.next.type_signature.parameter[1].member
  if value_type.python_container is not tier_mean.TierValue:
    raise errors.UserError(
      'Secure aggregation of weights needs the mean of tiers, found an '
      'aggregator of your own.'
    )
  limits = dataclasses.replace(limits, weighting=averaging.weighting)
  factory = secure_sums.TierMeanFactory(
    averaging.tiers.sizes, *_sums(limits, False, config)
  )
  return averaging._replace(
    aggregator=factory.create(value_type), sends_all=True
  )


def _sums(
  limits: screening.Limits, by_class: bool, config: SecureConfig
) -> tuple[
  tff.aggregators.UnweightedAggregationFactory,
  tff.aggregators.UnweightedAggregationFactory,
]:
  """Returns the sums of weighted vectors and of weights."""
  largest, steps = 1.0, 1.0
  if limits.weighting == 'examples':
    if limits.max_examples is None or limits.num_epochs is None:
      raise errors.UserError(
        'Secure sums of values that are weighted by examples need '
        '`max_examples`, the examples of the largest client.'
      )
    largest = float(max(1, limits.max_examples))
    if by_class:
      # Counts by class are means over epochs.
      steps = float(limits.num_epochs)
    else:
      largest *= limits.num_epochs
  return (
    secure_sums.vector_sum(config.secure_bound * largest),
    secure_sums.count_sum(largest, steps),
  )
