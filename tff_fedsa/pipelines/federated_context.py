"""A federated context whose computations may return client-placed values."""

import asyncio
import collections
from typing import Any, Optional

import tensorflow_federated as tff


class StatefulFederatedContext(tff.program.FederatedContext):
  """A `tff.program.FederatedContext` for computations of stateful clients.

  `tff.program.NativeFederatedContext` refuses computations that return
  client-placed values, and cannot take client-placed structures. Here such a
  result is one reference. Its value is the list of the clients' values in the
  order of the arguments. Everything else is the same.
  """

  def __init__(self, context: tff.framework.AsyncExecutionContext):
    """Initializes `StatefulFederatedContext`.

    Args:
      context: Executes the computations, e.g. a result of
        `in_process.contexts.create_async_in_process_context` or
        `native.create_async_native_context`.

    Raises:
      TypeError: If the context is synchronous.
    """
    if not isinstance(context, tff.framework.AsyncExecutionContext):
      raise TypeError(
        'Expected a tff.framework.AsyncExecutionContext, such as '
        '`contexts.create_async_in_process_context()` returns, found '
        f'{type(context)}.'
      )
    self._context = context

  def invoke(self, comp: tff.Computation, arg: Optional[Any]) -> Any:
    """Starts a computation within the running event loop.

    Args:
      comp: The computation.
      arg: The argument. It may hold references to results of other
        computations.

    Returns:
      The structure of the result with a `MaterializableValueReference` for each
      tensor, sequence or client-placed value.
    """
    task = asyncio.create_task(self._invoke(comp, arg))
    return _references(task, comp.type_signature.result)

  async def _invoke(self, comp: tff.Computation, arg: Optional[Any]) -> Any:
    return await self._context.invoke(comp, await _materialize(arg))


class _Reference(tff.program.MaterializableValueReference):
  """A reference to the result of a task."""

  def __init__(self, task: 'asyncio.Task[Any]', type_signature: tff.Type):
    self._task = task
    self._type_signature = type_signature

  @property
  def type_signature(self) -> tff.Type:
    return self._type_signature

  async def get_value(self) -> Any:
    return await self._task


def _references(task: 'asyncio.Task[Any]', result_type: tff.Type) -> Any:
  """Returns the Python structure of a result, made of references."""
  if isinstance(result_type, tff.FederatedType):
    if result_type.placement is tff.SERVER:
      return _references(task, result_type.member)
  elif isinstance(result_type, tff.StructType):
    elements = [
      (name, _references(asyncio.create_task(_item(task, index)), element_type))
      for index, (name, element_type) in enumerate(
        tff.structure.iter_elements(result_type)
      )
    ]
    return _container(result_type, elements)
  return _Reference(task, result_type)


async def _item(task: 'asyncio.Task[Any]', index: int) -> Any:
  return tff.structure.from_container(await task)[index]


def _container(
  struct_type: tff.StructType, elements: list[tuple[Optional[str], Any]]
) -> Any:
  """Returns elements in the container of their type."""
  python_type: Any = getattr(struct_type, 'python_container', None)
  if all(name is None for name, _ in elements):
    return (python_type or tuple)([value for _, value in elements])
  named = collections.OrderedDict(elements)
  if python_type is None:
    return named
  if issubclass(python_type, dict):
    return python_type(named)
  return python_type(**named)


async def _materialize(arg: Any) -> Any:
  """Returns an argument with the values of its references."""
  if isinstance(arg, tff.structure.Struct):
    # Arguments of a computation are packed.
    elements = tff.structure.to_elements(arg)
    values = await asyncio.gather(*(_materialize(v) for _, v in elements))
    return tff.structure.Struct(
      [(name, value) for (name, _), value in zip(elements, values)]
    )
  return await tff.program.materialize_value(arg)
