"""Clients as ids: each client builds its data set where it is computed.

TFF's `tff.simulation.compose_dataset_computation_with_*` replace an argument
that is a sequence. A stateful process takes stacked examples beside client
states. The functions below compose the same `dataset_computation` with such a
process.
"""

import tensorflow_federated as tff

from tff_fedsa import composer
from tff_fedsa.data import elements


def compose_dataset_computation_with_computation(
  dataset_computation: tff.Computation, computation: tff.Computation
) -> tff.Computation:
  """Returns a computation in which clients build their examples.

  From `(T -> U*)` and `(<..., {E}@CLIENTS> -> V)` for stacked examples `E`, it
  makes `(<..., {T}@CLIENTS> -> V)`. The second may be the computation of
  `client_evaluation.build_evaluation`, or the `next` of a stateful process. `T`
  is e.g. a client id.

  Python builds no data set, so memory does not grow over rounds, and clients
  read their data in parallel.

  Args:
    dataset_computation: E.g. `ClientData.dataset_computation`. `elements.stack`
      describes legal elements. It may also return stacked examples.
    computation: A computation whose last argument holds the clients' examples.

  Raises:
    TypeError: If the examples do not fit; both types are shown.
    ValueError: For unsuitable elements.
  """
  id_type = dataset_computation.type_signature.parameter
  found_type = dataset_computation.type_signature.result
  parameters = tff.structure.to_elements(computation.type_signature.parameter)
  (*others, (examples_name, examples_type)) = parameters
  if id_type is None:
    raise TypeError(
      'Expected a `dataset_computation` of a client id, found '
      f'{dataset_computation.type_signature}.'
    )

  if isinstance(found_type, tff.SequenceType):

    @tff.tensorflow.computation(found_type)
    def stack(dataset):
      return elements.stack(dataset)

    found_type = stack.type_signature.result
  else:
    stack = None
  if not examples_type.member.is_assignable_from(found_type):
    raise TypeError(
      f'The computation takes examples of type\n{examples_type.member}\nbut '
      f'the data sets hold\n{found_type}.\nBuild the process with the '
      '`input_spec` of `elements.input_spec_of(element_type_structure)`.'
    )

  @tff.federated_computation(
    tff.StructType(
      [*others, (examples_name, tff.FederatedType(id_type, tff.CLIENTS))]
    )
  )
  def composed(arguments):
    *kept, client_ids = arguments
    examples = tff.federated_map(dataset_computation, client_ids)
    if stack is not None:
      examples = tff.federated_map(stack, examples)
    return computation(*kept, examples)

  return composed


def compose_dataset_computation_with_stateful_process(
  dataset_computation: tff.Computation, process: composer.StatefulProcess
) -> composer.StatefulProcess:
  """Returns a process in which clients build their examples.

  Its `next` takes `{T}@CLIENTS`, e.g. client ids, instead of examples. See
  `compose_dataset_computation_with_computation`.

  Args:
    dataset_computation: `(T -> U*)`.
    process: Result of `composer.compose_process`.

  Raises:
    TypeError: If the examples do not fit; both types are shown.
    ValueError: For unsuitable elements.
  """
  return composer.StatefulProcess(
    process.initialize,
    compose_dataset_computation_with_computation(
      dataset_computation, process.next
    ),
    broadcast_type=process.broadcast_type,
    update_type=process.update_type,
  )
