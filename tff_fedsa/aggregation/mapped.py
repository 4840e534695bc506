"""An aggregation process around another one."""

from typing import Optional

import tensorflow_federated as tff


def mapped(
  inner: tff.templates.AggregationProcess,
  *,
  of_values: Optional[tff.Computation] = None,
  of_result: Optional[tff.Computation] = None,
  of_measurements: Optional[tff.Computation] = None,
) -> tff.templates.AggregationProcess:
  """Returns a process that aggregates functions of values.

  Args:
    inner: Aggregates what `of_values` returns. It takes no weights.
    of_values: Function of a client's value. Default: the value itself. So are
      the others.
    of_result: Function of the result of `inner`.
    of_measurements: Function of the measurements of `inner`.
  """
  state_type, values_type = inner.next.type_signature.parameter
  if of_values is not None:
    values_type = tff.FederatedType(
      of_values.type_signature.parameter, tff.CLIENTS
    )

  def apply(function, value):
    return value if function is None else tff.federated_map(function, value)

  @tff.federated_computation(state_type, values_type)
  def next_fn(state, value):
    output = inner.next(state, apply(of_values, value))
    return tff.templates.MeasuredProcessOutput(
      output.state,
      apply(of_result, output.result),
      apply(of_measurements, output.measurements),
    )

  return tff.templates.AggregationProcess(inner.initialize, next_fn)
