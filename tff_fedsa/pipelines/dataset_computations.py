"""Clients passed as ids: their data sets are built where they are used.

Upstream's `tff.simulation.compose_dataset_computation_with_*` replace the one
argument that is a sequence; a stateful process takes stacked examples, beside
client states. These compose the same `dataset_computation` with that.
"""

import tensorflow_federated as tff

from tff_fedsa import composer
from tff_fedsa.data import elements


def compose_dataset_computation_with_computation(
  dataset_computation: tff.Computation, computation: tff.Computation
) -> tff.Computation:
  """Returns a computation whose clients build their examples.

  From `(T -> U*)` and `(<..., {E}@CLIENTS> -> V)`, `E` being stacked examples,
  it makes `(<..., {T}@CLIENTS> -> V)`: `evaluation.build_evaluation` or the
  `next` of a stateful process for clients given by their ids.

  No data set is made in Python, so memory stays flat over rounds, and clients
  read their data side by side.

  Args:
    dataset_computation: E.g. `ClientData.dataset_computation`; elements as
      `elements.stack` takes them. It may also return stacked examples.
    computation: Its last argument is the clients' examples.

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
  """Returns a process whose clients build their examples.

  Its `next` takes `{T}@CLIENTS`, e.g. client ids, in place of examples; see
  `compose_dataset_computation_with_computation`.

  Args:
    dataset_computation: `(T -> U*)`.
    process: Process made by `composer.compose_process`.

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
